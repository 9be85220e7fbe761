# shellcheck shell=bash
# What the scripts of this folder share. Sourced, not run.
#
#   PESC_BIN        where pesc, pesc-coordinator and pesc-worker are (default: build/release/bin)
#   PESC_BENCH_DIR  where the temporary directory is made (default: /var/tmp); it needs room

set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=${PESC_BIN:-$repo/build/release/bin}
bin=$(cd "$bin" 2>/dev/null && pwd) || {
  echo "no programs in ${PESC_BIN:-$repo/build/release/bin}: run ./scripts/build release, or name the folder of pesc, pesc-coordinator and pesc-worker by PESC_BIN" >&2
  exit 2
}

work=$(mktemp -d "${PESC_BENCH_DIR:-/var/tmp}/pesc-bench.XXXXXX")
chmod 711 "$work"  # a worker of root runs ranks as another user, who must get through
pids=()            # what was started here, keepers included
finish_hooks=()    # functions called at the end, whatever the end

# This user's own coordinators, tokens and settings are not to be found, nor changed.
unset PESC_COORDINATOR PESC_JOIN_FILE XDG_STATE_HOME XDG_CONFIG_HOME
export HOME=$work/home
mkdir "$HOME"

say() { printf '%s\n' "$*"; }
fail() {
  printf 'FAILED: %s\n' "$*" >&2
  local log
  for log in "$work"/*.log; do
    [ -s "$log" ] && { printf -- '--- %s\n' "${log##*/}"; tail -n 15 "$log"; } >&2
  done
  exit 1
}

alive() { kill -0 "$1" 2>/dev/null; }

# end PID [SIGNAL]: sends the signal and waits for the end, at most 30 s.
end() {
  alive "$1" || return 0
  kill "-${2:-TERM}" "$1" 2>/dev/null || return 0
  for _ in $(seq 300); do
    alive "$1" || return 0
    sleep 0.1
  done
  return 1
}

clean_up() {
  local status=$?
  trap - EXIT
  trap '' INT TERM  # the cleaning is done to its end, by what it starts too
  set +e
  local pid hook
  for pid in "${pids[@]}"; do alive "$pid" && kill -CONT "$pid" 2>/dev/null; done
  for pid in "${pids[@]}"; do end "$pid" KILL; done
  # A client that was waited for: its command line names our directory, which nobody else's does.
  for pid in $(grep -lsF "$work" /proc/[0-9]*/cmdline | cut -d / -f 3); do
    [ "$pid" = "$BASHPID" ] || end "$pid" KILL
  done
  for hook in "${finish_hooks[@]}"; do "$hook"; done
  if [ -n "${PESC_BENCH_KEEP:-}" ]; then say "kept: $work"; else rm -rf "$work"; fi
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# wait_for SECONDS COMMAND…: until it succeeds.
wait_for() {
  local tries=$(($1 * 20))
  shift
  while ! "$@" >/dev/null 2>&1; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || return 1
    sleep 0.05
  done
}

# field FILE-OR-JSON KEY: a value of a flat JSON object on standard input.
field() { sed -n "s/.*\"$1\": *\"\{0,1\}\([^,\"}]*\).*/\1/p" | head -n 1; }

# status_of JOB KEY [pesc options]
status_of() {
  local job=$1 key=$2
  shift 2
  pesc status "$job" --json "$@" | field "$key"
}

pesc() { "$bin/pesc" "$@"; }

# The process that listens on a worker's keeper socket, in the network namespace of the caller.
keeper_of() { ss -xlpH src "$1/keeper.sock" | sed -n 's/.*"pesc-keeper",pid=\([0-9]*\).*/\1/p' | head -n 1; }

# peak PID, and resting PID: VmHWM and VmRSS in KiB. reset_peak PID: the peak starts anew.
peak() { awk '/^VmHWM:/ {print $2}' "/proc/$1/status"; }
resting() { awk '/^VmRSS:/ {print $2}' "/proc/$1/status"; }
reset_peak() { echo 5 > "/proc/$1/clear_refs" 2>/dev/null || true; }
cpu_ms() { awk -v hz="$(getconf CLK_TCK)" '{print int(($14 + $15) * 1000 / hz)}' "/proc/$1/stat"; }
mib() { awk -v k="$1" 'BEGIN {printf "%.1f MiB", k / 1024}'; }
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN {printf "%.3f", b - a}'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.2f", a / b}'; }
per_second() { awk -v n="$1" -v s="$2" 'BEGIN {printf "%.0f", n / s}'; }

# measured FILE COMMAND…: runs it; FILE has its wall seconds, CPU seconds and peak KiB.
measured() {
  [ -x "$work/measure" ] || cc -O2 -o "$work/measure" "$repo/bench/measure.c"
  "$work/measure" "$@"
}

# start_coordinator ADDRESS STATE [options]: sets $coordinator to its pid.
start_coordinator() {
  local address=$1 state=$2
  shift 2
  "$bin/pesc-coordinator" --listen "$address" --state "$state" "$@" >>"$work/coordinator.log" 2>&1 &
  coordinator=$!
  disown
  pids+=("$coordinator")
  wait_for 20 grep -q "listening on" "$work/coordinator.log" || fail "the coordinator does not start"
}

# start_worker NAME STATE [options]: sets $worker and $keeper.
start_worker() {
  local name=$1 state=$2
  shift 2
  "$bin/pesc-worker" --name "$name" --state "$state" "$@" >>"$work/$name.log" 2>&1 &
  worker=$!
  disown
  pids+=("$worker")
  wait_for 20 grep -q "event=attached" "$work/$name.log" || fail "the worker $name does not attach"
  keeper=$(keeper_of "$state")
  [ -n "$keeper" ] || fail "the worker $name has no keeper"
  pids+=("$keeper")
}
