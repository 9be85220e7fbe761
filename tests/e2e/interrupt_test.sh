# Ctrl-C, a lost terminal, kill -9 and --resume, without a coordinator.
. "$(dirname "$0")/lib.sh"
mkdir "$WORK/ticks"
gates gate started

# Ranks 0 to 2 are quick; rank 3 says that it runs, and waits at the gate.
script counted 'echo run >>"'"$WORK"'/ticks/$PESC_RANK"
echo "result $PESC_RANK"
[ "$PESC_RANK" -ne 3 ] || { echo up >"'"$WORK"'/started"; read line <"'"$WORK"'/gate"; }'

# start NAME COMMAND...: in the background; returns when rank 3 runs.
start() {
  name=$1
  shift
  "$@" >"$WORK/$name.out" 2>"$WORK/$name.err" </dev/null &
  RUN=$!
  PIDS="$RUN $PIDS"
  read -r line <"$WORK/started"
}
ended() { # NAME CODE
  wait "$RUN"
  code=$?
  [ "$code" -eq "$2" ] || { fail "$1 ended with $code instead of $2"; cat "$WORK/$1.err" >&2; }
}

# Ctrl-C: the job is cancelled, what is there is fetched.
start int env --default-signal=INT pesc run -n 5 --slots 1 --grace 1s -o r-int -- ./counted
kill -INT "$RUN"
ended int 130
grep -q cancelling "$WORK/int.err" || fail "Ctrl-C said nothing"
equal "$(cat r-int/output.txt | head -3 | tr '\n' ' ')" "result 0 result 1 result 2 "
equal "$(cut -d, -f2 r-int/ranks.csv | tr '\n' ' ')" \
  "state succeeded succeeded succeeded cancelled cancelled "

# kill -9 in the middle, then --resume: committed ranks are not run again.
rm -f "$WORK"/ticks/*
start killed pesc run -n 5 --slots 1 -o r-kill -- ./counted
# Rank 3 may run before rank 2 is committed: what the run itself has told is.
await "$WORK/killed.err" '^pesc: 3/5' "$RUN" >/dev/null || fail "it does not say what has ended"
kill -KILL "$RUN"
ended killed 137
present r-kill/.pesc/state
expect 2 pesc run -n 5 --slots 1 -o r-kill -- ./counted
says "--resume"
expect 2 pesc run -n 6 --slots 1 -o r-kill --resume -- ./counted
says "incomplete run of another job"
# An hour passes; it does not count.
find r-kill/.pesc/state -exec touch -d '1 hour ago' {} +
start resumed pesc run -n 5 --slots 1 -o r-kill --resume -- ./counted
await "$WORK/resumed.err" 'resuming: .* the (1h|60m|59m)' "$RUN" >/dev/null ||
  { fail "the pause was not noticed"; cat "$WORK/resumed.err" >&2; }
echo go >"$WORK/gate"
ended resumed 0
grep -q 'resuming: 3 of 5' "$WORK/resumed.err" || { fail "not resumed"; cat "$WORK/resumed.err" >&2; }
for rank in 0 1 2 4; do equal "$(wc -l <"$WORK/ticks/$rank")" 1 "rank $rank"; done
equal "$(wc -l <"$WORK/ticks/3")" 2 "rank 3"
for i in 0 1 2 3 4; do echo "result $i"; done >expected
same r-kill/output.txt expected
absent r-kill/.pesc/state
# Complete: there is nothing to go on with.
expect 0 pesc run -n 5 --slots 1 -o r-kill --resume -- ./counted
says "complete"
equal "$(wc -l <"$WORK/ticks/0")" 1 "a complete run was run again"
expect 2 pesc run --resume -- ./counted
says "needs the output directory"

# A failed run, resumed: the failed rank alone runs again.
script flaky 'echo run >>"'"$WORK"'/ticks/flaky-$PESC_RANK"; [ "$PESC_RANK" -ne 1 ] || [ -e "'"$WORK"'/mended" ]'
expect 1 pesc run -n 3 -o r-flaky -- ./flaky
touch "$WORK/mended"
expect 0 pesc run -n 3 -o r-flaky --resume -- ./flaky
equal "$(cat "$WORK"/ticks/flaky-* | wc -l)" 4 "runs"
equal "$(cut -d, -f2 r-flaky/ranks.csv | sort -u | tr '\n' ' ')" "state succeeded "

# The terminal goes away: a run in this process goes on.
start hup pesc run -n 5 --slots 1 -o r-hup -- ./counted
kill -HUP "$RUN"
echo go >"$WORK/gate"
ended hup 0
same r-hup/output.txt expected

# SIGTERM counts as an interrupt; a second one leaves at once though the rank is stubborn.
gates termed
script stubborn 'trap "echo term >'"$WORK"'/termed" TERM; echo $$ >"'"$WORK"'/stubborn"; echo up >"'"$WORK"'/started"; while :; do :; done'
start twice pesc run --grace 60s -o r-twice -- ./stubborn
kill -TERM "$RUN"
await "$WORK/twice.err" cancelling "$RUN" >/dev/null
read -r _ <"$WORK/termed" # the first one has reached the rank…
# …but what follows it at once is taken for the same one.
until has_ended "$RUN"; do kill -TERM "$RUN"; done
ended twice 130
tail -f /dev/null --pid="$(cat "$WORK/stubborn")" # nothing outlives the run
done_with_tests
