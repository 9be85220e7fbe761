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

start int -n 3 -o r-int
kill -INT "$RUN"
ended int 130
expect 0 pesc status last --json --coordinator "$ADDRESS"
equal "$(json "$WORK/out" state)" cancelled
present r-int/ranks.csv

start killed -n 2 -o r
kill -KILL "$COORDINATOR_PID"
wait "$COORDINATOR_PID" 2>/dev/null
expect 3 pesc jobs --coordinator "$ADDRESS"
coordinator --listen "$ADDRESS"
echo go >"$WORK/gate"
read -r line <"$WORK/started"
echo go >"$WORK/gate"
ended killed 0
printf 'rank 0\nrank 1\n' >expected
same r/output.txt expected
equal "$(cut -d, -f3 r/ranks.csv | tr '\n' ' ')" "attempts 1 1 " "no rank was started again"
done_with_tests
