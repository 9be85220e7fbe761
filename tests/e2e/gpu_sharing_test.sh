# GPUs shared by what ranks are measured to take, with real daemons on a driver of our own
# (tests/fake_nvml): the thesis's scenario 5. Two workers have a GPU of 2 GB whose driver does not
# tell the memory of processes, one has 12 GB; 30 ranks take 1,328 MB each.
. "$(dirname "$0")/lib.sh"
FAKE=$(dirname "$PESC_BIN")/fake_nvml
present "$FAKE/libnvidia-ml.so.1"
export PESC_FAKE_NVML="$WORK/driver"
mkdir -m 777 "$WORK/driver.d" # ranks may be another user's
cat >"$PESC_FAKE_NVML" <<'SCRIPT'
driver 535.129.03
gpu GPU-small-1 memory=2G capability=3.0 reports=unsupported
gpu GPU-small-2 memory=2G capability=3.0 reports=unsupported
gpu GPU-large memory=12G capability=8.6
SCRIPT
chmod 644 "$PESC_FAKE_NVML"
coordinator
export PESC_COORDINATOR="$ADDRESS"
export LD_LIBRARY_PATH="$FAKE"
worker one --gpus GPU-small-1 --cpus 12
worker two --gpus GPU-small-2 --cpus 12
worker three --gpus GPU-large --cpus 12
unset LD_LIBRARY_PATH
ln "$FAKE/gpu_program" . 2>/dev/null || cp "$FAKE/gpu_program" .

# record GPU: highest bytes, highest number at once, began, refused
record() { cat "$WORK/driver.d/$1/record"; }

expect 0 pesc run -n 30 --gpus 1 --env PESC_FAKE_NVML --inject env -o shared -- \
  ./gpu_program --bytes 1328M --seconds 0.7
began=0
for gpu in GPU-small-1 GPU-small-2 GPU-large; do
  set -- $(record "$gpu")
  began=$((began + $3))
  equal "$4" 0 "refused on $gpu"
  case $gpu in
  GPU-small-*) equal "$2" 1 "ranks at once on $gpu, whose driver tells nothing" ;;
  GPU-large)
    [ "$2" -ge 4 ] || fail "only $2 ranks at once on 12 GB"
    [ "$1" -le $((12 * 1024 * 1024 * 1024)) ] || fail "$1 bytes on 12 GB"
    [ "$3" -gt 15 ] || fail "only $3 of 30 ranks on the largest GPU"
    ;;
  esac
done
equal "$began" 30 "every rank ran once"
expect 0 pesc workers
prints 'GPU-large: Fake GPU, 8.6, 12 GiB (0 B for 0 ranks)'
prints 'one rank at a time'

# The table and the chart of the thesis: one at a time on the old ones, several on the large one.
expect 0 pesc stats last --chart chart.svg
prints 'three GPU-large'
grep -qE '^one GPU-small-1 +[0-9]+ +1 ' "$WORK/out" || fail "GPU-small-1 had more than one at once"
grep -qE '^two GPU-small-2 +[0-9]+ +1 ' "$WORK/out" || fail "GPU-small-2 had more than one at once"
equal "$(grep -c '<title>rank' chart.svg)" 30 "bars in the chart"

# What was learned holds for the next job of the same program; what says more than is there waits.
expect 0 pesc run -n 4 --gpus 1 --gpu-memory 9G --min-compute-capability 8.0 --env PESC_FAKE_NVML \
  --inject env -o stated -- ./gpu_program --bytes 9G --seconds 0.1
equal "$(grep -c ',three,' stated/ranks.csv)" 4
expect 2 pesc submit --strict -n 1 --gpus 2 -- true
says 'a rank needs 2 GPUs; the best of the workers known'
expect 2 pesc run --strict -n 1 --gpu-memory 20G --gpus 1 -o nothing -- true
says '--strict'
absent nothing
job=$(pesc submit -n 1 --gpus 2 -- true 2>"$WORK/err")
says 'the job waits until one comes that has it'
expect 0 pesc why "$job"
prints '2 GPUs'
expect 0 pesc cancel "$job"

# A program that takes more than it used to: CUDA's refusal is not held against it.
cat >growing <<'SCRIPT'
#!/bin/sh
[ "$PESC_RANK" = 0 ] && exec ./gpu_program --bytes 1G --seconds 0.7
exec ./gpu_program --bytes 7G --seconds 0.7
SCRIPT
chmod +x growing
expect 0 pesc run -n 4 --gpus 1 --min-compute-capability 8.0 --env PESC_FAKE_NVML --inject env \
  --file gpu_program -o growing.out -- ./growing
equal "$(grep -c ',succeeded,' growing.out/ranks.csv)" 4

# No daemon: this process asks the driver when a job wants a GPU.
unset PESC_COORDINATOR
expect 0 env LD_LIBRARY_PATH="$FAKE" pesc run -n 2 --gpus 1 --gpu-memory 1G --env PESC_FAKE_NVML \
  --inject env -o embedded -- ./gpu_program --bytes 1G --seconds 0.1

done_with_tests
