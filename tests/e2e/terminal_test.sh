# On a terminal: a bar with counts that is redrawn in its line, and a last line that is right.
. "$(dirname "$0")/lib.sh"
gates started gate
script rank '[ "$PESC_RANK" -lt 3 ] || { echo "$PESC_RANK" >"'"$WORK"'/started"; read line <"'"$WORK"'/gate"; }
echo "$PESC_RANK"'
script failing '[ "$PESC_RANK" -ne 1 ]'

cat >terminal.py <<'P'
import fcntl, os, pty, re, struct, subprocess, sys, termios
work = sys.argv[1]

class Screen:
    """What a terminal shows: lines, \\r and erasing to the end of the line."""
    def __init__(self):
        self.lines, self.column, self.seen = [""], 0, []
    def write(self, text):
        for part in re.findall(r"\x1b\[K|\r|\n|[^\x1b\r\n]+", text):
            if part == "\r":
                self.column = 0
            elif part == "\n":
                self.lines.append("")
                self.column = 0
            elif part == "\x1b[K":
                self.lines[-1] = self.lines[-1][:self.column]
                self.seen.append(self.lines[-1])
            else:
                line = self.lines[-1]
                self.lines[-1] = line[:self.column] + part + line[self.column + len(part):]
                self.column += len(part)

def run(columns, *command, until=None, then=None):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(["pesc", "run", *command], stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    screen = Screen()
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # nobody has the terminal any more
            break
        screen.write(data.decode())
        if until and any(until in line for line in screen.seen):
            until = None
            then()
    os.close(master)
    return process.wait(), screen

def check(condition, what, screen):
    if not condition:
        print("FAILED:", what, *screen.lines, *screen.seen, sep="\n  ", file=sys.stderr)
        sys.exit(1)

def release():
    for _ in range(2):
        open(work + "/started").readline()
        open(work + "/gate", "w").write("go\n")

# Three ranks end, the others wait for us to have seen that.
code, screen = run(100, "-n", "5", "--slots", "1", "-o", "r", "--", "./rank",
                   until="3/5 ranks", then=release)
check(code == 0, "exit code", screen)
three = re.compile(r"\[#{18}\.{12}\]  60% 3/5 ranks, \d running(, [0-9.]+/s, ETA \S+)?")
check(any(three.fullmatch(line) for line in screen.seen), "the bar at three of five", screen)
drawn = [line for line in screen.lines if line.startswith("[")]
check(len(drawn) == 1, "the bar is drawn in one line", screen)
check(re.fullmatch(r"\[#{30}\] 100% 5/5 ranks(, [0-9.]+/s)?", drawn[0]), "the last bar", screen)
check(re.fullmatch(r"pesc: 5 of 5 ranks succeeded in .*; results in r", screen.lines[-2]),
      "the last line", screen)
check(screen.lines[-1] == "", "the cursor is left where a line begins", screen)

# A narrow one: never wider than the terminal, so that no line is left behind.
code, screen = run(24, "-n", "2", "-o", "narrow", "--", "true")
bars = [line for line in screen.seen if " ranks" in line]
check(code == 0 and bars and all(len(bar) < 24 for bar in bars), "a narrow terminal", screen)
check(sum("2/2 ranks" in line for line in screen.lines) == 1, "drawn once", screen)

# Failures are counted in it.
code, screen = run(80, "-n", "3", "-o", "failed", "--", "./failing")
check(code == 1, "exit code of a failure", screen)
check(any("3/3 ranks, 1 failed" in line for line in screen.lines), "failures", screen)
P
timeout 120 python3 terminal.py "$WORK" || fail "the terminal"
done_with_tests
