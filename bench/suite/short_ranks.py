"""Ranks so short that what surrounds them counts: no-ops with and without output, and 10 ms."""
import os
import pathlib

from suite import peers
from suite.cluster import Cluster
from suite.measure import Contender, Target, compete
from suite.registry import benchmark


class Ours:
    """PESC as a contender, with what its processes used for a rank."""

    def __init__(self, bench, cluster, command, options=(), cwd=None):
        self.bench, self.cluster, self.command = bench, cluster, command
        self.options, self.cwd = options, cwd
        self.used, self.ranks = {}, 0

    def run(self, ranks):
        before = self.cluster.cpu()
        rate = self.cluster.rate_of(ranks, *self.command, options=self.options, cwd=self.cwd)
        for name, value in self.cluster.cpu().items():
            self.used[name] = self.used.get(name, 0.0) + value - before[name]
        self.ranks += ranks
        return rate

    def note(self):
        each = ", ".join(f"{name} {value * 1e6 / max(self.ranks, 1):.0f}"
                         for name, value in self.used.items())
        return f"µs of CPU per rank: {each} (the ranks and their reapers)"


def spawn_loop(bench, slots, command, directory=None, journal=None):
    program = bench.compile("spawn_loop.c", "-pthread", "-lsqlite3")
    where = ["-d", directory] if directory else []
    if journal:
        where += ["-j", journal]

    def run(count):
        for leftover in pathlib.Path(journal).parent.glob("loop.db*") if journal else ():
            leftover.unlink()
        return float(bench.run(program, *where, count, slots, *command))
    return run


def xargs(bench, slots, command):
    def run(count):
        numbers = "\n".join(str(i) for i in range(count))
        # The numbers are arguments, as one gives them; none is read.
        return peers.timed(count, lambda: bench.run("xargs", f"-P{slots}", "-n1", *command,
                                                    input=numbers))
    return run


def _noop_4k(bench, result, scratch):
    if scratch == "tmpfs" and not bench.memory:
        raise bench.Unavailable("no tmpfs to write to")
    slots = bench.options.slots
    program = bench.compile("small_output.c", "-static")
    base = bench.work if scratch == "disk" else bench.memory
    directory = base / f"loop-{scratch}"
    directory.mkdir()
    journal = bench.work / f"journal-{scratch}" / "loop.db"
    journal.parent.mkdir()
    with Cluster(bench, slots, scratch=scratch) as cluster:
        ours = Ours(bench, cluster, ["./small_output"], ["--no-second-attempts"], program.parent)
        contenders = [
            Contender("PESC", "pesc", ours.run),
            Contender("bare loop, durable", "reference",
                      spawn_loop(bench, slots, [program], directory, journal)),
        ]
        if bench.peers:
            contenders += [
                Contender("Work Queue", "peer",
                          peers.WorkQueue(bench, slots, base / "wq").command(program)),
                Contender("GNU parallel --results", "peer",
                          peers.parallel(bench, slots, [program], base / "parallel")),
                Contender("Slurm array", "peer", peers.slurm(bench, slots).array(program, base), 60, 200),
            ]
        compete(bench, result, contenders, bench.seconds)
        result.find("PESC").notes.append(ours.note())
        if scratch == "tmpfs" and not cluster.has_scratch_option():
            result.notes.append("This pesc-worker has no --scratch: its whole state was on tmpfs.")
    result.notes.append("Journals are on disk. 4 KiB of output of each rank are durable at PESC and in "
                        "the loop, at no peer.")
    result.targets += [Target("bare loop, durable", at_least=0.9 if scratch == "disk" else 0.8)]
    if bench.peers:
        least = 1.6 if scratch == "disk" else 2.3
        result.targets += [Target("Work Queue", at_least=least),
                           Target("GNU parallel --results", at_least=least),
                           Target("Slurm array", at_least=least)]
        result.notes.append("TaskVine and Flux are not packaged in Debian 12.")


