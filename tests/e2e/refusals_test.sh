# A coordinator that does not answer, is something else, or refuses: exit code 3, no embedded run.
. "$(dirname "$0")/lib.sh"
script who 'echo "$PESC_RANK"'

refused() { # MESSAGE COMMAND...
  message=$1
  shift
  expect 3 "$@"
  says "$message"
  [ -z "$(find . -name .pesc)" ] || fail "something was stored, or it ran: $*"
}

# Nothing listens there (the port was free a moment ago).
coordinator
kill "$COORDINATOR_PID"
wait "$COORDINATOR_PID" 2>/dev/null
expect 3 pesc run --coordinator "$ADDRESS" -o r1 -- ./who
expect 3 env PESC_COORDINATOR="$ADDRESS" pesc run -o r2 -- ./who
expect 3 env PESC_COORDINATOR="$ADDRESS" pesc jobs
absent r1
absent r2
mkdir -p "$XDG_CONFIG_HOME/pesc"
echo "coordinator = \"$ADDRESS\"" >"$XDG_CONFIG_HOME/pesc/config.toml"
expect 3 pesc run -o r3 -- ./who
absent r3
echo 'coordinatr = "x"' >"$XDG_CONFIG_HOME/pesc/config.toml"
expect 2 pesc run -o r4 -- ./who
says 'unknown key "coordinatr"'
rm "$XDG_CONFIG_HOME/pesc/config.toml"

# Addresses that are none, files that are none.
expect 2 pesc run --coordinator 'a b:::' -o r5 -- ./who
says "is no address"
expect 2 pesc jobs --coordinator 127.0.0.1:99999
says "is no port"
refused "No such file" pesc run --coordinator ./missing.join -o r6 -- ./who
echo "not a join file" >bad.join
chmod 600 bad.join
expect 2 pesc jobs --coordinator ./bad.join
says "bad.join"

# Something else answers: a web server, a server that speaks first, one that says nothing more.
cat >servers.py <<'P'
import socket, sys, threading
kind = sys.argv[1]
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    peer, _ = listener.accept()
    def serve(peer=peer):
        try:
            if kind == "banner":
                peer.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
            peer.recv(4096)
            if kind == "http":
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            if kind != "banner":
                peer.close()
        except OSError:
            pass
    threading.Thread(target=serve, daemon=True).start()
P
coordinator # for a token that is well-formed
cp "$XDG_STATE_HOME/pesc/coordinators/${ADDRESS##*:}.admin.join" own.join
chmod 600 own.join
for kind in http banner closes; do
  : >"$WORK/$kind.port"
  python3 servers.py $kind >"$WORK/$kind.port" 2>/dev/null &
  pid=$!
  PIDS="$pid $PIDS"
  port=$(await "$WORK/$kind.port" '[0-9]' "$pid")
  sed "s/127\.0\.0\.1:[0-9]*/127.0.0.1:$port/" own.join >$kind.join
  chmod 600 $kind.join
  expect 3 pesc run --coordinator ./$kind.join -o r-$kind -- ./who
  [ "$(grep -c . "$WORK/err")" -eq 1 ] || fail "$kind: one line is enough"
  absent r-$kind
done

# A token of another coordinator, and one that others can read.
sed 's/\("token"[^"]*"[^"]*\)[0-9a-zA-Z_-]\{8\}"/\1AAAAAAAA"/; s/^\(token *= *"[^"]*\)[0-9a-zA-Z_-]\{8\}"/\1AAAAAAAA"/' \
  own.join >wrong.join
chmod 600 wrong.join
cmp -s own.join wrong.join && fail "the test spoiled no token"
refused "token" pesc run --coordinator ./wrong.join -o r7 -- ./who
cp own.join readable.join
chmod 644 readable.join
refused "readable.join" pesc jobs --coordinator ./readable.join
# A worker's token is no user's.
expect 0 pesc join-file worker w1 -o worker.join
refused "worker" pesc jobs --coordinator ./worker.join
expect 0 pesc jobs --coordinator ./own.join
done_with_tests
