# Programs that the workers build: `--build`.
. "$(dirname "$0")/lib.sh"
mkdir -m 777 "$WORK/traces"
BUILT=$WORK/traces/built
: >"$BUILT"
chmod 666 "$BUILT" # whoever builds
builds() { wc -c <"$BUILT" | tr -d ' '; }

# A compiler that is on one worker only, and a source that it takes.
mkdir "$WORK/tools"
cat >"$WORK/tools/fakenvcc" <<SH
#!/bin/sh
# fakenvcc -O3 SOURCE -o PROGRAM
printf x >>$BUILT
grep -q '#error' "\$2" && { echo "\$2(2): error: #error was met" >&2; exit 2; }
echo "compiled \$2 for capability [\$PESC_COMPUTE_CAPABILITY]"
cp "\$2" "\$4" && chmod 755 "\$4"
SH
chmod 755 "$WORK/tools" "$WORK/tools/fakenvcc"
printf '#!/bin/sh\necho "vertices $2 of rank $PESC_RANK"\n' >dijkstra.cu
BUILD="fakenvcc -O3 dijkstra.cu -o dijkstra"

# ---- what makes no sense is refused before anything is sent
expect 2 pesc run --build ' ' --file dijkstra.cu -- ./dijkstra
says "--build: it is blank"
expect 2 pesc run --build-time-limit 5m -- true
says "--build-time-limit: nothing is built"
expect 2 pesc run --file dijkstra.cu -- ./missing/dijkstra
expect 2 pesc run --build "$BUILD" --file missing.cu -- ./dijkstra
says "missing.cu"

# ---- in this process, without any daemon
expect 0 env PATH="$PATH:$WORK/tools" pesc run -n 4 -o local --inject env --build "$BUILD" \
  --file dijkstra.cu -- ./dijkstra --vertices 100
equal "$(cat local/output.txt)" "vertices 100 of rank 0
vertices 100 of rank 1
vertices 100 of rank 2
vertices 100 of rank 3"
equal "$(builds)" 1 "builds for four ranks"
expect 1 pesc run -n 4 -o failed --inject env --build "$BUILD" --file dijkstra.cu -- ./dijkstra
says "fakenvcc"
says "exit code 127"
absent dijkstra

# ---- a lab: one worker has the compiler, the other has not
coordinator
export PESC_COORDINATOR="$ADDRESS"
worker bare --cpus 2
expect 1 pesc run -n 30 -o r1 --inject env --retries 3 --build "$BUILD" --file dijkstra.cu -- ./dijkstra
says "the build failed on bare: exit code 127"
says "fakenvcc"
equal "$(awk -F, 'NR > 1 && $9 == "build_failed"' r1/ranks.csv | head -1 | cut -d, -f9)" build_failed
expect 0 pesc status last
prints "--build"
expect 0 pesc why last
prints "the build of its program failed: exit code 127"
expect 0 pesc logs last --build
prints "fakenvcc: "

(
  PATH=$PATH:$WORK/tools
  export PATH
  exec pesc-worker --coordinator "$ADDRESS" --state "$WORK/worker-equipped" --name equipped --cpus 2
) >"$WORK/worker-equipped.log" 2>&1 &
EQUIPPED=$!
PIDS="$EQUIPPED $PIDS"
await "$WORK/worker-equipped.log" 'event=attached' "$EQUIPPED" >/dev/null
: >"$BUILT"
expect 0 pesc run -n 30 -o r2 --inject env --build "$BUILD" --file dijkstra.cu -- ./dijkstra -v 7
equal "$(sort -u r2/output.txt | wc -l | tr -d ' ')" 30 "ranks"
equal "$(awk -F, 'NR > 1 {print $4}' r2/ranks.csv | sort -u)" equipped "where it ran"
equal "$(builds)" 1 "builds"
expect 0 pesc stats last
prints "build_failed"
expect 0 pesc logs last --build
prints "compiled dijkstra.cu for capability []"
same "$WORK/out" r2/rank-0/build.log
# Another job of the same build, another source, an error in it.
expect 0 pesc run -n 2 -o r3 --inject env --name again --build "$BUILD" --file dijkstra.cu -- ./dijkstra -v 8
equal "$(builds)" 1 "builds of two jobs"
echo '# changed' >>dijkstra.cu
expect 0 pesc run -n 2 -o r4 --inject env --build "$BUILD" --file dijkstra.cu -- ./dijkstra -v 8
equal "$(builds)" 2 "builds, with another source"
expect 0 pesc drain bare # else either of the two failures may be the last
echo '#error' >>dijkstra.cu
expect 1 pesc run -n 100 -o r5 --inject env --build "$BUILD" --file dijkstra.cu -- ./dijkstra
says "dijkstra.cu(2): error: #error was met"
equal "$(builds)" 3 "builds, one of them failed: not one for each rank"
expect 0 pesc logs last --build
prints "dijkstra.cu(2): error: #error was met"
sed -i '$d' dijkstra.cu
# One that hangs has an end.
expect 1 pesc run -n 2 -o r6 --inject env --build "echo begun; sleep 600" --build-time-limit 300ms \
  --file dijkstra.cu -- ./dijkstra
