# The shells' completion: loaded, and asked, in each shell that there is.
. "$(dirname "$0")/lib.sh"
expect 0 pesc completion bash
cp "$WORK/out" completion.bash
expect 0 pesc completion zsh
cp "$WORK/out" completion.zsh

# offers EXPECTED WORDS...: what bash completes the last of them to.
cat >complete.bash <<'S'
. ./completion.bash
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
_pesc
printf '%s\n' "${COMPREPLY[@]}"
S
offers() {
  want=$1
  shift
  equal "$(bash complete.bash "$@" 2>&1 | sort | tr '\n' ' ' | sed 's/ $//')" "$want" "$*"
}
bash -n completion.bash || fail "bash does not read its completion"
offers "stats status" pesc stat
offers "--repetitions --resource --resume --retries" pesc run --re
offers "args env none" pesc run --inject ""
offers "bash zsh" pesc completion ""
offers "user worker" pesc join-file ""
touch some-file
offers "some-file" pesc run -- some
coordinator
expect 0 pesc submit --coordinator "$ADDRESS" -- true
offers "$(cat "$WORK/out") last" pesc status ""

# zsh reads bash's by its own layer: the same function, after lines of its own.
sed -n '/^_pesc()/,$p' completion.zsh >body.zsh
sed -n '/^_pesc()/,$p' completion.bash >body.bash
same body.zsh body.bash
grep -q bashcompinit completion.zsh || fail "zsh needs its layer for bash's completion"
if command -v zsh >/dev/null; then
  zsh -n completion.zsh || fail "zsh does not read its completion"
  # At a prompt, with nothing set up by the user: TAB completes.
  cat >prompt.py <<'P'
import os, pty, re
pid, master = pty.fork()
if pid == 0:
    os.environ.update(TERM="dumb", PS1="ready> ", ZDOTDIR=os.getcwd())
    os.execvp("zsh", ["zsh", "-f", "-i"])
seen = ""
def until(pattern):
    while not re.search(pattern, seen):
        hear(os.read(master, 4096))
def hear(data):
    global seen
    if not data:
        raise SystemExit("zsh ended: " + seen)
    seen += data.decode(errors="replace")
def enter(text):
    global seen
    seen = ""
    os.write(master, text.encode())
until("ready> ")
enter("PS1='go> '; source ./completion.zsh && echo load''ed\n")
until(r"loaded[\r\n]+[^\n]*go> ")
for typed, completed in (("pesc wor\t", "pesc workers"), ("pesc run --rep\t", "--repetitions"),
                         ("pesc header cp\t", "header cpp")):
    enter(typed)
    until(re.escape(completed))
    enter("\x15")  # the line is given up
enter("exit\n")
os.waitpid(pid, 0)
print("completed")
P
  equal "$(timeout 60 python3 prompt.py 2>&1)" completed "zsh completes"
fi
done_with_tests
