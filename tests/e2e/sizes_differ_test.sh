# Machines differ: what states no memory and turns out to be too large for a small worker, or for a small
# GPU, goes on where there is more; no rank fails of it, and later ones are not sent there.
. "$(dirname "$0")/lib.sh"
FAKE=$(dirname "$PESC_BIN")/fake_nvml
export PESC_FAKE_NVML="$WORK/driver"
mkdir -m 777 "$WORK/driver.d"
printf 'gpu GPU-small memory=2G\ngpu GPU-large memory=12G\n' >"$PESC_FAKE_NVML"
chmod 644 "$PESC_FAKE_NVML"
coordinator
export PESC_COORDINATOR="$ADDRESS"
export LD_LIBRARY_PATH="$FAKE"
worker small --gpus GPU-small --cpus 2 --memory 128M
worker large --gpus GPU-large --cpus 1
unset LD_LIBRARY_PATH
ln "$FAKE/gpu_program" . 2>/dev/null || cp "$FAKE/gpu_program" .

script fat 'head -c 200000000 /dev/zero | tail -c 200000000 >/dev/null'
for time in first second; do
  expect 0 pesc run -n 6 --inject env --no-second-attempts -o "fat-$time" -- ./fat
  equal "$(grep -c ',succeeded,' "fat-$time/ranks.csv")" 6 "ranks that need more than the small worker has"
  expect 0 pesc run -n 6 --gpus 1 --cpus 0.2 --no-second-attempts --env PESC_FAKE_NVML --inject env \
    -o "gpu-$time" -- ./gpu_program --bytes 3G --seconds 0.2
  equal "$(grep -c ',succeeded,' "gpu-$time/ranks.csv")" 6 "ranks that need more than the small GPU has"
done
expect 0 pesc status fat
! grep -q outgrew "$WORK/out" || fail "it was known, and went to the small worker all the same"
done_with_tests
