# A worker on a machine that has an owner: a login throttles its ranks, pausing freezes them.
. "$(dirname "$0")/lib.sh"
coordinator

# owner_says PATTERN [N]: the worker's monitor has said so (for the Nth time).
owner_says() {
  [ -n "$(await "$WORK/worker-shared.log" "event=owner .*$1" "$WORKER_PID" "${2:-1}")" ] ||
    fail "the monitor does not say: $1"
}
# coordinator_hears PATTERN [N]: and the coordinator knows.
coordinator_hears() {
  [ -n "$(await "$WORK/coordinator.log" "event=worker_busy .*$1" "$COORDINATOR_PID" "${2:-1}")" ] ||
    fail "the coordinator does not hear: $1"
}

MACHINE="$WORK/machine"
SESSIONS="$MACHINE/run/systemd/sessions"
mkdir -p "$SESSIONS" "$MACHINE/proc" "$MACHINE/dev/pts"
log_in() {
  printf 'USER=ana\nSTATE=active\nREMOTE=1\nCLASS=user\nREALTIME=%s000000\n' "$(date +%s)" \
    >"$MACHINE/session"
  mv "$MACHINE/session" "$SESSIONS/1"
}
cat >worker.toml <<TOML
[owner]
root = "$MACHINE"
memory_limit = 100
resume_after = "0s"
TOML
worker shared --cpus 2 --config "$PWD/worker.toml"
gates gate started
exec 3<>"$WORK/gate" # so that each line lets one rank go
script gated 'echo up >"'"$WORK"'/started"; read line <"'"$WORK"'/gate"'

# What is wrong in the table is told by name, and nothing is run.
printf '[owner]\nwhen_present = "sleep"\n' >wrong.toml
expect 2 pesc-worker --config wrong.toml --coordinator "$ADDRESS" --state "$WORK/wrong"
says 'the key "owner.when_present" must be one of "throttle", "freeze", "vacate", "ignore"'

expect 0 pesc submit --coordinator "$ADDRESS" -n 1 --time-limit 150s -- ./gated
JOB=$(cat "$WORK/out")
read -r line <"$WORK/started"

# A login: throttled, and no new ranks; everybody is told why, and not who.
log_in
owner_says 'ranks=throttled busy="its owner is here.*seen="ana at'
coordinator_hears 'its owner is here'
expect 0 pesc workers
prints 'busy'
prints 'gets no work: busy: its owner is here, its ranks are throttled to 10 %'
! grep -q ana "$WORK/out" || fail "the owner's name is told"
expect 0 pesc submit --coordinator "$ADDRESS" -n 1 -- ./gated
WAITING=$(cat "$WORK/out")
expect 0 pesc why "$WAITING"
prints 'shared is busy: its owner is here'
expect 0 pesc why "$JOB"
prints 'on worker shared, which is busy: its owner is here, its ranks are throttled to 10 %'
expect 0 pesc workers --json
prints '"state":"busy"'

# The logout: the other one starts.
rm "$SESSIONS/1"
owner_says 'ranks=run'
read -r line <"$WORK/started"

# Paused by an administrator, also after the worker's restart.
expect 0 pesc pause shared --coordinator "$ADDRESS"
says 'shared is paused: it gets no work, and what it runs (2 ranks) is frozen, until pesc resume shared'
owner_says 'ranks=frozen busy="paused by an administrator'
kill -KILL "$WORKER_PID"
wait "$WORKER_PID" 2>/dev/null
mv "$WORK/worker-shared.log" "$WORK/worker-shared.1.log"
worker shared --cpus 2 --config "$PWD/worker.toml"
owner_says 'ranks=frozen busy="paused by an administrator'
expect 0 pesc workers --coordinator "$ADDRESS"
prints 'paused: its ranks are frozen, and it gets no work until `pesc resume shared`'
expect 2 pesc pause nobody --coordinator "$ADDRESS"
expect 0 pesc resume shared --coordinator "$ADDRESS" --json
prints '"paused":false'
owner_says 'ranks=run'

# And by whoever sits at the machine, without any token.
expect 0 pesc-worker --pause --state "$WORK/worker-shared"
says 'paused'
owner_says 'ranks=frozen busy="paused at the machine itself'
coordinator_hears 'paused at the machine itself'
expect 0 pesc-worker --pause --state "$WORK/worker-shared"
expect 0 pesc-worker --resume --state "$WORK/worker-shared"
owner_says 'ranks=run' 2
expect 0 pesc-worker --resume --state "$WORK/worker-shared"
expect 1 pesc-worker --pause --state "$WORK/no/such/worker"
says 'name the worker'

echo go >&3
echo go >&3
expect 0 pesc watch "$JOB" --coordinator "$ADDRESS"
expect 0 pesc watch "$WAITING" --coordinator "$ADDRESS"

expect 0 pesc doctor
prints "owner's logins"
prints "owner's input"
done_with_tests
