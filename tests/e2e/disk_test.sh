# A worker whose disk is full takes no ranks, says so, and goes on when there is room. Only root can
# make a small disk; where even root may not, there is nothing to see.
. "$(dirname "$0")/lib.sh"
SMALL="$WORK/small"
mkdir -m 755 "$SMALL"
mount -t tmpfs -o size=8m,mode=755 tmpfs "$SMALL" 2>/dev/null || { echo "no mounts here"; exit 0; }
trap 'umount -l "$SMALL"; finish' EXIT # lazily: it is gone when the daemons are
coordinator
: >"$WORK/worker.log"
pesc-worker --coordinator "$ADDRESS" --state "$SMALL/state" --name small --cpus 2 >"$WORK/worker.log" 2>&1 &
WORKER_PID=$!
PIDS="$WORKER_PID $PIDS"
export PESC_COORDINATOR=$ADDRESS
worker_says() { [ -n "$(await "$WORK/worker.log" "$1" "$WORKER_PID")" ] || fail "the worker does not say: $1"; }
worker_says 'event=worker_started'

dd if=/dev/zero of="$SMALL/ballast" bs=4096 2>/dev/null
script rank 'echo "rank $PESC_RANK"'
job=$(pesc submit -n 30 -- ./rank)
worker_says 'event=disk_full'
[ -n "$(await "$WORK/coordinator.log" 'event=worker_busy .*No space left' "$COORDINATOR_PID")" ] ||
  fail "the coordinator is not told"
expect 0 pesc why "$job"
prints 'small is busy: cannot write to'
rm "$SMALL/ballast"
worker_says 'event=disk_usable_again'
expect 0 pesc watch "$job"
expect 0 pesc status "$job"
prints '30 succeeded'
done_with_tests
