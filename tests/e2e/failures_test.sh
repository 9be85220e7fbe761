# Each class of failure, made on purpose, and what `pesc why`, status, stats and ranks.csv say of it.
. "$(dirname "$0")/lib.sh"
gates begun

coordinator --listen 127.0.0.1:0 --lease 2s
export PESC_COORDINATOR="$ADDRESS"
worker one --cpus 2
ONE=$WORKER_PID

# fails REASON TEXT [FLAGS…] PROGRAM: one rank of it fails for good; `why` says TEXT.
fails() {
  reason=$1 text=$2
  shift 2
  expect 1 pesc run -n 1 -o "r-$reason" --max-failures none "$@"
  equal "$(awk -F, 'NR == 2 {print $9}' "r-$reason/ranks.csv")" "$reason" "ranks.csv"
  expect 0 pesc why last
  prints "$text"
  expect 0 pesc status last
  prints "$reason"
}

script exits 'echo "no such model: xyz" >&2; exit 3'
fails exit_code "exit code 3: no such model: xyz" ./exits
script dies 'kill -SEGV $$'
fails signal "signal 11" ./dies
script runs_on 'sleep 600'
fails time_limit "time limit" --time-limit 100ms ./runs_on
script floods 'while :; do echo 0123456789012345678901234567890123456789; done'
fails output_limit "output" --output-limit 100K ./floods
fails cannot_start "no-such-program" --inject env no-such-program

