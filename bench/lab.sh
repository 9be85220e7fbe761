# shellcheck shell=bash
# A lab on one machine: hosts are network namespaces behind one bridge, with TLS and join files.
# Sourced after common.sh. Needs root and iproute2; leaves no namespace behind.

[ "$(id -u)" = 0 ] || { say "$0 makes network namespaces: run it as root" >&2; exit 2; }
command -v ip >/dev/null && command -v ss >/dev/null || { say "$0 needs ip and ss: install iproute2" >&2; exit 2; }

tag=pesc$$
namespaces=()
remove_namespaces() {
  local each
  for each in "${namespaces[@]}"; do ip netns delete "$each" 2>/dev/null; done
}
finish_hooks+=(remove_namespaces)

add_namespace() {
  ip netns add "$1" || fail "no network namespace can be made here"
  namespaces+=("$1")
  ip -n "$1" link set lo up
}

# add_host NAME NUMBER: a namespace with the address 10.77.0.NUMBER, and nothing of this user's.
add_host() {
  add_namespace "$tag-$1"
  ip -n "$tag-s" link add "$1" type veth peer name eth0 netns "$tag-$1"
  ip -n "$tag-s" link set "$1" master bridge up
  ip -n "$tag-$1" addr add "10.77.0.$2/24" dev eth0
  ip -n "$tag-$1" link set eth0 up
  mkdir -m 711 "$work/$1" "$work/$1/home"
}

# on HOST COMMAND…: replaces this (sub)shell, so that $! is the command's own pid.
on() {
  local host=$1
  shift
  exec ip netns exec "$tag-$host" env HOME="$work/$host/home" "$@"
}
user() { (on client PESC_JOIN_FILE="$work/user.join" "$bin/pesc" "$@"); }

# lab_worker HOST: starts, or starts again, the worker there; sets worker_of[HOST], keeper_of_host[HOST].
declare -A worker_of keeper_of_host
lab_worker() {
  local before
  before=$(grep -c "event=attached" "$work/$1.log" 2>/dev/null || true)
  (on "$1" "$bin/pesc-worker" --name "$1" --join-file "$work/worker.join" --state "$work/$1/state" \
    --cpus 2 >>"$work/$1.log" 2>&1) &
  worker_of[$1]=$!
  disown
  pids+=("$!")
  wait_for 20 attached_again "$1" "${before:-0}" || fail "the worker $1 does not attach"
  keeper_of_host[$1]=$(ip netns exec "$tag-$1" ss -xlpH src "$work/$1/state/keeper.sock" |
    sed -n 's/.*"pesc-keeper",pid=\([0-9]*\).*/\1/p' | head -n 1)
  if [ -n "${keeper_of_host[$1]}" ]; then pids+=("${keeper_of_host[$1]}"); fi
}
attached_again() { [ "$(grep -c "event=attached" "$work/$1.log")" -gt "$2" ]; }

# set_up_lab LEASE HOST…: a coordinator (host `coordinator`, 10.77.0.1), a client, and a host for each
# worker, which lab_worker starts; join files for both roles. Sets $coordinator.
set_up_lab() {
  local lease=$1 host number=11 role
  shift
  add_namespace "$tag-s"
  ip -n "$tag-s" link add bridge type bridge
  ip -n "$tag-s" link set bridge up
  add_host coordinator 1
  add_host client 2
  for host in "$@"; do
    add_host "$host" "$number"
    number=$((number + 1))
  done
  (on coordinator "$bin/pesc-coordinator" --listen 10.77.0.1:7341 --state "$work/coordinator/state" \
    --lease "$lease" >>"$work/coordinator.log" 2>&1) &
  coordinator=$!
  disown
  pids+=("$coordinator")
  wait_for 20 grep -q "listening on" "$work/coordinator.log" || fail "the coordinator does not start"
  for role in worker user; do
    (on coordinator "$bin/pesc" join-file "$role" lab --coordinator 10.77.0.1:7341 -o "$work/$role.join") \
      >>"$work/client.log" 2>&1 || fail "no join file for a $role"
  done
}
