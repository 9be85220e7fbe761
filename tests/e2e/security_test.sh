# Strangers get nothing: tokens, other users' jobs, TLS, what the programs leave readable, what a
# rank can reach.
. "$(dirname "$0")/lib.sh"
chmod 711 "$WORK" # the ranks of root's worker are another user
umask 000         # the programs are careful, whatever their user is
script who 'echo "$PESC_RANK"'

coordinator
worker one --cpus 2
expect 0 pesc join-file user ann --coordinator "$ADDRESS" -o ann.join
expect 0 pesc join-file user bob --coordinator "$ADDRESS" -o bob.join
expect 0 pesc join-file worker w --coordinator "$ADDRESS" -o worker.join
TOKENS=$(cat ./*.join "$WORK"/coordinator/*.join | grep -oE '"token": "[^"]+"' | cut -d'"' -f4)
equal "$(echo "$TOKENS" | sort -u | wc -l)" 5 "tokens"

# No file of theirs is another's to read, but the directories that root's ranks pass through and
# the read-only copies behind them.
private() {
  find "$@" ! -type l \( -perm /077 ! -perm 711 -o -perm 711 ! -type d \) \
    ! -path '*/worker-one/shared/*' ! -path '*/worker-one/cache/large' \
    ! -path '*/worker-one/cache/packs' ! -path '*/worker-one/cache/tmp' >"$WORK/open"
  [ ! -s "$WORK/open" ] || { fail "others can read:"; cat "$WORK/open" >&2; }
}
private "$WORK/coordinator" "$WORK/worker-one" "$XDG_STATE_HOME" ./*.join

# Other users' jobs do not exist.
expect 0 pesc submit --coordinator ./ann.join -n 1 --name secret-name -- ./who
JOB=$(cat "$WORK/out")
expect 0 pesc watch "$JOB" --coordinator ./ann.join
for command in status why stats watch logs fetch cancel retry rm; do
  expect 2 pesc "$command" "$JOB" --coordinator ./bob.join
  says "no job"
done
expect 0 pesc jobs --coordinator ./bob.join
grep -q -e "$JOB" -e secret-name "$WORK/out" && fail "bob sees ann's job"
expect 0 pesc status "$JOB" --coordinator ./ann.join
expect 3 pesc join-file user eve --coordinator ./bob.join
says "administrator"

# Each token for its own kind of work.
expect 3 pesc jobs --coordinator ./worker.join
expect 2 pesc-worker --join-file ./ann.join --state "$WORK/worker-ann"
says "worker"
# However it is named: it would never do, so the worker ends at once.
for name in PESC_COORDINATOR PESC_JOIN_FILE; do
  expect 2 timeout 60 env $name="$PWD/ann.join" pesc-worker --state "$WORK/worker-ann"
  says "is a join file for the role user, and this needs one for worker"
done
# A user's token in what says it is a worker's file: only the coordinator can tell.
sed 's/"role": "user"/"role": "worker"/' ann.join >masked.join
chmod 600 masked.join
cmp -s ann.join masked.join && fail "the test changed no role"
expect 2 timeout 60 pesc-worker --join-file ./masked.join --state "$WORK/worker-masked"
says "the token is not a worker's"
rm masked.join

# A token that is made for this machine goes to no other.
pesc-worker --join-file ./worker.join --coordinator 192.0.2.1:7341 --state "$WORK/worker-far" \
  >"$WORK/far.log" 2>&1 &
FAR=$!
PIDS="$FAR $PIDS"
await "$WORK/far.log" 'no certificate is known' "$FAR" >/dev/null ||
  { fail "a token went out in the clear"; cat "$WORK/far.log" >&2; }

# Off loopback: TLS with the one certificate; nobody else hears the token.
kill "$FAR"
: >"$WORK/tls.log"
pesc-coordinator --listen 0.0.0.0:0 --state "$WORK/tls" >"$WORK/tls.log" 2>&1 &
TLS=$!
PIDS="$TLS $PIDS"
TLS_PORT=$(await "$WORK/tls.log" 'listening on' "$TLS" | grep -oE '0\.0\.0\.0:[0-9]+' | cut -d: -f2)
tls() { sed "s/\"address\": \"[^\"]*\"/\"address\": \"127.0.0.1:$2\"/" "$1" >"$3" && chmod 600 "$3"; }
tls "$WORK/tls/admin.join" "$TLS_PORT" tls.join
expect 0 pesc jobs --coordinator ./tls.join
sed 's/"certificate": "[^"]*"/"certificate": ""/' tls.join >bare.join
chmod 600 bare.join
expect 3 pesc jobs --coordinator ./bare.join
says "TLS"
cat >sink.py <<'P'
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
with open(sys.argv[1], "wb") as heard:
    for _ in range(2):
        peer, _ = listener.accept()
        peer.sendall(b"PESC\0\0\0\3")
        peer.shutdown(socket.SHUT_WR)
        while data := peer.recv(4096):
            heard.write(data)
            heard.flush()
        print("heard", flush=True)
P
: >"$WORK/sink.log"
python3 sink.py "$WORK/heard" >"$WORK/sink.log" 2>&1 &
SINK=$!
PIDS="$SINK $PIDS"
SINK_PORT=$(await "$WORK/sink.log" '^[0-9]' "$SINK")
tls tls.join "$SINK_PORT" sink.join
expect 3 pesc jobs --coordinator ./sink.join
says "answers without TLS"
await "$WORK/sink.log" heard "$SINK" >/dev/null
grep -qF -- "$(grep -oE '"token": "[^"]+"' tls.join | cut -d'"' -f4)" "$WORK/heard" &&
  fail "the token was sent to somebody without the certificate"
if command -v openssl >/dev/null; then
  openssl req -x509 -newkey rsa:2048 -nodes -keyout other.key -out other.pem -days 2 \
    -subj /CN=pesc-coordinator -addext subjectAltName=DNS:pesc-coordinator 2>/dev/null
  python3 - tls.join other.join <<'P'
import json, os, sys
join = json.load(open(sys.argv[1]))
join["certificate"] = open("other.pem").read()
json.dump(join, open(sys.argv[2], "w"))
os.chmod(sys.argv[2], 0o600)
P
  expect 3 pesc jobs --coordinator ./other.join
  says "another certificate"
fi

# A rank: whose process it is, and what it reaches.
cat >rank.sh <<'P'
#!/bin/sh
W=$1 C=$2
umask
ls -l /proc/self/fd | grep -vcE ' [0123] ->|^total'
env | grep -ciE 'token|join|coordinator'
cat "$C"/tokens.json "$C"/*.join "$C"/journal.db && echo LEAK
cat "$W"/identity.json "$W"/cache/packs/* && echo LEAK
ls "$W"/attempts "$W"/shared "$W"/outbox "$W"/trash "$W"/cache && echo LEAK
rm -f "$PESC_EVENTS" && echo LEAK
mv "$PESC_OUTPUT_DIR" "$PESC_OUTPUT_DIR.x" && echo LEAK
ln -s /etc/shadow "${PESC_EVENTS%/*}/stdout" && echo LEAK
(echo x >>prices) && echo LEAK
kill -STOP "$PPID" && echo LEAK
grep -E '^(NoNewPrivs|CapEff|CapPrm|CapInh):' /proc/self/status
exit 0
P
chmod 755 rank.sh
echo 10 >prices
export PESC_COORDINATOR="$ADDRESS"
if [ "$(id -u)" -eq 0 ]; then
  expect 0 pesc run -o r-rank --shared-file prices -- ./rank.sh "$WORK/worker-one" "$WORK/coordinator"
  grep -q LEAK r-rank/output.txt && { fail "a rank reached too much"; cat r-rank/output.txt >&2; }
  equal "$(head -3 r-rank/output.txt | tr '\n' ' ')" "0022 0 0 " "umask, descriptors, environment"
  equal "$(grep -c '0000000000000000' r-rank/output.txt)" 3 "capabilities"
  grep -q 'NoNewPrivs:.1' r-rank/output.txt || fail "set-id programs would work"
  expect 0 pesc workers
  prints "not kept from each other"
else
  expect 0 pesc workers
  prints "ranks run as the worker's own user"
fi

# What a rank plants for who packs, deletes, fetches and reads about it.
cat >evil.py <<'P'
import os, sys
out = os.environ["PESC_OUTPUT_DIR"]
os.symlink("/etc/passwd", out + "/link")
os.symlink("/etc", out + "/etc")
os.symlink("/etc/passwd", out + "/output.txt")
os.mkfifo(out + "/fifo")
open(out + "/set-id", "w").write("x")
os.chmod(out + "/set-id", 0o6755)
open(out + "/two\nlines\x1b[31m", "w").write("x")
os.mkdir(out + "/locked")
open(out + "/locked/f", "w").write("x")
os.chmod(out + "/locked/f", 0)
os.chmod(out + "/locked", 0)
os.truncate(os.open(out + "/sparse", os.O_CREAT | os.O_WRONLY), 1 << 28)
os.chdir(os.environ["TMPDIR"])
for _ in range(3000):
    os.mkdir("d")
    os.chdir("d")
sys.stdout.write("mine\n")
os.write(2, b"\x1b]0;title\x07 \x1b[31m\xc2\x9b31m last words\n")
sys.exit(3)
P
expect 1 pesc run -o r-evil -- python3 evil.py
equal "$(cat r-evil/output.txt)" mine "the link named output.txt"
for planted in link etc fifo; do
  [ ! -e "r-evil/rank-0/$planted" ] && [ ! -L "r-evil/rank-0/$planted" ] || fail "$planted came back"
done
present r-evil/rank-0/locked/f
[ -z "$(find r-evil -perm /6000)" ] || fail "a set-id file came back"
equal "$(stat -c %s r-evil/rank-0/sparse)" 268435456
expect 1 pesc watch last
cat "$WORK/err" >"$WORK/shown"
expect 0 pesc why last
cat "$WORK/out" >>"$WORK/shown"
LC_ALL=C grep -q -e "$(printf '\033')" -e "$(printf '\302\233')" "$WORK/shown" &&
  { fail "a terminal would obey a rank"; cat -v "$WORK/shown" >&2; }
grep -q 'last words' "$WORK/shown" || fail "the last words are missing"

# Strangers in great number, and one that says too much.
cat >crowd.py <<'P'
import socket, struct, sys
host, port = sys.argv[1].split(":")
crowd = []
for i in range(700):
    crowd.append(socket.create_connection((host, int(port))))
    if i % 2:
        crowd[-1].sendall(b"PESC\0\0\0\3")
loud = socket.create_connection((host, int(port)))
loud.sendall(b"PESC\0\0\0\3" + struct.pack("<II", 0, 1 << 22))
while loud.recv(100):
    pass
print("crowded", flush=True)
sys.stdin.read()
P
mkfifo "$WORK/gate"
: >"$WORK/crowd.log"
python3 crowd.py "$ADDRESS" >"$WORK/crowd.log" 2>&1 <"$WORK/gate" &
CROWD=$!
PIDS="$CROWD $PIDS"
exec 5>"$WORK/gate"
await "$WORK/crowd.log" crowded "$CROWD" >/dev/null || { fail "crowd"; cat "$WORK/crowd.log" >&2; }
expect 0 pesc jobs
exec 5>&-

# No secret in a command line or a log.
ps -eo args >"$WORK/args"
for token in $TOKENS; do
  grep -qF -- "$token" "$WORK/args" "$WORK"/*.log && fail "a token is in a command line or a log"
done
private "$WORK/coordinator" "$WORK/tls" "$XDG_STATE_HOME"
done_with_tests
