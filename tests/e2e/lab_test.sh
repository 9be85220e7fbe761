# A coordinator and two workers: every command, with the coordinator named and found.
. "$(dirname "$0")/lib.sh"
coordinator
worker one --cpus 2
worker two --cpus 2 --room blue
gates gate started
script rank 'echo "rank $PESC_RANK"; echo "err $PESC_RANK" >&2; echo x >"$PESC_OUTPUT_DIR/f"'
script gated 'echo "before $PESC_RANK"; echo up >"'"$WORK"'/started"; read line <"'"$WORK"'/gate"; echo after'
script bad 'echo "no luck" >&2; exit 3'

# run embeds unless a coordinator is named; the other commands find this user's.
export PESC_COORDINATOR="$ADDRESS"
expect 0 pesc run -n 20 -o r -- ./rank
for i in $(seq 0 19); do echo "rank $i"; done >expected
same r/output.txt expected
expect 0 pesc workers --json
prints '"name":"one"'
prints '"room":"blue"'
expect 0 pesc workers
equal "$(grep -c 'note (2 workers): .*ranks run as' "$WORK/out")" 1 "what both warn of, once"
expect 2 pesc run --resume -o r-resume -- ./rank
says "--resume"
unset PESC_COORDINATOR

# Found by the pointer that the coordinator leaves for its user.
expect 0 pesc jobs --json
equal "$(json "$WORK/out" state)" succeeded
expect 0 pesc submit --coordinator "$ADDRESS" -n 4 --name first -- ./rank
JOB=$(cat "$WORK/out")
equal "$(echo "$JOB" | grep -cE '^[0-9a-z]{13}$')" 1 "the id alone"
expect 0 pesc watch "$JOB"
expect 0 pesc status "$JOB" --json
equal "$(json "$WORK/out" succeeded)" 4
equal "$(json "$WORK/out" name)" first
expect 0 pesc status first
prints "succeeded"
expect 0 pesc logs "$JOB"
printf 'rank 0\nrank 1\nrank 2\nrank 3\n' >expected
same "$WORK/out" expected
expect 0 pesc logs "$JOB" 2 --stderr
prints "err 2"
expect 2 pesc logs "$JOB" 4
says "no rank 4"
expect 2 pesc logs "$JOB" -1
expect 0 pesc stats "$JOB" --json
prints "\"ranks\":4,"
expect 0 pesc why "$JOB"
prints "no rank of job $JOB waits or has failed"

# Fetched twice; over something else only when told to.
expect 0 pesc fetch "$JOB" -o f
equal "$(cat f/rank-3/f)" x
expect 0 pesc fetch "$JOB" -o f --json
equal "$(json "$WORK/out" fetched)" 0
mkdir other
echo mine >other/output.txt
expect 2 pesc fetch "$JOB" -o other
equal "$(cat other/output.txt)" mine
expect 0 pesc fetch "$JOB" -o other --overwrite
same other/output.txt expected

# While it runs: live output, a partial fetch, then the rest.
expect 0 pesc submit --coordinator "$ADDRESS" -n 1 -- ./gated
GATED=$(cat "$WORK/out")
read -r line <"$WORK/started"
pesc logs "$GATED" 0 -f >"$WORK/follow" 2>"$WORK/follow.err" &
FOLLOW=$!
PIDS="$FOLLOW $PIDS"
equal "$(await "$WORK/follow" before "$FOLLOW")" "before 0"
expect 0 pesc fetch "$GATED" -o g
says "not over yet"
absent g/rank-0
expect 2 pesc rm "$GATED"
expect 0 pesc status "$GATED" --json
equal "$(json "$WORK/out" state)" running
echo go >"$WORK/gate"
wait "$FOLLOW"
equal $? 0 "logs -f"
equal "$(tr '\n' ' ' <"$WORK/follow")" "before 0 after "
expect 0 pesc watch "$GATED"
expect 0 pesc fetch "$GATED" -o g
equal "$(tail -1 g/output.txt)" after

# A whole job's output, live: each line behind its rank, until the job is over; the states of a
# progress bar are lines too.
gates gate0 gate1
script both 'printf "before $PESC_RANK\n10%%\r20%%\r"; read line <"'"$WORK"'/gate$PESC_RANK"
printf "\nafter $PESC_RANK\n"'
expect 0 pesc submit --coordinator "$ADDRESS" -n 2 -- ./both
BOTH=$(cat "$WORK/out")
pesc logs "$BOTH" -f >"$WORK/both" 2>"$WORK/both.err" &
FOLLOW=$!
PIDS="$FOLLOW $PIDS"
for i in 0 1; do equal "$(await "$WORK/both" "before $i" "$FOLLOW")" "[$i] before $i"; done
echo go >"$WORK/gate1"
equal "$(await "$WORK/both" after "$FOLLOW")" "[1] after 1" "while rank 0 runs"
equal "$(tr '\r' '\n' <"$WORK/both" | grep -c '^\[[01]\] 20%$')" 2 "what ends in a return"
echo go >"$WORK/gate0"
wait "$FOLLOW"
equal $? 0 "logs -f of all"
equal "$(tail -1 "$WORK/both")" "[0] after 0"
equal "$(tr '\r' '\n' <"$WORK/both" | grep -E '^\[[01]\] .|^[^[]' | sort | tr '\n' ' ')" \
  "[0] 10% [0] 20% [0] after 0 [0] before 0 [1] 10% [1] 20% [1] after 1 [1] before 1 "
