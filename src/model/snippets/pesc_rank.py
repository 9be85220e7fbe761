"""What PESC tells a rank. Put this file beside your program (it needs Python 3.6, nothing else):

    import pesc_rank
    pesc = pesc_rank.get()
    print(pesc.rank, pesc.world_size, pesc.parameters)
    pesc.progress(0.5, "half-way")
    with open(pesc.output_path("result.csv"), "w") as f: ...

Started by PESC, the values are those of the job. Started alone, they are those of the command line
(--rank 3 ...), else of the environment (PESC_RANK=3), else rank 0 of 1 in ".", with "./checkpoint"
and "./output", which are made when they are first asked for.
"""

import math
import os
import sys

_FLAGS = ("app_dir", "checkpoint_dir", "output_dir", "rank", "world_size", "master_addr",
          "master_port", "parameters")
_MASK = (1 << 64) - 1


def _seed_of(job_seed, rank):
    """The SplitMix64 finaliser, as PESC computes PESC_SEED."""
    z = (job_seed + (rank + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def _block(argv, app_dir):
    """Where the arguments that PESC added begin: they are the last ones."""
    for i in range(len(argv) - 14, -1, -1):
        if argv[i:i + 3] == ["--app_dir", app_dir, "--checkpoint_dir"]:
            return i
    return len(argv)


def _by_hand(argv):
    """(values, what is not PESC's) of a command line that a person wrote. Long flags only: -r and -o
    may be the program's own."""
    values, rest, i = {}, [], 0
    while i < len(argv):
        argument = argv[i]
        name, equals, value = argument[2:].partition("=")
        if argument == "--":
            rest += argv[i:]
            break
        if not argument.startswith("--") or name not in _FLAGS:
            name = None
        if name == "parameters":
            values[name] = [value] if equals else argv[i + 1:]
            if not equals:
                break
        elif name is None or (not equals and i + 1 == len(argv)):
            rest.append(argument)
        elif equals:
            values[name] = value
        else:
            i += 1
            values[name] = argv[i]
        i += 1
    return values, rest


class Rank:
    """One rank's view of its job; see get()."""

    def __init__(self, argv):
        env = os.environ.get
        self.job = env("PESC_JOB", "")
        self.alone = not self.job
        lines = env("PESC_PARAMETERS", "")
        parameters = lines.split("\n") if lines else []
        values, self.own_arguments = {}, list(argv)
        if self.alone:
            values, self.own_arguments = _by_hand(self.own_arguments)
        else:
            begin = _block(self.own_arguments, env("PESC_APP_DIR", "."))
            parameters = self.own_arguments[begin + 15:] or parameters
            self.own_arguments = self.own_arguments[:begin]

        def value(name, otherwise):
            return values.get(name) or env("PESC_" + name.upper()) or otherwise

        self.rank = int(value("rank", 0))
        self.world_size = int(value("world_size", 1))
        self.app_dir = value("app_dir", ".")
        self._checkpoint_dir = value("checkpoint_dir", "./checkpoint")
        self._output_dir = value("output_dir", "./output")
        self.master_addr = value("master_addr", "127.0.0.1")
        self.master_port = int(value("master_port", 9000))
        self.parameters = values.get("parameters", parameters)
        self.attempt = int(env("PESC_ATTEMPT") or 1)
        self.seed = int(env("PESC_SEED") or _seed_of(0, self.rank))
        self._events = env("PESC_EVENTS")
        self._last = (None, -1.0)

    def _made(self, directory):
        if self.alone:
            os.makedirs(directory, exist_ok=True)
        return directory

    @property
    def checkpoint_dir(self):
        """What is written here is there again when the rank is restarted."""
        return self._made(self._checkpoint_dir)

    @property
    def output_dir(self):
        """What is written here comes back."""
        return self._made(self._output_dir)

    def output_path(self, name):
        return os.path.join(self.output_dir, name)

    def _event(self, line):
        if not self._events:
            return
        line = "".join(c if c.isprintable() else " " for c in line) + "\n"
        with open(self._events, "ab", buffering=0) as events:
            events.write(line.encode("utf-8", "replace"))

    def progress(self, fraction, text=""):
        """How far the rank is, 0 to 1. Cheap: a thousandth more of the same is not written."""
        fraction = float(fraction)
        last_text, last = self._last
        if math.isnan(fraction):
            raise ValueError("progress: not a number; give a fraction from 0 to 1")
        if text == last_text and fraction < 1 and 0 <= fraction - last < 1e-3:
            return
        self._last = (text, fraction)
        self._event("progress %r %s" % (min(1.0, max(0.0, fraction)), text))

    def metric(self, name, value):
        """A number worth seeing while the job runs."""
        if not name or not math.isfinite(value):
            raise ValueError("metric: give a name and a finite number")
        self._event("metric %s %r" % ("_".join(str(name).split()), float(value)))

    def checkpoint_done(self):
        """checkpoint_dir is complete now: PESC may save it."""
        self._event("checkpoint")

    def save_checkpoint(self, name, data):
        """Saves bytes as checkpoint_dir/name, whole or not at all."""
        path = os.path.join(self.checkpoint_dir, name)
        with open(path + ".tmp", "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(path + ".tmp", path)
        directory = os.open(self.checkpoint_dir, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self.checkpoint_done()

    def load_checkpoint(self, name):
        """The bytes saved under that name, or None at a fresh start."""
        try:
            with open(os.path.join(self.checkpoint_dir, name), "rb") as f:
                return f.read()
        except FileNotFoundError:
            return None


_rank = None


def get(strip_arguments=False):
    """The rank this process is. strip_arguments takes PESC's arguments out of sys.argv, so that
    argparse and others never meet them."""
    global _rank
    if _rank is None:
        _rank = Rank(sys.argv[1:])
    if strip_arguments:
        sys.argv[1:] = _rank.own_arguments
    return _rank
