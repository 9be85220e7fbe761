"""The coordinator alone: what a rank costs it, what a submission takes, and many clients."""
import json
import statistics
import subprocess

from suite.cluster import Cluster, memory_kib
from suite.measure import Bound, Curve, Target
from suite.registry import benchmark


class Alone(Cluster):
    """A coordinator without workers of its own."""

    def __init__(self, bench):
        super().__init__(bench, workers=0, coordinator_options=("--log-level", "warn"))

    def load(self, program, *arguments, timeout=300):
        return json.loads(self.bench.run(self.bench.built(program), "--coordinator", self.address,
                                         "--pid", self.coordinator.pid, *arguments, timeout=timeout))


def rows(bench, name, count, batch):
    program = bench.compile("sqlite_rows.c", "-lsqlite3")
    directory = bench.work / f"rows-{name}"
    directory.mkdir(exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    return json.loads(bench.run(program, directory / "rows.db", count, batch))


def _one_load(bench, workers, ranks, until=0, limit=60, cpus=8):
    """Of a coordinator of its own each time: what one has kept is no burden for the next."""
    with Alone(bench) as cluster:
        seen = cluster.load("coordinator_load", "--workers", workers, "--ranks", ranks, "--until",
                            until, "--limit", limit, "--cpus", cpus)
    seen["us"] = seen["cpu_s"] / seen["done"] * 1e6
    return seen


@benchmark("coordinator_alone", "Coordinator alone: workers that answer without spawning, durable")
def coordinator_alone(bench, result):
    few, many = 100, 1000 if bench.quick else 10_000
    ranks = 20_000 if bench.quick else 1_000_000
    limit = 5 if bench.quick else 20
    rounds = 1 if bench.quick else max(1, min(bench.runs, 3))
    curves = Curve("Coordinator's CPU per rank, by workers", "workers", "µs", [])
    series = {}
    for workers in (few, many):
        name = f"PESC, {workers:,} workers"
        series[workers] = result.add(name, "pesc", "ranks/s of one core")
        result.add(name + ": by the clock", "pesc", "ranks/s")
    batches = result.add("SQLite, batches of 100 rows, fsynced", "reference", "rows/s of one core")
    clock = result.add("SQLite, batches of 100 rows, fsynced: by the clock", "reference", "rows/s")
    for number in range(rounds):
        for workers in (few, many):
            try:
                seen = _one_load(bench, workers, ranks, limit=limit)
            except bench.PeerFailed as error:  # the other number of workers is worth knowing
                result.failure = f"failed: {workers:,} workers: {error}"
                continue
            series[workers].values.append(1e6 / seen["us"])
            result.find(f"PESC, {workers:,} workers: by the clock").values.append(
                seen["done"] / seen["wall_s"])
            curves.points.append(("PESC", workers, seen["us"]))
            bench.progress(f"coordinator_alone: {workers} workers: {seen['us']:.1f} µs of CPU for each "
                           f"of {seen['done']:,} ranks")
            if number == 0:
                series[workers].notes.append(
                    f"{seen['done']:,} of {ranks:,} ranks in {seen['wall_s']:.1f} s, "
                    f"{seen['ranks_per_report']:.1f} in a report; the workers' side used "
                    f"{seen['driver_cpu_s'] / seen['done'] * 1e6:.1f} µs each; attached after "
                    f"{seen['attach_s']:.1f} s")
        count = 100_000 if bench.quick else 500_000
        reference = rows(bench, "batches", count, 100)
        batches.values.append(count / reference["cpu_s"])
        clock.values.append(reference["rows_s"])
    ours = f"PESC, {few:,} workers"
    result.targets += [Bound(ours, at_least=50_000),
                       Bound(f"PESC, {many:,} workers", at_least=50_000),
                       Target(ours, at_least=0.8, of=f"PESC, {many:,} workers"),
                       Target(batches.name, of=ours)]
    result.curves.append(curves)
    result.notes.append("Ranks/s of one core: ranks by processor seconds of the coordinator, all its "
                        "threads together. Each worker has 8 cpus.")


@benchmark("coordinator_queued", "Coordinator alone: growth with queued ranks, bytes per rank not started")
def coordinator_queued(bench, result):
    sizes = [10_000, 100_000, 1_000_000] + ([] if bench.quick else [10_000_000])
    # Nearly all of the smallest job; and few workers, so that hardly any more has been leased by then.
    until = 9_500
    curve = Curve("Coordinator's CPU for each of the first ranks, by how many were submitted",
                  "ranks submitted", "µs", [])
    smallest = result.add("first ranks of 10,000", "reference", "µs")
    largest = result.add(f"first ranks of {sizes[-1]:,}", "pesc", "µs")
    for _ in range(1 if bench.quick else min(bench.runs, 3)):
        for size in sizes:
            seen = _one_load(bench, 5, size, until=until, limit=30, cpus=4)
            curve.points.append(("PESC", size, seen["us"]))
            for one, wanted in ((smallest, sizes[0]), (largest, sizes[-1])):
                if size == wanted:
                    one.values.append(seen["us"])
    result.curves.append(curve)
    result.targets.append(Target(smallest.name, at_most=1.2, of=largest.name))
    memory = result.add("memory for each rank not started", "pesc", "bytes")
    with Alone(bench) as cluster:
        cluster.submit(10, "/bin/true", options=["--no-auto-files"])
        before = memory_kib(cluster.coordinator.pid)
        for size in sizes:
            cluster.submit(size, "/bin/true", options=["--no-auto-files"])
        total = sum(sizes)
        memory.values.append((memory_kib(cluster.coordinator.pid) - before) * 1024 / total)
        memory.notes.append(f"{len(sizes)} jobs of together {total:,} ranks")
    result.targets.append(Bound(memory.name, at_most=100))


@benchmark("submit_million", "submit() of 1,000,000 ranks until acknowledged")
def submit_million(bench, result):
    times = 10 if bench.quick else 30
    ours = result.add("submit of 1,000,000 ranks", "pesc", "ms")
    small = result.add("submit of 10 ranks", "pesc", "ms")
    commit = result.add("one fsynced commit", "reference", "ms")
    with Alone(bench) as cluster:
        for _ in range(bench.runs):
            for one, ranks in ((ours, 1_000_000), (small, 10)):
                seen = cluster.load("client_load", "submit", "--ranks", ranks, "--times", times)
                one.values.append(seen["median_ms"])
            commit.values.append(rows(bench, "commit", times, 1)["commit_ms"])
    result.targets += [Target(commit.name, at_most=3, of=ours.name),
                       Target(commit.name, of=small.name), Target(small.name, of=ours.name)]
    result.notes.append("By a client that is logged in; each round's figure is the median of "
                        f"{times}. Each job is cancelled before the next one is submitted.")


@benchmark("first_instruction", "From submission to the first instruction of rank 0, idle cluster")
def first_instruction(bench, result):
    program = bench.compile("first_instruction.c", "-static")
    times = 30 if bench.quick else 100
    all_ours, all_bare = [], []
    ours = result.add("submit to first instruction, median", "pesc", "ms")
    bare = result.add("posix_spawn to first instruction, median", "reference", "ms")
    with Cluster(bench, bench.options.slots) as cluster:
        for number in range(bench.runs):
            seen = json.loads(bench.run(
                bench.built("client_load"), "--coordinator", cluster.address, "first", "--program",
                program, "--fifo", bench.work / f"first-{number}", "--times", times))
            ours.values.append(statistics.median(seen["submitted"]))
            bare.values.append(statistics.median(seen["spawned"]))
            all_ours += seen["submitted"]
            all_bare += seen["spawned"]

    def percentile(values, share):
        return sorted(values)[min(len(values) - 1, int(share * len(values)))]
    more = result.add("above posix_spawn, p50", "pesc", "ms",
                      [a - b for a, b in zip(ours.values, bare.values)])
    tail = result.add("above posix_spawn, p99", "pesc", "ms",
                      [percentile(all_ours, 0.99) - percentile(all_bare, 0.99)])
    result.targets += [Bound(more.name, at_most=2), Bound(tail.name, at_most=10)]
    result.notes.append(f"{len(all_ours)} of each, in turn, 30 ms apart; p99 {percentile(all_ours, 0.99):.2f} "
                        f"ms beside {percentile(all_bare, 0.99):.2f} ms. Two of the commits that users get "
                        "(the job's, the lease's) are in it.")


@benchmark("clients", "Many clients at once, each asking status and submitting one-rank jobs")
def clients(bench, result):
    counts = [25, 400] if bench.quick else [25, 100, 400, 1600, 3200]
    seconds = 1 if bench.quick else 3
    program = bench.built("client_load")
    rate_curve = Curve("Calls per second, by clients", "clients", "calls/s", [])
    cpu_curve = Curve("Coordinator's CPU per call, by clients", "clients", "µs", [])
    series = {count: result.add(f"{count:,} clients", "pesc" if count == counts[-1] else "reference",
                                "calls/s") for count in counts}
    memory = result.add("memory for each client", "pesc", "KiB")
    for number in range(min(bench.runs, 3)):
        for count in (counts if number % 2 == 0 else counts[::-1]):
            with Alone(bench) as cluster:
                before = memory_kib(cluster.coordinator.pid)
                process = subprocess.Popen(
                    [program, "--coordinator", cluster.address, "--pid", str(cluster.coordinator.pid),
                     "clients", "--clients", str(count), "--seconds", str(seconds)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=bench.environment)
                bench.processes.append(process)
                line = process.stdout.readline()
                if not line:
                    raise bench.PeerFailed(f"{count} clients: {process.wait()}")
                seen = json.loads(line)
                if count == counts[-1]:
                    memory.values.append((memory_kib(cluster.coordinator.pid) - before) / count)
                process.communicate("\n", timeout=60)
            series[count].values.append(seen["calls"] / seen["wall_s"])
            rate_curve.points.append(("PESC", count, seen["calls"] / seen["wall_s"]))
            cpu_curve.points.append(("PESC", count, seen["cpu_s"] / seen["calls"] * 1e6))
            bench.progress(f"clients: {count}: {seen['calls'] / seen['wall_s']:,.0f} calls/s, "
                           f"{seen['cpu_s'] / seen['calls'] * 1e6:.0f} µs of coordinator's CPU each")
    result.curves += [rate_curve, cpu_curve]
    result.targets.append(Target(f"{counts[0]:,} clients", at_least=0.95, of=f"{counts[-1]:,} clients"))
    result.notes.append("Half the calls submit a job (durable), half ask for its status; four workers "
                        "that start nothing take the jobs. One process has all clients. Memory: the "
                        "coordinator's, the jobs that were submitted meanwhile included.")