says "it took longer than 300ms (--build-time-limit allows more)"

# ---- killed in mid-build: what is half made is never used
# Each of the two builds reads a gate of its own: the first may live for a moment beside the second.
gates gate-1 gate-2
echo 1 >"$WORK/turn"
HALF="printf x >>$BUILT; echo half >dijkstra; chmod 755 dijkstra"
HALF="$HALF; read l <$WORK/gate-\$(cat $WORK/turn); $BUILD"
: >"$BUILT"
expect 0 pesc submit -n 3 --inject env --file dijkstra.cu --build "$HALF" -- ./dijkstra -v 9
job=$(cat "$WORK/out")
exec 8>"$WORK/gate-1" # opens when the build reads: it has begun, and waits
echo 2 >"$WORK/turn"
kill -9 "$EQUIPPED"
wait "$EQUIPPED" 2>/dev/null
(
  PATH=$PATH:$WORK/tools
  export PATH
  exec pesc-worker --coordinator "$ADDRESS" --state "$WORK/worker-equipped" --name equipped --cpus 2
) >"$WORK/worker-equipped-2.log" 2>&1 8>&- &
EQUIPPED=$!
PIDS="$EQUIPPED $PIDS"
echo go >"$WORK/gate-2"
exec 8>&-
expect 0 pesc watch "$job"
expect 0 pesc fetch "$job" -o r7
equal "$(head -1 r7/output.txt)" "vertices 9 of rank 0"
# Its cache outlives it too: nobody opens the gate for another build.
before=$(builds)
expect 0 pesc run -n 2 -o r8 --inject env --name again --file dijkstra.cu --build "$HALF" \
  -- ./dijkstra -v 9
equal "$(builds)" "$before" "builds after a restart"
expect 0 pesc drain bare --undo

# ---- for the GPU that the rank is given
FAKE=$(dirname "$PESC_BIN")/fake_nvml
present "$FAKE/libnvidia-ml.so.1"
cat >"$WORK/driver" <<'SCRIPT'
gpu GPU-new memory=12G capability=12.0
gpu GPU-old memory=2G capability=8.6
SCRIPT
(
  PATH=$PATH:$WORK/tools
  LD_LIBRARY_PATH=$FAKE
  PESC_FAKE_NVML=$WORK/driver
  export PATH LD_LIBRARY_PATH PESC_FAKE_NVML
  exec pesc-worker --coordinator "$ADDRESS" --state "$WORK/worker-gpus" --name gpus --cpus 2
) >"$WORK/worker-gpus.log" 2>&1 &
GPUS=$!
PIDS="$GPUS $PIDS"
await "$WORK/worker-gpus.log" 'event=attached' "$GPUS" >/dev/null
before=$(builds)
expect 0 pesc run -n 1 -o g1 --gpus 1 --gpu-memory 11G --inject env --build "$BUILD" --file dijkstra.cu -- ./dijkstra
equal "$(cat g1/rank-0/build.log)" "compiled dijkstra.cu for capability [120]"
expect 0 pesc run -n 1 -o g2 --gpus 1 --gpu-memory 11G --inject env --name again --build "$BUILD" --file dijkstra.cu -- ./dijkstra
equal "$(builds)" $((before + 1)) "builds for one GPU"
expect 0 pesc run -n 1 -o g3 --gpus 2 --inject env --build "$BUILD" --file dijkstra.cu -- ./dijkstra
equal "$(cat g3/rank-0/build.log)" "compiled dijkstra.cu for capability [86]"
equal "$(builds)" $((before + 2)) "builds, one for the lesser of two GPUs"

# ---- a real compiler, where there is one
if command -v cc >/dev/null; then
  printf '#include <stdio.h>\nint main(void) { puts("hello from C"); }\n' >hello.c
  printf 'hello: hello.c\n\tcc -O2 hello.c -o hello\n' >Makefile
  build="cc -O2 hello.c -o hello"
  command -v make >/dev/null && build=make
  expect 0 pesc run -n 2 -o c --inject none --build "$build" --file hello.c --file Makefile -- ./hello
  equal "$(head -1 c/output.txt)" "hello from C"
fi

done_with_tests
