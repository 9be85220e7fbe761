# What a rank may have is what it gets, by cgroups and without; what a killed keeper leaves is ended.
. "$(dirname "$0")/lib.sh"
gates begun go orphaned

coordinator
export PESC_COORDINATOR="$ADDRESS"

# Keeps what it reads, without end.
script hungry 'cat /dev/zero | tail -c 1000000000'
script neighbour 'echo begun >'"$WORK"'/begun; read word <'"$WORK"'/go; echo "$word" >"$PESC_OUTPUT_DIR/word"'

for mode in auto none; do
  worker "$mode" --cpus 2 --containment "$mode"
  log=$WORK/worker-$mode.log
  grep -q 'event=containment memory=' "$log" || fail "nothing is said of what holds the limits"
  pesc run -n 1 -o "beside-$mode" ./neighbour >"$WORK/beside.out" 2>&1 &
  beside=$!
  read -r _ <"$WORK/begun"
  expect 1 pesc run -n 1 -o "hungry-$mode" --memory 64M --max-failures none ./hungry
  equal "$(awk -F, 'NR == 2 {print $9}' "hungry-$mode/ranks.csv")" out_of_memory "ranks.csv, $mode"
  expect 0 pesc why last
  prints "limit of 64.0 MiB"
  kill -0 "$WORKER_PID" || fail "the worker is gone"
  echo "still there" >"$WORK/go"
  wait "$beside" || { fail "its neighbour failed"; cat "$WORK/beside.out" >&2; }
  equal "$(cat "beside-$mode"/rank-0/word)" "still there"
  [ "$mode" = none ] && break

  # Its keeper and its reaper are killed at once; the worker starts another keeper.
  script leaves '[ "$PESC_ATTEMPT" = 1 ] || exit 0
setsid sh -c '"'"'echo $$ >'"$WORK"'/orphaned; exec sleep 3000'"'"' &
sleep 3000 # for the keeper that is killed
'
  pesc run -n 1 -o left --inject env ./leaves >"$WORK/leaves.out" 2>&1 &
  leaves=$!
  read -r orphan <"$WORK/orphaned"
  program=$(awk '{print $4}' "/proc/$orphan/stat")
  shim=$(awk '{print $4}' "/proc/$program/stat")
  keeper=$(awk '{print $4}' "/proc/$shim/stat")
  equal "$(cat "/proc/$keeper/comm")" pesc-keeper
  kill -STOP "$shim"
  kill -KILL "$keeper" "$shim"
  if ! grep 'event=containment' "$log" | grep -qE '(freeze|kill)=cgroup'; then
    kill -KILL "$orphan" # as `pesc doctor` says: it takes a cgroup
  fi
  tail -f /dev/null --pid="$orphan"
  wait "$leaves" || { fail "the rank was not run again"; cat "$WORK/leaves.out" >&2; }
  kill "$WORKER_PID"
  wait "$WORKER_PID"
done

# A configuration that promises more than the machine has is said, and memory is not given twice.
printf 'cpus = 512\nmemory = "900T"\n' >rich.toml
worker rich --config "$PWD/rich.toml"
expect 0 pesc workers
prints 'note (rich): offers 512 cpus and has '
prints 'note (rich): is to offer 900 TiB of memory and has '
expect 2 pesc submit --strict -n 1 --memory 800T -- true
says 'a rank needs 800 TiB of memory; the best of the workers known'
expect 2 pesc submit --strict -n 1000 --parallel -- true
says 'the 1000 ranks of a parallel job run at the same time; the workers known have room for 51'

expect 2 pesc-worker --coordinator "$ADDRESS" --containment docker
says "none of auto, cgroup2, cgroup1, none"
expect 0 pesc doctor
prints "limits of a rank"
prints "clean-up"
done_with_tests
