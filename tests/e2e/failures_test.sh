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

# Stopped early: all fail within a second; enough have failed; the job's own time limit.
script fails_at_once 'exit 1'
expect 1 pesc run -n 500 -o early ./fails_at_once
says "--max-failures N allows more"
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