@benchmark("noop_4k_disk", "No-op ranks, 4 KiB returned, attempts' directories on disk")
def noop_4k_disk(bench, result):
    _noop_4k(bench, result, "disk")


@benchmark("noop_4k_tmpfs", "No-op ranks, 4 KiB returned, attempts' directories on tmpfs")
def noop_4k_tmpfs(bench, result):
    _noop_4k(bench, result, "tmpfs")


@benchmark("true_nothing", "/bin/true, nothing returned, durable")
def true_nothing(bench, result):
    slots = bench.options.slots
    journal = bench.work / "journal-true" / "loop.db"
    journal.parent.mkdir()
    command = ["/bin/true"]
    with Cluster(bench, slots) as cluster:
        ours = Ours(bench, cluster, command,
                    ["--inject", "none", "--no-auto-files", "--no-second-attempts"])
        contenders = [
            Contender("PESC", "pesc", ours.run),
            Contender("durable loop, no directories", "reference",
                      spawn_loop(bench, slots, command, journal=journal)),
            Contender("spawn alone", "reference", spawn_loop(bench, slots, command)),
            Contender(f"xargs -P{slots}", "reference", xargs(bench, slots, command)),
        ]
        if bench.peers:
            contenders += [
                Contender("Gearman", "peer", peers.Gearman(bench, slots).run),
                Contender("Gearman, durable queue", "peer", peers.Gearman(bench, slots, True).run),
                Contender("Work Queue", "peer",
                          peers.WorkQueue(bench, slots, bench.work / "wq-true").command("/bin/true")),
                Contender("Dask distributed", "peer", peers.Dask(bench, slots).run),
                Contender("GNU parallel", "peer", peers.parallel(bench, slots, command)),
                Contender("Open MPI mpirun", "peer", peers.mpirun(bench, command), 16),
            ]
        compete(bench, result, contenders, bench.seconds)
        result.find("PESC").notes.append(ours.note())
    result.targets += [Target("durable loop, no directories", at_least=0.75),
                       Target("spawn alone"), Target(f"xargs -P{slots}")]
    if bench.peers:
        result.targets += [Target("Work Queue", at_least=2), Target("Gearman, durable queue", at_least=2.5),
                           Target("Gearman"), Target("Dask distributed"), Target("GNU parallel"),
                           Target("Open MPI mpirun")]


@benchmark("ten_ms", "Ranks of 10 ms of CPU")
def ten_ms(bench, result):
    slots = bench.options.slots
    program = bench.compile("burn.c", "-static")
    directory = bench.work / "loop-ten"
    directory.mkdir()
    journal = bench.work / "journal-ten" / "loop.db"
    journal.parent.mkdir()
    command = [program, "10"]
    with Cluster(bench, slots) as cluster:
        ours = Ours(bench, cluster, ["./burn", "10"], ["--no-second-attempts"], program.parent)
        contenders = [
            Contender("PESC", "pesc", ours.run, 50),
            Contender(f"xargs -P{slots}", "reference", xargs(bench, slots, command), 50),
            Contender("bare loop, durable, with directories", "reference",
                      spawn_loop(bench, slots, command, directory, journal), 50),
        ]
        if bench.peers:
            contenders += [
                Contender("GNU parallel", "peer", peers.parallel(bench, slots, command), 50),
                Contender("Work Queue", "peer",
                          peers.WorkQueue(bench, slots, bench.work / "wq-ten").command(f"{program} 10"),
                          50),
            ]
        compete(bench, result, contenders, bench.seconds)
        result.find("PESC").notes.append(ours.note())
    result.targets += [Target(f"xargs -P{slots}", at_least=0.97),
                       Target("bare loop, durable, with directories")]
    if bench.peers:
        result.targets += [Target("GNU parallel"), Target("Work Queue")]
    if slots > (os.cpu_count() or 1):
        result.notes.append("More slots than processors: the figures say little.")
