# Bad usage: exit code 2, a message that says what to do, and nothing stored.
. "$(dirname "$0")/lib.sh"
script who 'echo "$PESC_RANK"'

refused() { # MESSAGE COMMAND...
  message=$1
  shift
  expect 2 "$@"
  says "$message"
  [ -z "$(find . -name '.pesc' -o -name 'pesc-*')" ] || fail "something was stored by: $*"
}

for n in 0 -5 abc 1e9 1000000001 '' 1.5; do
  refused "--repetitions '$n': give a whole number from 1 to 100000000" pesc run -n "$n" -- ./who
done
refused "'--repetition' is not a flag of \`pesc run\` (did you mean '--repetitions'?)" \
  pesc run --repetition 3 -- ./who
refused "go after \`--\`" pesc run --verbose -- ./who
refused "'runn' is not a command (did you mean 'run'?)" pesc runn -- ./who
refused "'x' was not expected before \`--\`" pesc run x -- ./who
refused "no program is named" pesc run -n 3
refused "no program is named" pesc run -n 3 --
refused "runs no program" pesc jobs -- ./who
refused "pesc status --help" pesc status
refused "Usage: pesc" pesc
refused "is one of args, env, none" pesc run --inject maybe -- ./who
refused "--retries '-1'" pesc run --retries -1 -- ./who
refused "is not a duration" pesc run --time-limit 5x -- ./who
refused "give a number of cores" pesc run --cpus 0 -- ./who
refused "is not an amount of bytes" pesc run --memory lots -- ./who
refused "--memory '8': that is 8 B, too little for any program: add a unit" pesc run --memory 8 -- ./who
refused "is not set here" pesc run --env PESC_E2E_UNSET -- ./who
refused "--workers" pesc run --workers 0 -- ./who
refused "there are 2 parameters" pesc run -n 3 --parameters a,b -- ./who '{parameters[rank]}'
refused "there is one for cpp" pesc header cobol
refused "there is bash and zsh" pesc completion fish

# What this process alone can never run is refused, not waited for.
refused "--cpus 3: a worker in this process has 2" pesc run --slots 2 --cpus 3 -- ./who
refused "--parallel: 1000 ranks of 1 cpus each run at the same time, but this process has room for 2" \
  pesc run -n 1000 --slots 2 --parallel -- ./who
refused "has room for 3" pesc run -n 4 --workers 3 --slots 2 --cpus 1.5 --parallel -- ./who
refused "with --same-worker one worker of this process has room for 2" \
  pesc run -n 4 --workers 2 --slots 2 --parallel --same-worker -- ./who
refused "--same-worker: it is for parallel jobs" pesc run --same-worker -- ./who
refused "--checkpoint-every: 10ms is too often" pesc run --checkpoint-every 10ms -- ./who
refused "--repetitions: a parallel job has at most" pesc run -n 100000 --parallel -- ./who
refused "rank 'x': give a number from 0" pesc logs last x
refused "rank '4294967296': give a number from 0" pesc logs last 4294967296
refused "--memory: this machine has" pesc run --memory 1000T -- ./who
refused "--room: rooms are a coordinator's" pesc run --room blue -- ./who

# The program.
mkdir folder
echo text >plain
refused "'./missing' cannot be read" pesc run -- ./missing
refused "is a directory" pesc run -- ./folder
refused "is not executable: chmod +x it" pesc run -- ./plain

# Files.
refused "'nofile' cannot be read" pesc run --file nofile -- ./who
refused "'nofile' cannot be read" pesc run --shared-file nofile -- ./who
refused "is a directory, not an archive: give it among the files" pesc run --archive folder -- ./who
refused "is a directory" pesc run --shared-file folder -- ./who
if [ "$(id -u)" -ne 0 ]; then
  echo secret >closed
  chmod 0 closed
  refused "closed" pesc run --file closed -- ./who
  rm -f closed
fi
ln -s .. folder/up
refused "contains itself through a link" pesc run --file folder -- ./who
rm folder/up
mkfifo folder/pipe
refused "neither a file nor a directory" pesc run --file folder -- ./who
rm folder/pipe

# Where results go.
mkdir full
echo x >full/x
expect 2 pesc run -o full -- ./who
says "is not empty"
expect 2 pesc run -o plain -- ./who
says "is not a directory"
if [ "$(id -u)" -ne 0 ]; then
  mkdir locked
  chmod 555 locked
  expect 2 pesc run -o locked/x -- ./who
  says "cannot be written"
fi

# The other way round: help and version are no errors.
expect 0 pesc --help
expect 0 pesc run --help
expect 0 pesc --version
prints "pesc "
for language in cpp python r java shell; do
  expect 0 pesc header $language
  [ -s "$WORK/out" ] || fail "no header for $language"
done
done_with_tests
