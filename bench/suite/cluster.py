"""A coordinator and workers of the programs that users get, and the jobs that are given to them."""
import json
import os
import pathlib
import re
import shutil
import time

HZ = os.sysconf("SC_CLK_TCK")


def cpu_s(pid, children=False):
    """Processor time of a process, and of those it has waited for."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(int(fields[i]) for i in ((13, 14) if children else (11, 12))) / HZ


def memory_kib(pid, key="VmRSS"):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    return 0


def reset_peak(pid):
    try:
        pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        pass


class Cluster:
    """Use as a context: `with Cluster(bench, slots=2) as cluster`."""
    count = 0

    def __init__(self, bench, slots=2, workers=1, scratch=None, worker_options=(),
                 coordinator_options=()):
        Cluster.count += 1
        self.bench, self.slots = bench, slots
        self.name = f"cluster{Cluster.count}"
        self.dir = bench.work / self.name
        self.dir.mkdir(mode=0o711)
        self.in_memory = None
        self.scratch = scratch
        self.number_of_workers = workers
        self.worker_options, self.coordinator_options = worker_options, coordinator_options
        self.workers, self.keepers = [], []
        self.rate = 0.0  # as last seen, to know when asking is worth its while

    def __enter__(self):
        try:
            self.start_coordinator("127.0.0.1:0")
            for number in range(self.number_of_workers):
                self.start_worker(f"w{number + 1}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in [*self.workers, self.coordinator]:
            self.bench.end(process, 10)
        for pid in self.keepers:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass
        for each in (self.dir, self.in_memory):
            if each and not os.environ.get("PESC_BENCH_KEEP"):
                shutil.rmtree(each, ignore_errors=True)

    def start_coordinator(self, address):
        name = f"{self.name}-coordinator"
        before = self.bench.log(name).count("listening on")
        self.coordinator = self.bench.start(
            name, self.bench.bin / "pesc-coordinator", "--listen", address, "--state",
            self.dir / "coordinator", *self.coordinator_options)
        self.bench.until(lambda: self.bench.log(name).count("listening on") > before, 60,
                         f"the coordinator does not start ({self.bench.work}/{name}.log)")
        self.address = re.findall(r"listening on ([0-9.]+:\d+)", self.bench.log(name))[-1]

    def start_worker(self, name, options=()):
        log = f"{self.name}-{name}"
        state = self.dir / name
        where = []
        if self.scratch == "tmpfs":
            self.in_memory = self.bench.memory / self.name
            self.in_memory.mkdir(mode=0o711, exist_ok=True)
            if self.has_scratch_option():
                where = ["--scratch", self.in_memory]
            else:  # all of the worker's state; the journal is the coordinator's
                state = self.in_memory / name
        elif self.scratch == "disk" and self.has_scratch_option():
            (self.dir / f"{name}-scratch").mkdir(mode=0o711)
            where = ["--scratch", self.dir / f"{name}-scratch"]
        worker = self.bench.start(
            log, self.bench.bin / "pesc-worker", "--coordinator", self.address, "--name", name,
            "--state", state, "--cpus", str(self.slots), *where, *self.worker_options, *options)
        self.workers.append(worker)
        self.bench.until(lambda: "event=attached" in self.bench.log(log), 60,
                         f"the worker {name} does not attach ({self.bench.work}/{log}.log)")
        self.keepers.append(self._keeper_of(state))
        return worker

    def has_scratch_option(self):
        return "--scratch" in self.bench.run(self.bench.bin / "pesc-worker", "--help")

    def _keeper_of(self, state):
        listing = self.bench.run("ss", "-xlpH", "src", state / "keeper.sock", check=False)
        found = re.search(r'"pesc-keeper",pid=(\d+)', listing)
        if found:
            return int(found.group(1))
        raise self.bench.PeerFailed(f"the worker at {state} has no keeper (is iproute2 installed?)")

    # ---- jobs ---------------------------------------------------------------------------------------

    def pesc(self, *arguments, **more):
        return self.bench.run(self.bench.bin / "pesc", *arguments,
                              env={"PESC_COORDINATOR": self.address}, **more)

    def submit(self, ranks, *command, options=(), cwd=None):
        return self.pesc("submit", "-n", ranks, *options, "--", *command, cwd=cwd).strip()

    def wait(self, job, ranks, limit_s=600):
        """The job's status when it is over. It is asked for when it may be: asking takes processor
        time that the ranks want."""
        begin = time.monotonic()
        if self.rate:
            time.sleep(0.95 * ranks / self.rate)
        pause = 0.02
        while True:
            status = json.loads(self.pesc("status", job, "--json"))
            if status["state"] not in ("waiting", "running"):
                break
            if time.monotonic() - begin > limit_s:
                raise self.bench.PeerFailed(f"a job of {ranks} ranks is not over after {limit_s} s")
            time.sleep(pause)
            pause = min(pause * 1.3, 0.5)
        if status["state"] != "succeeded" or status["succeeded"] != ranks:
            why = self.pesc("why", job, check=False).strip()
            raise self.bench.PeerFailed(f"a job of {ranks} ranks ended as {status['state']}: {why[:300]}")
        return status

    def rate_of(self, ranks, *command, options=(), cwd=None):
        """Ranks a second from the job's arrival to its last rank's commit, by the coordinator's
        clock: neither the start of a client's process nor its asking counts."""
        job = self.submit(ranks, *command, options=options, cwd=cwd)
        status = self.wait(job, ranks)
        seconds = max(status["finished_unix_ms"] - status["submitted_unix_ms"], 1) / 1000
        self.rate = ranks / seconds
        return self.rate

    def cpu(self):
        """Processor seconds so far, by process: what ranks and their reapers used is 'children'."""
        return {"coordinator": cpu_s(self.coordinator.pid),
                "workers": sum(cpu_s(each.pid) for each in self.workers),
                "keepers": sum(cpu_s(pid) for pid in self.keepers),
                "children": sum(cpu_s(pid, True) for pid in self.keepers)}
