# The samples from outside: SAMPLES is the directory of the programs. What can be seen without a GPU,
# and, where there is one, that it computes what the CPU does.
. "$(dirname "$0")/../e2e/lib.sh"
: "${SAMPLES:?the directory of the samples}"
PATH=$SAMPLES:$PATH
unset CUDA_VISIBLE_DEVICES
json() { sed -n 's/^  "'"$2"'": "\{0,1\}\([^",]*\)"\{0,1\},\{0,1\}$/\1/p' "$1"; }
small="--vertices 20000 --degree 6 --seed 5"

# Without a GPU each says so, with an exit code of its own; nothing is left behind that looks like a
# result.
for program in dijkstra option_pricing two_gpus; do
  expect 10 env CUDA_VISIBLE_DEVICES= $program
  says "$program: no GPU"
  says "try it with --cpu"
  absent output/summary.json
  absent output/result.json
  expect 0 $program --help
  prints "--checkpoint-seconds N"
  prints "10 no GPU"
  expect 2 $program --nonsense
  says "$program: unknown argument '--nonsense'; $program --help lists the arguments"
done

# What it would need is known without a GPU.
expect 0 dijkstra --dry-run --seed 1
prints "11,240,000 vertices, 89,920,000 edges, weights 1 to 1,000, seed 1"
prints "1,124,073,472 bytes, in one block"
prints "1,392,508,928 bytes (1,328 MiB)"
expect 0 dijkstra --dry-run --vertices 4294967294 --degree 1000000
prints "34,359,892,972,142,592 bytes, in one block"
expect 2 dijkstra --vertices 0
expect 2 dijkstra --vertices 10 --source 10
says "--source 10 is not a vertex: there are 10, the first is 0"

# On the CPU: the contract's arguments, alone.
expect 0 dijkstra $small --cpu --verify --app_dir . --checkpoint_dir c --output_dir o --rank 3 \
  --world_size 5 --master_addr 127.0.0.1 --master_port 9000 --parameters a b
prints "rank 3: "
prints ", verified, CPU"
equal "$(json o/summary.json verified)" true
equal "$(json o/summary.json edges)" 120000
equal "$(wc -c <o/distances.bin)" $((64 + 4 * 20000))
sum=$(json o/summary.json checksum)
equal "$(tail -c +65 o/distances.bin | gzip -c | tail -c 8 | head -c 4 | od -An -tx4 | tr -d ' ')" \
  "$sum" "the checksum is that of gzip"
expect 0 dijkstra --cpu --vertices 1 --degree 0 -o one
equal "$(wc -c <one/distances.bin)" 68
expect 0 dijkstra --cpu --vertices 100 --no-distances -o none
absent none/distances.bin
present none/summary.json

# Told to stop, it saves, and dies of the signal; the next attempt goes on to the same result. Each
# report of progress waits for a reader of the FIFO, so that the signal comes between the second one
# and the end. A reader that leaves late costs the next report (with SIGPIPE ignored: there are seven);
# one that comes early, before the last report is closed, sees nothing.
large="--vertices 200000 --degree 6 --seed 5"
expect 0 dijkstra $large --cpu -o whole
report() {
  until report=$(head -n 1 "$WORK/events") && [ -n "$report" ]; do :; done
}
gates events
PESC_JOB=j PESC_EVENTS=$WORK/events PESC_CHECKPOINT_DIR=$WORK/c2 PESC_OUTPUT_DIR=$WORK/o2
PESC_RANK=0 PESC_APP_DIR=$WORK
export PESC_JOB PESC_EVENTS PESC_CHECKPOINT_DIR PESC_OUTPUT_DIR PESC_RANK PESC_APP_DIR
mkdir "$WORK/c2" "$WORK/o2"
sh -c "trap '' PIPE; exec dijkstra $large --cpu" 2>"$WORK/err" &
pid=$!
report
equal "$report" "progress 0 shortest paths"
report
kill -TERM $pid
exec 3<"$WORK/events"
wait $pid
equal $? 143 "ended by SIGTERM"
exec 3<&-
quiet
absent "$WORK/o2/summary.json"
present "$WORK/c2/dijkstra.checkpoint"
phases=$(od -An -tu8 -j48 -N8 "$WORK/c2/dijkstra.checkpoint" | tr -d ' ')
[ "$phases" -ge 32 ] && [ "$phases" -lt "$(json whole/summary.json iterations)" ] ||
  fail "saved after phase $phases, not in the midst"
