# A GPU that fails ranks is set aside, said so, and its neighbour goes on; what ranks have of a GPU is
# measured, shown, and held to what they stated. On a driver of our own (tests/fake_nvml).
. "$(dirname "$0")/lib.sh"
FAKE=$(dirname "$PESC_BIN")/fake_nvml
present "$FAKE/libnvidia-ml.so.1"
export PESC_FAKE_NVML="$WORK/driver"
mkdir -m 777 "$WORK/driver.d" # ranks may be another user's
cat >"$PESC_FAKE_NVML" <<'SCRIPT'
driver 535.129.03
gpu GPU-good memory=12G capability=8.6
gpu GPU-bad memory=12G capability=8.6
SCRIPT
chmod 644 "$PESC_FAKE_NVML"
coordinator
export PESC_COORDINATOR="$ADDRESS"
LD_LIBRARY_PATH="$FAKE" worker one --gpus GPU-good,GPU-bad --cpus 4
ln "$FAKE/gpu_program" . 2>/dev/null || cp "$FAKE/gpu_program" .

# ---- one of two GPUs fails what is given to it
cat >picky <<'SCRIPT'
#!/bin/sh
if [ "$CUDA_VISIBLE_DEVICES" = GPU-bad ]; then
  echo "picky.cu:12: CUDA error: uncorrectable ECC error encountered" >&2
  exit 1
fi
exec ./gpu_program --bytes 1G --seconds 0.1
SCRIPT
chmod +x picky
expect 0 pesc run -n 12 --gpus 1 --gpu-memory 9G --env PESC_FAKE_NVML --inject env \
  --file gpu_program -o picky.out -- ./picky
equal "$(grep -c ',succeeded,' picky.out/ranks.csv)" 12
expect 0 pesc status last
prints '3 gpu_fault'
expect 0 pesc workers
prints 'GPU-bad: Fake GPU, 8.6, 12 GiB (0 B for 0 ranks), gets no ranks: set aside for a while: 3 attempts in a row failed on it'
prints 'uncorrectable ECC error'
grep -qF 'GPU-good: Fake GPU, 8.6, 12 GiB (0 B for 0 ranks)' "$WORK/out" || fail "GPU-good is not well"
job=$(pesc submit -n 1 --gpus 2 -- true)
expect 0 pesc why "$job"
prints 'out of service: set aside for a while'
expect 0 pesc cancel "$job"

# ---- where its ranks ran
expect 0 pesc stats picky --chart chart.svg
prints 'one GPU-good'
grep -qF 'GPU-bad' "$WORK/out" && fail "a GPU on which none was decided is shown"
grep -qF '<title>rank 11: ' chart.svg || fail "the chart lacks a rank"
expect 2 pesc stats picky --chart "$WORK/nowhere/chart.svg"
says 'cannot be written'
expect 0 pesc stats picky --json
grep -qF '"worker":"one","gpu":"GPU-good","ranks":12,"at_once":1' "$WORK/out" || fail "lanes"

# ---- one takes more than it has stated; its neighbour has what it was promised
cat >greedy <<'SCRIPT'
#!/bin/sh
[ "$PESC_RANK" = 0 ] && exec ./gpu_program --bytes 1G --seconds 2
exec ./gpu_program --bytes 1G,3G,3G,3G,3G,3G,3G,3G,3G,3G --seconds 20
SCRIPT
chmod +x greedy
expect 1 pesc run -n 2 --gpus 1 --gpu-memory 2G --env PESC_FAKE_NVML --inject env \
  --file gpu_program -o greedy.out -- ./greedy
equal "$(awk -F, '$1 == 0 {print $9}' greedy.out/ranks.csv)" succeeded
equal "$(awk -F, '$1 == 1 {print $9}' greedy.out/ranks.csv)" gpu_memory_limit
expect 0 pesc why last
prints 'it took 3 GiB of GPU-good'
prints 'gpu-memory is 2 GiB'
expect 0 pesc stats last
grep -qE 'GPU memory +2 GiB +1 GiB, 2 GiB, 3 GiB +2 GiB$' "$WORK/out" || fail "asked, measured, limit"

# ---- and one more disk than it has stated
gates never
cat >wide <<SCRIPT
#!/bin/sh
head -c 40000000 /dev/zero >big
read word <"$WORK/never"
SCRIPT
chmod +x wide
expect 1 pesc run -n 1 --disk 20M -o wide.out -- ./wide
equal "$(awk -F, 'NR == 2 {print $9}' wide.out/ranks.csv)" disk_limit
expect 0 pesc why last
prints 'inputs included; --disk is 20 MiB'

done_with_tests
