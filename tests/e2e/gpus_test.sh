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

done_with_tests
