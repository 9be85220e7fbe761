# A run over a coordinator: Ctrl-C cancels there too; the coordinator's death stops nothing.
. "$(dirname "$0")/lib.sh"
coordinator
worker one --cpus 1
gates gate started
script gated 'echo "rank $PESC_RANK"; echo up >"'"$WORK"'/started"; read line <"'"$WORK"'/gate"'

start() { # NAME FLAGS...
  name=$1
  shift
  env --default-signal=INT pesc run --coordinator "$ADDRESS" --grace 200ms "$@" -- ./gated \
    >"$WORK/$name.out" 2>"$WORK/$name.err" </dev/null &
  RUN=$!
  PIDS="$RUN $PIDS"
  read -r line <"$WORK/started"
}
ended() { # NAME CODE
  wait "$RUN"
  code=$?
  [ "$code" -eq "$2" ] || { fail "$1 ended with $code instead of $2"; cat "$WORK/$1.err" >&2; }
}
said() { grep -qF -- "$2" "$WORK/$1.err" || { fail "$1 did not say: $2"; cat "$WORK/$1.err" >&2; }; }
once() { equal "$(grep -cF -- "$2" "$WORK/$1.err")" 1 "$1 says once: $2"; }
end_coordinator() {
  kill -KILL "$COORDINATOR_PID"
  wait "$COORDINATOR_PID" 2>/dev/null
}

start int -n 3 -o r-int
kill -INT "$RUN"
ended int 130
expect 0 pesc status last --json --coordinator "$ADDRESS"
equal "$(json "$WORK/out" state)" cancelled
present r-int/ranks.csv

# All who follow the job say that the coordinator is away, and wait for it.
start killed -n 2 -o r
JOB=$(grep -oE 'job [0-9a-z]{13}' "$WORK/killed.err" | cut -d' ' -f2)
follow() { # NAME COMMAND...
  name=$1
  shift
  "$@" --coordinator "$ADDRESS" >"$WORK/$name.out" 2>"$WORK/$name.err" </dev/null &
  PIDS="$! $PIDS"
}
follow watch pesc watch "$JOB"
WATCH=$!
follow all pesc logs -f "$JOB"
ALL=$!
follow rank pesc logs -f "$JOB" 0
RANK=$!
await "$WORK/rank.out" 'rank 0' "$RANK" >/dev/null
equal "$(await "$WORK/all.out" 'rank 0' "$ALL")" "[0] rank 0"
# All of them are connected now: what they were told of is counted.
while ! grep -q 'ESTAB\|socket' "/proc/$WATCH/wchan" 2>/dev/null &&
  ! ls -l "/proc/$WATCH/fd" | grep -q socket; do :; done
end_coordinator
AWAY="the coordinator at $ADDRESS does not answer; waiting for it (the job goes on without us). Ctrl-C"
for each in "killed $RUN" "watch $WATCH" "all $ALL" "rank $RANK"; do
  await "$WORK/${each% *}.err" 'does not answer' "${each#* }" >/dev/null
  said "${each% *}" "$AWAY"
done
expect 3 pesc jobs --coordinator "$ADDRESS"
coordinator --listen "$ADDRESS"
for each in "killed $RUN" "watch $WATCH" "all $ALL" "rank $RANK"; do
  await "$WORK/${each% *}.err" 'answers again' "${each#* }" >/dev/null
done
echo go >"$WORK/gate"
read -r line <"$WORK/started"
echo go >"$WORK/gate"
ended killed 0
for pid in "$WATCH" "$ALL" "$RANK"; do
  wait "$pid"
  equal $? 0 "who followed the job"
done
for name in killed watch all rank; do
  once $name "does not answer"
  once $name "answers again"
done
equal "$(tr '\n' ' ' <"$WORK/all.out")" "[0] rank 0 [1] rank 1 "
equal "$(cat "$WORK/rank.out")" "rank 0"
printf 'rank 0\nrank 1\n' >expected
same r/output.txt expected
equal "$(cut -d, -f3 r/ranks.csv | tr '\n' ' ')" "attempts 1 1 " "no rank was started again"

# One interrupt while the coordinator is away leaves at once, and says what became of the job.
start away -n 1 -o r-away
end_coordinator
await "$WORK/away.err" 'does not answer' "$RUN" >/dev/null
kill -TERM "$RUN"
ended away 130
JOB=$(grep -oE 'job [0-9a-z]{13}' "$WORK/away.err" | head -1 | cut -d' ' -f2)
said away "the cancel could not be delivered"
said away "pesc cancel $JOB"
coordinator --listen "$ADDRESS"
expect 0 pesc status "$JOB" --json --coordinator "$ADDRESS"
equal "$(json "$WORK/out" state)" running
expect 0 pesc cancel "$JOB" --coordinator "$ADDRESS"
says "cancelled $JOB: 1 rank stopped"
expect 1 pesc watch "$JOB" --coordinator "$ADDRESS"

# Interrupted, then gone: a cancel that is on its way is not waited for either.
start gone -n 1 -o r-gone
kill -STOP "$COORDINATOR_PID"
kill -TERM "$RUN"
await "$WORK/gone.err" cancelling "$RUN" >/dev/null
end_coordinator
ended gone 130
said gone "the cancel could not be delivered"
done_with_tests