expect 0 pesc logs "$BOTH"
for i in 0 1; do printf "before $i\n10%%\r20%%\r\nafter $i\n"; done >expected
same "$WORK/out" expected
expect 0 pesc logs "$JOB" -f --stderr
equal "$(sort "$WORK/out" | tr '\n' ' ')" "[0] err 0 [1] err 1 [2] err 2 [3] err 3 "
expect 0 pesc logs "$GATED" -f
equal "$(tr '\n' ' ' <"$WORK/out")" "before 0 after " "the only rank needs no number"

# Failing, why, retry, cancel, rm.
expect 1 pesc run --coordinator "$ADDRESS" -n 2 -o b -- ./bad
says "exit code 3: no luck"
expect 0 pesc why last
prints "exit code 3"
expect 0 pesc retry last
says "2 ranks run again"
expect 1 pesc watch last
expect 0 pesc submit --coordinator "$ADDRESS" --room nowhere -- ./rank
WAITING=$(cat "$WORK/out")
expect 0 pesc why "$WAITING"
prints "nowhere"
expect 0 pesc cancel "$WAITING"
says "cancelled $WAITING: 1 rank stopped, 0 had finished"
expect 1 pesc watch "$WAITING"
expect 0 pesc cancel "$WAITING"
says "job $WAITING is over already (cancelled): nothing was left to stop"
expect 0 pesc cancel "$WAITING" --json
quiet
equal "$(cat "$WORK/out")" "{\"id\":\"$WAITING\",\"stopped\":0,\"finished\":0,\"was_over\":true}"
expect 0 pesc rm "$WAITING"
says "removed $WAITING (rank): 1 rank and what it left"
expect 2 pesc status "$WAITING"
says "$WAITING"
expect 0 pesc submit --coordinator "$ADDRESS" --room nowhere -n 3 -- ./rank
CANCELLED=$(cat "$WORK/out")
expect 0 pesc cancel "$CANCELLED" --json
equal "$(cat "$WORK/out")" "{\"id\":\"$CANCELLED\",\"stopped\":3,\"finished\":0,\"was_over\":false}"
expect 0 pesc retry "$CANCELLED" --json
equal "$(cat "$WORK/out")" "{\"id\":\"$CANCELLED\",\"ranks\":3}"
expect 2 pesc rm "$CANCELLED"
expect 0 pesc cancel "$CANCELLED"
expect 0 pesc rm "$CANCELLED" --json
equal "$(cat "$WORK/out")" "{\"id\":\"$CANCELLED\",\"ranks\":3}"
for command in status watch logs fetch cancel retry rm why stats; do
  expect 2 pesc $command 0000000000000
  expect 2 pesc $command nonsense
  says "no job 'nonsense'"
done

# A lost terminal detaches from a job of a named coordinator: it goes on.
pesc run --coordinator "$ADDRESS" -n 1 -o d -- ./gated >/dev/null 2>"$WORK/detached" </dev/null &
RUN=$!
PIDS="$RUN $PIDS"
read -r line <"$WORK/started"
kill -HUP "$RUN"
wait "$RUN"
equal $? 0 "detached"
expect 0 pesc status last --json
equal "$(json "$WORK/out" state)" running
echo go >"$WORK/gate"
expect 0 pesc watch last
expect 0 pesc fetch last -o d
equal "$(tail -1 d/output.txt)" after
# Lost already while it was being submitted: here, before it began.
expect 0 env --block-signal=HUP sh -c 'kill -HUP $$; exec pesc run --coordinator "$0" -o d2 -- ./gated' \
  "$ADDRESS"
read -r line <"$WORK/started"
expect 0 pesc status last --json
equal "$(json "$WORK/out" state)" running
echo go >"$WORK/gate"
expect 0 pesc watch last
# Under nohup it goes on, and fetches.
env --ignore-signal=HUP pesc run --coordinator "$ADDRESS" -n 1 -o d3 -- ./gated >/dev/null \
  2>"$WORK/nohup" </dev/null &
RUN=$!
PIDS="$RUN $PIDS"
read -r line <"$WORK/started"
kill -HUP "$RUN"
echo go >"$WORK/gate"
wait "$RUN"
equal $? 0 "nohup"
equal "$(tail -1 d3/output.txt)" after

# Join files: 0600, never over a file that is there.
expect 0 pesc join-file user ana -o ana.join
equal "$(stat -c %a ana.join)" 600
expect 2 pesc join-file user ana -o ana.join
expect 0 env PESC_COORDINATOR="$PWD/ana.join" pesc run -o a -- ./rank
expect 0 pesc jobs --coordinator ./ana.join --json
equal "$(json "$WORK/out" owner)" ana
expect 3 pesc join-file user eve --coordinator ./ana.join
expect 2 pesc join-file king eve
expect 0 pesc doctor --coordinator "$ADDRESS"
prints "answers, 2 workers attached"
done_with_tests
