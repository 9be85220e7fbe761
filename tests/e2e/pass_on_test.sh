# Three workers, of which two get a large shared file from another worker instead of the coordinator.
. "$(dirname "$0")/lib.sh"
coordinator
for name in one two three; do worker "$name" --cpus 1 --pass-on; done
worker four --cpus 1
gates started gate
exec 3<>"$WORK/started" 4<>"$WORK/gate"
head -c 12000000 /dev/urandom >big
script rank 'sha256sum <big; echo up >"'"$WORK"'/started"; read line <"'"$WORK"'/gate"'

# Each rank holds its worker's only cpu until all four run.
expect 0 pesc submit --coordinator "$ADDRESS" -n 4 --no-second-attempts --shared-file big -- ./rank
JOB=$(cat "$WORK/out")
for i in 1 2 3 4; do read -r line <&3; done
for i in 1 2 3 4; do echo go >&4; done
expect 0 pesc watch "$JOB" --coordinator "$ADDRESS"
expect 0 pesc logs "$JOB" --coordinator "$ADDRESS"
for i in 1 2 3 4; do sha256sum <big; done >expected
same "$WORK/out" expected
equal "$(cat "$WORK"/worker-*.log | grep -c 'event=passing_on')" 2 "two of three got it from another"
equal "$(grep -c 'event=passing_on' "$WORK/worker-four.log")" 0 "that one was not asked to"
equal "$(cat "$WORK"/worker-*.log | grep -c 'event=worker_left\|event=wrong_bytes')" 0
done_with_tests
