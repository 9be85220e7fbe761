"""Where a run of the benchmarks happens: directories, compiled programs, processes; and its end."""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

REPO = pathlib.Path(__file__).resolve().parent.parent.parent


class PeerFailed(Exception):
    """A contender could not do what it was asked; the message says why."""


class Unavailable(Exception):
    """A benchmark cannot be had here; the message says what is missing."""


class Place:
    """One run's temporary directories (on disk and on tmpfs), programs and processes."""
    PeerFailed = PeerFailed
    Unavailable = Unavailable

    def __init__(self, options):
        self.options = options
        self.quick, self.runs, self.peers = options.quick, options.runs, options.peers
        self.bin = self._find_programs()
        base = os.environ.get("PESC_BENCH_DIR", "/var/tmp")
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="pesc-bench.", dir=base))
        self.memory = None
        self._memory_of_its_own()
        for each in (self.work, self.memory):
            if each:
                each.chmod(0o711)  # a worker of root runs ranks as another user, who must get through
        self.processes = []
        self.compiled = {}
        self.environment = self._environment()

    def _find_programs(self):
        named = os.environ.get("PESC_BIN")
        folder = pathlib.Path(named) if named else REPO / "build" / "release" / "bin"
        if not named and not self.options.no_build:
            self.progress("building (release); PESC_BIN names a folder of programs instead")
            subprocess.run([REPO / "scripts" / "build", "release", "pesc-cli", "pesc-coordinator",
                            "pesc-worker"], check=True)
        for program in ("pesc", "pesc-coordinator", "pesc-worker"):
            if not (folder / program).is_file():
                sys.exit(f"scripts/bench: no {program} in {folder}: run ./scripts/build release, or "
                         "name the programs' folder by PESC_BIN")
        return folder.resolve()

    def _memory_of_its_own(self):
        try:
            self.memory = pathlib.Path(tempfile.mkdtemp(prefix="pesc-bench.", dir="/dev/shm"))
        except OSError:
            self.progress("no /dev/shm to write to: nothing is measured on tmpfs")

    def _environment(self):
        """This user's own coordinators, tokens and settings are not to be found, nor changed."""
        home = self.work / "home"
        home.mkdir()
        environment = {key: value for key, value in os.environ.items()
                       if key not in ("PESC_COORDINATOR", "PESC_JOIN_FILE", "XDG_STATE_HOME",
                                      "XDG_CONFIG_HOME")}
        environment["HOME"] = str(home)
        return environment

    # ---- words ------------------------------------------------------------------------------------

    @staticmethod
    def progress(text):
        print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)

    # ---- programs ---------------------------------------------------------------------------------

    def compile(self, source, *flags):
        """A C or C++ program of one file, of bench/ or at an absolute path, compiled once."""
        key = (source, flags)
        if key not in self.compiled:
            path = REPO / "bench" / source  # an absolute path stays as it is
            out = self.work / path.stem
            compiler = ["c++", "-std=c++20"] if path.suffix == ".cc" else ["cc"]
            done = subprocess.run([*compiler, "-O2", "-o", out, path, *flags], capture_output=True,
                                  text=True)
            if done.returncode != 0:
                raise PeerFailed(f"{source} does not compile: {done.stderr.strip()[-400:]}")
            self.compiled[key] = out
        return self.compiled[key]

    def built(self, target, folder="bench"):
        """A C++ program of the build that the programs come from (bench/CMakeLists.txt)."""
        program = self.bin.parent / folder / target
        if not program.is_file() or not self.options.no_build:
            if target in self.compiled:
                return program
            done = subprocess.run(["cmake", "--build", self.bin.parent, "--target", target],
                                  capture_output=True, text=True)
            self.compiled[target] = program
            if done.returncode != 0 or not program.is_file():
                raise Unavailable(f"{target} is not built: {(done.stdout + done.stderr).strip()[-300:]}")
        return program

    def run(self, *command, timeout=600, cwd=None, check=True, **more):
        """Its standard output; PeerFailed, with the end of its standard error, when it fails."""
        environment = {**self.environment, **more.pop("env", {})}
        try:
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                                  env=environment, cwd=cwd or self.work, timeout=timeout, **more)
        except FileNotFoundError:
            raise PeerFailed(f"there is no {command[0]}") from None
        except subprocess.TimeoutExpired:
            raise PeerFailed(f"{command[0]} did not end within {timeout} s") from None
        if check and done.returncode != 0:
            raise PeerFailed(f"{pathlib.Path(str(command[0])).name} failed ({done.returncode}): "
                             f"{(done.stderr or done.stdout).strip()[-400:]}")
        return done.stdout

    def start(self, name, *command, env=None, cwd=None):
        """A process in the background; its output goes to NAME.log."""
        log = open(self.work / f"{name}.log", "ab")
        process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log,
                                   stdin=subprocess.DEVNULL, cwd=cwd or self.work,
                                   env={**self.environment, **(env or {})})
        log.close()
        self.processes.append(process)
        return process

    def log(self, name):
        path = self.work / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @staticmethod
    def until(true, seconds, what):
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                raise PeerFailed(f"{what} within {seconds} s")
            time.sleep(0.02)

    def end(self, process, seconds=30):
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    # ---- the end ----------------------------------------------------------------------------------

    def _with_our_name(self):
        """Processes whose command line names our directories, which nobody else's does: keepers."""
        names = [str(each).encode() for each in (self.work, self.memory) if each]
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if any(name in line for name in names):
                yield int(entry.name)

    def close(self):
        for process in reversed(self.processes):
            self.end(process, 5)
        for pid in self._with_our_name():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for each in (self.work, self.memory):
            if each and os.environ.get("PESC_BENCH_KEEP"):
                self.progress(f"kept: {each}")
            elif each:
                shutil.rmtree(each, ignore_errors=True)
