# A GPU that was set aside is tried again when its time is over, stays aside for longer when it fails
# once more, and is in service again when it does well, or by a person's word. On a driver of our own
# (tests/fake_nvml), with a coordinator whose clock is set forward (later.c): nobody waits for minutes.
. "$(dirname "$0")/lib.sh"
HERE=$(cd "$OLDPWD" && cd "$(dirname "$0")" && pwd)
FAKE=$(dirname "$PESC_BIN")/fake_nvml
present "$FAKE/libnvidia-ml.so.1"
export PESC_FAKE_NVML="$WORK/driver"
mkdir -m 777 "$WORK/driver.d" # ranks may be another user's
# The bad one has more memory, so that it comes first whenever it may.
cat >"$PESC_FAKE_NVML" <<'SCRIPT'
driver 535.129.03
gpu GPU-good memory=12G capability=8.6
gpu GPU-bad memory=24G capability=8.6
SCRIPT
chmod 644 "$PESC_FAKE_NVML"

cc -shared -fPIC -O1 -o "$WORK/later.so" "$HERE/later.c" -ldl || fail "later.c"
export PESC_TEST_LATER="$WORK/later"
# pass SECONDS: in the coordinator's time.
LATER=0
pass() {
  LATER=$((LATER + $1))
  printf '%06d' "$LATER" | dd of="$PESC_TEST_LATER" conv=notrunc status=none
}
printf '000000' >"$PESC_TEST_LATER"
ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0"
export ASAN_OPTIONS
export LD_PRELOAD="$WORK/later.so"
coordinator --listen 127.0.0.1:0 --lease 1h # the worker is not away, its clock is another
unset LD_PRELOAD
export PESC_COORDINATOR="$ADDRESS"
LD_LIBRARY_PATH="$FAKE" worker one --gpus GPU-good,GPU-bad --cpus 2

# Fails on GPU-bad until that is well; says where it has run.
cat >picky <<SCRIPT
#!/bin/sh
if [ "\$CUDA_VISIBLE_DEVICES" = GPU-bad ] && [ ! -e "$WORK/well" ]; then
  echo "picky.cu:12: CUDA error: uncorrectable ECC error encountered" >&2
  exit 1
fi
echo "\$CUDA_VISIBLE_DEVICES"
SCRIPT
chmod +x picky
# ran RANKS FAULTS GPUS: so many ranks succeed, after so many failures of a GPU, on these GPUs.
round=0
ran() {
  round=$((round + 1))
  expect 0 pesc run -n "$1" --gpus 1 --gpu-exclusive --no-second-attempts -o "$round" -- ./picky
  equal "$(sort -u "$round/output.txt" | tr '\n' ' ')" "$3 " "where they ran, round $round"
  expect 0 pesc status last
  if [ "$2" -gt 0 ]; then
    prints "$2 gpu_fault"
  elif grep -q gpu_fault "$WORK/out"; then
    fail "a GPU failed in round $round"
  fi
}
aside() {
  expect 0 pesc workers
  prints 'GPU-bad: Fake GPU, 8.6, 24 GiB (0 B for 0 ranks), gets no ranks: set aside for a while'
}
in_service() {
  expect 0 pesc workers
  ! grep -q 'set aside' "$WORK/out" || fail "a GPU is set aside: $1"
}

ran 6 3 GPU-good
aside
pass 50
ran 1 0 GPU-good
pass 20 # a minute is over: it is tried, and once more is enough
ran 2 1 GPU-good
aside
touch "$WORK/well"
pass 100 # two minutes are not
ran 1 0 GPU-good
aside
pass 30
in_service "before it has done anything: nobody says more than is known"
ran 1 0 GPU-bad
in_service "it did well"

# It begins anew: one failure is not enough, and a person need not wait.
rm "$WORK/well"
ran 6 3 GPU-good
aside
touch "$WORK/well"
expect 0 pesc drain --undo one
in_service "by a person's word"
ran 1 0 GPU-bad

done_with_tests
