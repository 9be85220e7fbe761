# `pesc run` without a coordinator: what a rank is given and what comes back.
. "$(dirname "$0")/lib.sh"

script rank 'echo "rank $PESC_RANK of $PESC_WORLD_SIZE"
echo "to stderr $PESC_RANK" >&2
echo "$PESC_RANK squared" >"$PESC_OUTPUT_DIR/result.txt"'
expect 0 pesc run -n 12 -o r --workers 2 --slots 2 -- ./rank
says "12 of 12 ranks succeeded"
for i in 0 1 2 3 4 5 6 7 8 9 10 11; do echo "rank $i of 12"; done >expected
same r/output.txt expected
equal "$(cat r/rank-11/result.txt)" "11 squared"
equal "$(cat r/rank-11/stderr.txt)" "to stderr 11"
equal "$(cat r/rank-11/output.txt)" "rank 11 of 12"
equal "$(head -1 r/ranks.csv)" \
  "rank,state,attempts,worker,started,seconds,exit_code,signal,reason,max_rss_bytes"
equal "$(wc -l <r/ranks.csv)" 13
[ -n "$(find r/rank-3/output.txt -newermt '2020-01-01')" ] || fail "output.txt has no time"
absent r/.pesc/state
expect 2 pesc run -n 12 -o r -- ./rank
says "holds the results of job"
says "(-o DIR names one)"

# Nothing but the result on standard output; lines of log never.
expect 0 pesc run -o r-json --json -- ./rank
quiet
equal "$(json "$WORK/out" state)" succeeded
equal "$(json "$WORK/out" repetitions)" 1

# Called as its script when the program is an interpreter.
expect 0 pesc run -o r-name --json -- sh ./rank
equal "$(json "$WORK/out" name)" rank
expect 0 pesc run -o r-name-2 --json --name mine -- sh ./rank
equal "$(json "$WORK/out" name)" mine
expect 0 pesc run -o r-name-3 --json -- sh -c 'exit 0'
equal "$(json "$WORK/out" name)" sh

# Arguments and placeholders.
expect 0 pesc run -n 2 -o r-args --parameters a,b --parameter 'c,d' --inject none -- \
  echo '{rank}/{world_size}' '{parameters[rank]}' '{parameters[2]}' '{{rank}}' '{"a":{"b":1}}' '{x}'
printf '0/2 a c,d {rank} {"a":{"b":1}} {x}\n1/2 b c,d {rank} {"a":{"b":1}} {x}\n' >expected
same r-args/output.txt expected
script arguments 'for a; do echo "$a"; done; echo "$PESC_PARAMETERS"'
expect 0 pesc run -o r-flags --parameters 1,2 -- ./arguments own 'two words'
equal "$(sed -n '1p;2p' r-flags/output.txt | tr '\n' '|')" "own|two words|"
equal "$(grep -A2 -xF -- --parameters r-flags/output.txt | tr '\n' '|')" "--parameters|1|2|"
equal "$(grep -A1 -xF -- --world_size r-flags/output.txt | tail -1)" 1

# Braces that are nearly PESC's are passed on, and noted once; others are nobody's business.
expect 0 pesc run -o r-note --inject none -- echo '{rnak}' '{rnak}' '{parameter[0]}' '{x}'
equal "$(cat r-note/output.txt)" '{rnak} {rnak} {parameter[0]} {x}'
says "did you mean '{rank}'?"
says "did you mean '{parameters[0]}'?"
equal "$(grep -c 'is no placeholder' "$WORK/err")" 2 "notes"
expect 0 pesc run -o r-note-json --inject none --json -- echo '{rnak}'
quiet

# The environment: a clean base, what was asked for, the contract.
PESC_E2E_SECRET=x PESC_E2E_TAKEN='a b' expect 0 pesc run -o r-env --inject env \
  --env PESC_E2E_TAKEN --env 'GIVEN=x=y' --env EMPTY= -- env
grep -qx 'PESC_E2E_TAKEN=a b' r-env/output.txt || fail "--env NAME"
grep -qx 'GIVEN=x=y' r-env/output.txt || fail "--env NAME=VALUE"
grep -qx 'EMPTY=' r-env/output.txt || fail "--env NAME="
grep -q PESC_E2E_SECRET r-env/output.txt && fail "the caller's environment leaked"
for name in PESC_RANK PESC_SEED PESC_JOB PESC_EVENTS TMPDIR PATH HOME; do
  grep -q "^$name=" r-env/output.txt || fail "$name is missing"
done
expect 0 pesc run -o r-none --inject none -- env
grep -q '^PESC_' r-none/output.txt && fail "--inject none injects"

# Files travel; one line says which; shared ones are read-only.
mkdir -p 'in put/deep'
echo one >'in put/deep/ö "quoted" name'
echo two >data.txt
echo three >shared.txt
script files 'cat "in put/deep/ö \"quoted\" name" data.txt shared.txt; (echo x >>shared.txt) 2>/dev/null; exit 0'
expect 0 pesc run -n 2 -o r-files --file 'in put' --shared-file shared.txt -- \
  ./files data.txt --inject=x
says "sending ./files, data.txt"
printf 'one\ntwo\nthree\none\ntwo\nthree\n' >expected
same r-files/output.txt expected
expect 2 pesc run -o r-noauto --no-auto-files -- ./files data.txt
says "is not among the job's files"
absent r-noauto

# Odd names, in and out: blanks, quotes, line breaks, bytes that are no UTF-8.
python3 - <<'P'
import os
for name in (b"a b", b"q'\"", b"line\nbreak", b"\xff\xfe", b"-n", b"{rank}"):
    open(name, "wb").write(b"in " + name)
P
script odd 'for f in *; do [ "$f" = odd ] || cp -- "$f" "$PESC_OUTPUT_DIR/$f"; done'
python3 - <<'P'
import os, subprocess, sys
names = [b"a b", b"q'\"", b"line\nbreak", b"\xff\xfe", b"-n", b"{rank}"]
args = [b"pesc", b"run", b"-o", b"r-odd"]
for name in names:
    args.append(b"--file=" + name)
sys.exit(subprocess.call(args + [b"--", b"./odd"]) or
         any(open(b"r-odd/rank-0/" + n, "rb").read() != b"in " + n for n in names))
P
equal $? 0 "odd names"

# What a program leaves in its working directory.
script litter 'echo x >result.dat; mkdir sub; echo y >sub/more.dat; echo z >noise.log'
expect 0 pesc run -n 3 -o r-litter -- ./litter
equal "$(grep -c 'did not come back' "$WORK/err")" 1 "said once"
says "result.dat"
expect 0 pesc run -n 3 -o r-collect --collect '**.dat' --collect noise.log -- ./litter
equal "$(cat r-collect/rank-2/result.dat r-collect/rank-2/sub/more.dat | tr '\n' ' ')" "x y "
grep -q 'did not come back' "$WORK/err" && fail "all was collected"
done_with_tests