unset PESC_EVENTS
cp "$WORK/c2/dijkstra.checkpoint" "$WORK/saved"
expect 0 dijkstra $large --cpu
quiet
same "$WORK/o2/distances.bin" whole/distances.bin
equal "$(json "$WORK/o2/summary.json" iterations)" "$(json whole/summary.json iterations)"
absent "$WORK/c2/dijkstra.checkpoint"
# A damaged one costs time and not the rank.
head -c 1000 "$WORK/saved" >"$WORK/c2/dijkstra.checkpoint"
expect 0 dijkstra $large --cpu
says "dijkstra: the checkpoint is not used: it is cut off or too long; starting from the beginning"
same "$WORK/o2/distances.bin" whole/distances.bin
unset PESC_JOB PESC_CHECKPOINT_DIR PESC_OUTPUT_DIR PESC_RANK PESC_APP_DIR

# Outputs that cannot be written: said, exit code 1, no half of a file. (A file system of no size
# would need root; a limit of the file's size is as full.)
mkdir full
expect 1 sh -c "trap '' XFSZ; ulimit -f 16; exec dijkstra $small --cpu -o full"
says "full/distances.bin cannot be written: File too large"
equal "$(ls full)" ""
for program in dijkstra option_pricing two_gpus; do # before the work, and before a GPU is looked for
  expect 1 $program -o /proc/none
  says "the output directory /proc/none cannot be written to: No such file or directory"
done
if ! grep -q __asan_init "$(command -v dijkstra)"; then # which reserves terabytes of addresses
  expect 1 sh -c "ulimit -v 1000000; exec dijkstra --cpu --vertices 100000000"
  says "too little free memory"
fi
expect 1 sh -c "exec dijkstra --cpu --vertices 10 -o of >/dev/full"
says "standard output cannot be written"

# Ranks of a Monte Carlo have paths of their own, and merge.
for rank in 0 1 2; do
  expect 0 option_pricing --cpu --paths 50000 --seed 9 --verify -r $rank -o r/rank-$rank
  prints "rank $rank: 50,000 paths: price 10."
done
expect 0 option_pricing --merge r
prints "3 ranks, 150,000 paths: price 10."
expect 2 option_pricing --merge empty
says "there is no empty/rank-*/estimate.txt"
sed 's/seed 9/seed 8/' r/rank-1/estimate.txt >r/rank-2/estimate.txt
expect 1 option_pricing --merge r
says "rank-2/estimate.txt: it is damaged"

expect 0 two_gpus --cpu --width 60 --height 41 --iterations 250 --seed 3 --verify cpu --write-field
equal "$(wc -c <output/temperature.bin)" $((32 + 4 * 62 * 43))
expect 2 two_gpus --cpu --verify gpu
says "--verify gpu needs GPUs"

# Under PESC.
expect 0 pesc run -n 3 -o results -- "$SAMPLES/dijkstra" --vertices 3000 --cpu --verify
equal "$(grep -c '^rank [0-2]: ' results/output.txt)" 3
equal "$(sed 's/.*checksum \([0-9a-f]*\).*/\1/' results/output.txt | sort -u | wc -l)" 3 \
  "each rank has a graph of its own"
expect 0 pesc run -n 4 -o prices -- "$SAMPLES/option_pricing" --paths 20000 --cpu
expect 0 option_pricing --merge prices
prints "4 ranks, 80,000 paths: price 10."
expect 0 pesc run -n 1 -o plate -- "$SAMPLES/two_gpus" --width 30 --height 30 --iterations 100 --cpu

# With a GPU: the same as the CPU's, to the last bit where it should be.
if [ -c /dev/nvidia0 ]; then
  expect 0 dijkstra $small --verify -o gpu
  same gpu/distances.bin o/distances.bin
  equal "$(json gpu/summary.json iterations)" "$(json o/summary.json iterations)"
  expect 0 option_pricing --paths 1000000 --verify
  expect 0 option_pricing --paths 100000 --style asian --steps 50 --verify
  if [ -c /dev/nvidia1 ]; then
    expect 0 two_gpus --width 1000 --height 777 --iterations 300 --verify cpu
  else
    expect 14 two_gpus
    says "two GPUs are needed, and this program may use 1"
  fi
fi
exit $FAILED
