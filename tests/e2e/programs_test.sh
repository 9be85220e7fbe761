# Programs that cannot start, die, flood, close their descriptors or leave processes behind.
. "$(dirname "$0")/lib.sh"

fails_with() { # PROGRAM EXIT_CODE SIGNAL REASON TEXT
  expect 1 pesc run --output-limit 1M --grace 100ms --time-limit 20s -o "r-$1" -- "./$1"
  says "$5"
  equal "$(tail -1 "r-$1/ranks.csv" | cut -d, -f7-9)" "$2,$3,$4" "$1"
}

printf '#!/nonexistent/interpreter\n' >badinterpreter
printf 'neither fish nor fowl\n' >nointerpreter
: >empty
# An ELF header for the other of the two usual machines.
machine='\267\000' # aarch64
[ "$(uname -m)" = aarch64 ] && machine='\076\000'
{ printf '\177ELF\002\001\001\000\000\000\000\000\000\000\000\000\002\000'; printf "$machine"
  dd if=/dev/zero bs=100 count=1 2>/dev/null; } >foreign
chmod +x badinterpreter nointerpreter empty foreign
fails_with badinterpreter 127 0 cannot_start "script interpreter /nonexistent/interpreter"
fails_with nointerpreter 126 0 cannot_start "neither a program nor a script"
fails_with empty 126 0 cannot_start "the file is empty"
fails_with foreign 126 0 cannot_start "another architecture"
expect 1 pesc run -o r-unknown -- pesc-e2e-no-such-program
says "not found on this machine's PATH"
equal "$(tail -1 r-unknown/ranks.csv | cut -d, -f7)" 127

script flood 'while :; do echo "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"; done'
expect 1 pesc run --output-limit 1M -o r-flood -- ./flood
says "more output than the job's limit"
equal "$(tail -1 r-flood/ranks.csv | cut -d, -f9)" output_limit
[ "$(wc -c <r-flood/output.txt)" -le 1048576 ] || fail "more than the limit came back"

script segv 'kill -SEGV $$'
expect 1 pesc run -o r-segv -- ./segv
says "SIGSEGV"
equal "$(tail -1 r-segv/ranks.csv | cut -d, -f8,9)" 11,signal
script three 'echo "something is wrong" >&2; exit 3'
fails_with three 3 0 exit_code "exit code 3: something is wrong"
script stubborn 'trap "" TERM; while :; do :; done'
expect 1 pesc run --time-limit 200ms --grace 100ms -o r-stubborn -- ./stubborn
says "longer than its time limit"
equal "$(tail -1 r-stubborn/ranks.csv | cut -d, -f9)" time_limit

script unread ':'
expect 0 sh -c 'yes | pesc run -o r-unread -- ./unread'
script reads 'cat; echo end of input'
expect 0 pesc run -o r-reads -- ./reads
equal "$(cat r-reads/output.txt)" "end of input"
script closes 'exec 0<&- 1>&- 2>&-; exit 0'
expect 0 pesc run -o r-closes -- ./closes
# A grandchild in a session of its own ends with its rank.
script leaves 'setsid sh -c "echo \$\$ >\"$PESC_OUTPUT_DIR/pid\"; exec tail -f /dev/null" &
while [ ! -s "$PESC_OUTPUT_DIR/pid" ]; do :; done'
expect 0 pesc run -o r-leaves -- ./leaves
kill -0 "$(cat r-leaves/rank-0/pid)" 2>/dev/null && fail "a process outlived its rank"

# --retries: further attempts, counted.
script second '[ "$PESC_ATTEMPT" -ge 2 ]'
expect 0 pesc run --retries 1 -n 2 -o r-second -- ./second
equal "$(cut -d, -f2,3 r-second/ranks.csv | tail -1)" "succeeded,2"

# A program that refuses PESC's arguments stops its job early and says which flag helps.
script strict 'for a; do case $a in --*) echo "strict: unrecognized option '"'"'$a'"'"'" >&2; exit 2;; esac; done'
expect 1 pesc run -n 500 -o r-strict -- ./strict
says "--inject env"
[ "$(grep -c ',cancelled,' r-strict/ranks.csv)" -gt 400 ] || fail "the job was not stopped early"
expect 0 pesc run -n 3 -o r-env --inject env -- ./strict
done_with_tests
