# A large input travels once to ranks that fit on one worker, whatever program shares it; nobody waits for
# that worker when another has room.
. "$(dirname "$0")/lib.sh"
coordinator
for name in one two three; do worker "$name" --cpus 4; done
head -c 18000000 /dev/urandom >large
SHA=$(sha256sum large | cut -d' ' -f1)

# Which workers have it.
holders() { for name in one two three; do
  [ -z "$(find "$WORK/worker-$name" -name "*${SHA#??}*" -type f)" ] || printf '%s ' "$name"
done; }

gates up go
exec 3<>"$WORK/up" 4<>"$WORK/go"
script rank 'wc -c <large; echo up >"'"$WORK"'/up"; read line <"'"$WORK"'/go"'
script other 'wc -c <large'
# held RANKS: the ranks of this job all run, and go on when they are told.
held() {
  expect 0 pesc submit --coordinator "$ADDRESS" -n "$1" --no-second-attempts --shared-file large -- ./rank
  JOB=$(cat "$WORK/out")
  for i in $(seq "$1"); do read -r line <&3; done
}
go() {
  for i in $(seq "$1"); do echo go >&4; done
  expect 0 pesc watch "$JOB" --coordinator "$ADDRESS"
}

held 4
FIRST=$(holders)
equal "$(echo "$FIRST" | wc -w)" 1 "the coordinator sent it once, to: $FIRST"
go 4
expect 0 pesc run --coordinator "$ADDRESS" -n 2 --shared-file large -- ./other
equal "$(holders)" "$FIRST" "another program goes where it is"
held 9
equal "$(holders)" "one two three " "nine run at once, where four fit on each"
go 9
done_with_tests
