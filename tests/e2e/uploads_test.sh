# A large file is named while it is sent: what breaks on the way leaves nothing, and is sent again.
. "$(dirname "$0")/lib.sh"
coordinator
export PESC_COORDINATOR=$ADDRESS
TMP=$WORK/coordinator/blobs/tmp
LARGE=$WORK/coordinator/blobs/large
script rank 'wc -c <big'
truncate -s 300M big

# begin_upload: a client that is stopped in the midst of its upload; its pid is in CLIENT.
begin_upload() {
  pesc submit -n 1 --no-auto-files --file rank --shared-file big -- ./rank >"$WORK/out" 2>"$WORK/err" &
  CLIENT=$!
  PIDS="$CLIENT $PIDS"
  until [ -n "$(ls "$TMP")" ] || has_ended "$CLIENT"; do :; done
  kill -STOP "$CLIENT"
  [ -n "$(ls "$TMP")" ] || fail "nothing of the upload is there: $(cat "$WORK/err")"
}
empty_again() { until [ -z "$(ls "$TMP")" ]; do :; done; } # the test's time limit ends it
stored() { find "$LARGE" -type f 2>/dev/null | wc -l; }

# Killed: its connection ends, and nothing else is said.
begin_upload
kill -KILL "$CLIENT"
empty_again
equal "$(stored)" 0 "large blobs after an upload that was left"

# Written to meanwhile.
begin_upload
echo more >>big
kill -CONT "$CLIENT"
wait "$CLIENT" && fail "a file that changed was submitted"
says 'changed while it was being submitted'
empty_again
equal "$(stored)" 0 "large blobs of a file that changed"
equal "$(pesc jobs --json | grep -c '"id"')" 0 "jobs"

# The coordinator dies, and comes back.
begin_upload
kill -KILL "$COORDINATOR_PID"
wait "$COORDINATOR_PID" 2>/dev/null
coordinator --listen "$ADDRESS"
[ -z "$(ls "$TMP")" ] || fail "what the last one left half-made is still there"
kill -CONT "$CLIENT"
wait "$CLIENT" || fail "not submitted after the coordinator came back: $(cat "$WORK/err")"
job=$(cat "$WORK/out")
equal "$(stored)" 1 "large blobs"
worker w
expect 0 pesc watch "$job"
expect 0 pesc fetch "$job" -o results
equal "$(tr -d ' ' <results/output.txt)" 314572805

# The same again, and another one of its size.
before=$(find "$LARGE" -type f -printf '%f %i\n')
expect 0 pesc submit -n 1 --no-auto-files --file rank --shared-file big -- ./rank
equal "$(find "$LARGE" -type f -printf '%f %i\n')" "$before" "the same file was stored again"
printf x | dd of=big bs=1 seek=1000 conv=notrunc 2>/dev/null
expect 0 pesc submit -n 1 --no-auto-files --file rank --shared-file big -- ./rank
equal "$(stored)" 2 "large blobs"

# No room for it. Only root can make a small disk; where even root may not, that was all.
SMALL=$WORK/small
mkdir -m 755 "$SMALL"
mount -t tmpfs -o size=64m,mode=755 tmpfs "$SMALL" 2>/dev/null || done_with_tests
trap 'umount -l "$SMALL"; finish' EXIT
WORK_BEFORE=$WORK WORK=$SMALL
coordinator
WORK=$WORK_BEFORE
export PESC_COORDINATOR=$ADDRESS
expect 1 pesc submit -n 1 --no-auto-files --file rank --shared-file big -- ./rank
says "the coordinator's disk is full"
until [ -z "$(ls "$SMALL/coordinator/blobs/tmp")" ]; do :; done
expect 0 pesc submit -n 1 --no-auto-files --file rank -- ./rank # there is room again
done_with_tests
