# A rank moves to another worker with its checkpoint, and goes on with a worker daemon that was killed.
. "$(dirname "$0")/lib.sh"
gates begun go

coordinator
export PESC_COORDINATOR="$ADDRESS"
worker one --cpus 1
ONE=$WORKER_PID

# It saves 41, says so, and waits to be told to go on; a successor begins with what was saved.
script sim 'state=$PESC_CHECKPOINT_DIR/state
if [ -f "$state" ]; then echo "from $(cat "$state")"; exit 0; fi
echo 41 >"$state.tmp" && mv "$state.tmp" "$state"
echo half >"$PESC_CHECKPOINT_DIR/next.tmp"
echo checkpoint >>"$PESC_EVENTS"
trap "exit 1" TERM
echo begun >"'"$WORK"'/begun"
sleep 600 & wait'
pesc run -n 1 -o moved ./sim >"$WORK/run.out" 2>"$WORK/run.err" &
RUN=$!
PIDS="$RUN $PIDS"
read -r word <"$WORK/begun"
equal "$word" begun
worker two --cpus 1
kill -TERM "$ONE"
wait "$RUN"
equal $? 0 "the rank went on elsewhere"
equal "$(cat moved/rank-0/output.txt)" "from 41"
grep -q '^0,succeeded,2,two,' moved/ranks.csv || fail "not moved: $(cat moved/ranks.csv)"

# A worker daemon that is killed leaves its rank to the keeper; the next daemon finds it.
script waits 'echo begun >"'"$WORK"'/begun"; read -r word <"'"$WORK"'/go"; echo "$word"'
pesc run -n 1 -o adopted ./waits >"$WORK/run.out" 2>"$WORK/run.err" &
RUN=$!
PIDS="$RUN $PIDS"
read -r word <"$WORK/begun"
kill -KILL "$WORKER_PID"
wait "$WORKER_PID" 2>/dev/null
worker two --cpus 1
echo went >"$WORK/go"
wait "$RUN"
equal $? 0 "the rank outlived its worker"
equal "$(cat adopted/rank-0/output.txt)" went
grep -q '^0,succeeded,1,two,' adopted/ranks.csv || fail "begun again: $(cat adopted/ranks.csv)"

# What a cancelled rank had written can be fetched.
script slow 'echo so far; echo part >"$PESC_OUTPUT_DIR/part"; echo begun >"'"$WORK"'/begun"
sleep 600 & wait'
id=$(pesc submit -n 1 ./slow 2>/dev/null | tail -1)
read -r word <"$WORK/begun"
expect 0 pesc cancel "$id"
tries=0 # the job is over at once, its rank's output follows
until [ -e partial/rank-0/part ] || [ "$tries" -eq 100 ]; do
  pesc fetch --overwrite -o partial "$id" >"$WORK/out" 2>"$WORK/err"
  tries=$((tries + 1))
done
equal "$(cat partial/rank-0/part)" part
equal "$(cat partial/rank-0/output.txt)" "so far"

exit $FAILED
