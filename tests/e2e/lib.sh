# What the end-to-end tests share. Each sources it, has a directory and a home of its own, and ends
# what it started. No test sleeps: it waits for a line, a process or `pesc watch`.
set -u
: "${PESC_BIN:?the directory of the built programs}"
PATH=$PESC_BIN:$PATH
WORK=$(mktemp -d "${TMPDIR:-/tmp}/pesc-e2e-XXXXXX")
export HOME=$WORK/home XDG_STATE_HOME=$WORK/state XDG_CONFIG_HOME=$WORK/config
unset PESC_COORDINATOR PESC_JOIN_FILE
mkdir -p "$HOME" "$WORK/here"
chmod 711 "$WORK" # root's worker runs its ranks as another user
cd "$WORK/here" || exit 1
PIDS=
FAILED=0

finish() {
  for pid in $PIDS; do kill "$pid" 2>/dev/null; done
  for pid in $PIDS; do wait "$pid" 2>/dev/null; done
  cd /
  chmod -R u+w "$WORK" 2>/dev/null
  rm -rf "$WORK"
}
trap finish EXIT
trap 'exit 1' INT TERM HUP

fail() {
  echo "FAILED: $*" >&2
  FAILED=1
}

# expect CODE COMMAND...: runs it; its output is in $WORK/out and $WORK/err.
expect() {
  want=$1
  shift
  "$@" >"$WORK/out" 2>"$WORK/err" </dev/null
  got=$?
  if [ "$got" -ne "$want" ]; then
    fail "exit code $got instead of $want: $*"
    sed 's/^/  out: /' "$WORK/out" | tail -5 >&2
    sed 's/^/  err: /' "$WORK/err" | tail -15 >&2
  fi
}

# says TEXT: the last command wrote it to standard error. prints TEXT: to standard output.
says() { grep -qF -- "$1" "$WORK/err" || { fail "not said: $1"; sed 's/^/  err: /' "$WORK/err" >&2; }; }
prints() { grep -qF -- "$1" "$WORK/out" || { fail "not printed: $1"; sed 's/^/  out: /' "$WORK/out" >&2; }; }
quiet() { [ ! -s "$WORK/err" ] || { fail "should have said nothing"; sed 's/^/  err: /' "$WORK/err" >&2; }; }
equal() { [ "$1" = "$2" ] || fail "'$1' instead of '$2'${3:+ ($3)}"; }
same() { cmp -s "$1" "$2" || fail "$1 and $2 differ"; }
absent() { [ ! -e "$1" ] || fail "$1 should not be there"; }
present() { [ -e "$1" ] || fail "$1 should be there"; }

# gates NAME...: FIFOs between a test and its ranks.
gates() { for gate; do mkfifo -m 666 "$WORK/$gate"; done; }

# script NAME LINES: an executable shell script in the current directory.
script() {
  printf '#!/bin/sh\n%s\n' "$2" >"$1"
  chmod +x "$1"
}

# json FILE KEY...: a value in it; needs no more than sed, the keys are unique in what is read.
json() { sed -n 's/.*"'"$2"'":"\{0,1\}\([^",}]*\)"\{0,1\}[,}].*/\1/p' "$1" | head -1; }

# Also of a child that ended and that this shell has not waited for, which kill and tail take for
# alive: a test waited in silence for what had failed.
has_ended() {
  case $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) in '' | Z*) return 0 ;; esac
  return 1
}

# await FILE PATTERN PID [N]: the first (Nth) line of FILE that matches, as it is written; 1 when PID
# has ended without it.
await() {
  (until has_ended "$3"; do sleep 0.5; done) >/dev/null 2>&1 & # what tail does with --pid
  set -- "$1" "$2" $! "${4:-1}"
  tail -n +1 -F --pid="$3" "$1" 2>/dev/null | grep -m"$4" -E -- "$2" | sed -n "$4p" | grep .
  set -- $? "$3"
  kill "$2" 2>/dev/null
  return "$1"
}

# coordinator [--listen ADDRESS]: starts one, on a free port; $ADDRESS and $COORDINATOR_PID are set.
coordinator() {
  : >"$WORK/coordinator.log"
  [ $# -gt 0 ] || set -- --listen 127.0.0.1:0
  pesc-coordinator --state "$WORK/coordinator" "$@" \
    >"$WORK/coordinator.log" 2>&1 &
  COORDINATOR_PID=$!
  PIDS="$COORDINATOR_PID $PIDS"
  ADDRESS=$(await "$WORK/coordinator.log" '127\.0\.0\.1:[1-9][0-9]*' "$COORDINATOR_PID" |
    grep -oE '127\.0\.0\.1:[1-9][0-9]*' | head -1)
  [ -n "$ADDRESS" ] || { cat "$WORK/coordinator.log" >&2; fail "the coordinator did not start"; exit 1; }
}

# worker NAME [FLAGS]: starts one of the coordinator.
worker() {
  name=$1
  shift
  pesc-worker --coordinator "$ADDRESS" --state "$WORK/worker-$name" --name "$name" "$@" \
    >"$WORK/worker-$name.log" 2>&1 &
  WORKER_PID=$!
  PIDS="$WORKER_PID $PIDS"
  await "$WORK/worker-$name.log" 'event=attached' "$WORKER_PID" >/dev/null ||
    { cat "$WORK/worker-$name.log" >&2; fail "worker $name did not attach"; exit 1; }
}

done_with_tests() {
  [ "$FAILED" -eq 0 ] || exit 1
  exit 0
}
