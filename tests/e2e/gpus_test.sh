# GPUs as a driver of our own describes them (tests/fake_nvml): no test needs one.
. "$(dirname "$0")/lib.sh"
FAKE=$(dirname "$PESC_BIN")/fake_nvml
present "$FAKE/libnvidia-ml.so.1"
export PESC_FAKE_NVML="$WORK/driver"

# ---- doctor: what there is, and what to do
cat >"$PESC_FAKE_NVML" <<'SCRIPT'
driver 535.129.03
gpu GPU-big memory=12G used=1G capability=8.6 name=RTX_3060 temperature=44
gpu GPU-old memory=2G capability=3.0 reports=unsupported
gpu GPU-bad memory=2G capability=3.0
fail nvmlDeviceGetMemoryInfo* 16 GPU-bad
SCRIPT
expect 0 env LD_LIBRARY_PATH="$FAKE" pesc doctor
prints '535.129.03, 3 GPUs'
prints 'RTX 3060, 12 GiB, compute capability 8.6, 1 GiB taken by others, 44 °C'
prints 'one rank at a time: its driver does not list the processes on it'
prints 'not used: it must be reset'
echo 'down 18' >"$PESC_FAKE_NVML"
expect 0 env LD_LIBRARY_PATH="$FAKE" pesc doctor
prints 'reboot the machine'

# ---- a worker: what it offers, what a rank sees of it
cat >"$PESC_FAKE_NVML" <<'SCRIPT'
gpu GPU-big memory=12G capability=8.6 name=RTX_3060
gpu GPU-old memory=2G capability=3.0 reports=unsupported
SCRIPT
coordinator
export PESC_COORDINATOR="$ADDRESS"
export LD_LIBRARY_PATH="$FAKE"
worker big --gpus GPU-big,GPU-gone
unset LD_LIBRARY_PATH
grep -q 'event=gpu uuid=GPU-big name="RTX 3060" memory_mib=12288 capability=806 reports_memory=true' \
  "$WORK/worker-big.log" || fail "the worker did not list its GPU"
grep -q 'event=gpu uuid=GPU-old' "$WORK/worker-big.log" && fail "a GPU that is not offered is listed"
grep -q "GPU-gone', which this machine does not have" "$WORK/worker-big.log" ||
  fail "a GPU that is not there was not missed"
# A rank that asked for none sees none, whatever its job says.
expect 0 pesc run -n 1 --env CUDA_VISIBLE_DEVICES=GPU-big --inject env -- \
  sh -c 'echo "[${CUDA_VISIBLE_DEVICES-unset}]" >"$PESC_OUTPUT_DIR/seen"'
grep -rqx '\[\]' --include=seen . || fail "a rank without GPUs sees some"

expect 2 pesc-worker --gpus 0
says 'nvidia-smi -L'

done_with_tests