# A blob that has been damaged on the coordinator's disk is fetched again, then reported by its name.
head -c 300000 /dev/urandom >model.bin
expect 0 pesc drain one
expect 0 pesc submit -n 1 --inject none --file model.bin -- true
damaged=$(cat "$WORK/out")
for blob in "$WORK"/coordinator/blobs/large/*/*; do
  chmod u+w "$blob" # one byte of it
  printf '\377\000' | dd of="$blob" bs=1 seek=150000 conv=notrunc 2>/dev/null
done
expect 0 pesc drain --undo one
expect 1 pesc watch "$damaged"
expect 0 pesc why "$damaged"
prints "model.bin"
expect 0 pesc status "$damaged"
prints "inputs_unavailable"

# The program's own failures use up the retries, and no more.
script counts 'echo x >>'"$WORK"'/count; exit 1'
: >"$WORK/count"
chmod 666 "$WORK/count"
expect 1 pesc run -n 1 -o counted --retries 2 --max-failures none ./counts
equal "$(wc -l <"$WORK/count" | tr -d ' ')" 3 "attempts"
expect 0 pesc stats last
prints "attempts that did not count: 3 exit_code"

# What is tried again is said while it runs, and not when there is none.
script once '[ "$PESC_ATTEMPT" = 2 ]'
expect 0 pesc run -n 1 -o r-once --inject env --retries 1 ./once
says "1 attempt has failed and is tried again (1 exit_code)"
expect 0 pesc run -n 1 -o r-never --inject env --retries 1 -- true
grep -q 'tried again' "$WORK/err" && fail "nothing was tried again"

# Live output of a rank that is started again: all of it, that of an attempt that is over at once too.
gates gate
follows() { # NAME STREAM-FLAG
  pesc logs -f last 0 $2 >"$WORK/$1.out" 2>"$WORK/$1.err" &
  FOLLOW=$!
  PIDS="$FOLLOW $PIDS"
}
script again 'n=$PESC_ATTEMPT
[ $n = 1 ] && echo "the first, a long line" || echo "no. $n"
echo "error $n" >&2
[ $n = 3 ] && exit 0
echo begun >'"$WORK"'/begun
read line <'"$WORK"'/gate
exit 1'
expect 0 pesc submit -n 1 --retries 2 --max-failures none ./again
read -r word <"$WORK/begun"
follows out ""
OUT=$FOLLOW
follows err --stderr
ERR=$FOLLOW
await "$WORK/out.out" 'the first' "$OUT" >/dev/null
await "$WORK/err.out" 'error 1' "$ERR" >/dev/null
echo go >"$WORK/gate"
read -r word <"$WORK/begun"
equal "$(await "$WORK/out.out" 'no. 2' "$OUT")" "no. 2"
await "$WORK/err.out" 'error 2' "$ERR" >/dev/null
echo go >"$WORK/gate"
wait "$OUT"
equal $? 0 "logs -f"
wait "$ERR"
equal $? 0 "logs --stderr -f"
equal "$(tr '\n' '|' <"$WORK/out.out")" "the first, a long line|no. 2|no. 3|"
equal "$(tr '\n' '|' <"$WORK/err.out")" "error 1|error 2|error 3|"
for name in out err; do
  equal "$(tr '\n' '|' <"$WORK/$name.err")" \
    "pesc: rank 0 starts again (attempt 2)|pesc: rank 0 starts again (attempt 3)|" "said by $name"
done

# A name that several jobs have: the newest is read, none is changed.
expect 0 pesc submit --name twice -- true
expect 0 pesc watch last
expect 0 pesc submit --name twice -- true
NEWEST=$(cat "$WORK/out")
expect 0 pesc watch twice
says "2 jobs are named 'twice': this is the newest, $NEWEST"
expect 0 pesc status twice
prints "$NEWEST"
expect 2 pesc rm twice
says "$NEWEST"
expect 0 pesc stats "$NEWEST"

# Stopped early: all fail within a second; enough have failed; the job's own time limit.
script fails_at_once 'exit 1'
expect 1 pesc run -n 500 -o early ./fails_at_once
says "--max-failures N allows more"
says "exit code 1"
says "\`pesc why "
expect 1 pesc run -n 500 -o early-again --retries 5 ./fails_at_once
says "exit code 1"
expect 0 pesc why last
prints "(cancelled): exit code 1"
expect 1 env -u PESC_COORDINATOR pesc run -n 500 -o early-here ./fails_at_once
says "once that is mended, the same command with --resume -o early-here runs them again"
grep -q 'pesc why\|pesc retry' "$WORK/err" && fail "advice that cannot work without a coordinator"
grep -c ',failed,' early/ranks.csv | grep -qE '^[0-9]{1,2}$' || fail "not stopped early: $(grep -c ,failed, early/ranks.csv)"
script seventh 'sleep 0.05; [ $((PESC_RANK % 2)) = 0 ] || { sleep 1; exit 1; }'
expect 1 pesc run -n 100 -o enough --inject env --max-failures 2 ./seventh
says "failed"
grep -q ',cancelled,' enough/ranks.csv || fail "--max-failures 2 stopped nothing"
expect 1 pesc run -n 4 -o limited --job-time-limit 300ms ./runs_on
says "300ms"

# A vacated rank and one of a lost worker go on elsewhere, and use up no retry.
script where '[ "$PESC_ATTEMPT" = 1 ] || exit 0
echo begun >'"$WORK"'/begun
trap "exit 1" TERM
sleep 600 & wait'
pesc run -n 1 -o vacated ./where >"$WORK/run.out" 2>"$WORK/run.err" &
RUN=$!
PIDS="$RUN $PIDS"
read -r word <"$WORK/begun"
worker two --cpus 2
TWO=$WORKER_PID
expect 0 pesc drain one
says "one is draining"
wait "$RUN"
equal $? 0 "a drained worker's rank went on elsewhere"
grep -q '^0,succeeded,2,two,' vacated/ranks.csv || fail "not moved: $(cat vacated/ranks.csv)"
expect 0 pesc status last
prints "1 vacated"
expect 0 pesc workers
prints "draining"
expect 0 pesc drain --undo one
expect 2 pesc drain nobody
says "nobody"
expect 0 pesc workers --json
grep -q '"state":"draining"' "$WORK/out" && fail "drained for ever"

expect 0 pesc drain two
pesc run -n 1 -o lost ./where >"$WORK/run.out" 2>"$WORK/run.err" &
RUN=$!
PIDS="$RUN $PIDS"
read -r word <"$WORK/begun"
expect 0 pesc drain --undo two
kill -STOP "$ONE"
wait "$RUN"
equal $? 0 "a silent worker's rank went on elsewhere"
kill -CONT "$ONE"
grep -q '^0,succeeded,2,two,' lost/ranks.csv || fail "not moved: $(cat lost/ranks.csv)"
expect 0 pesc status last
prints "1 worker_lost"

done_with_tests
