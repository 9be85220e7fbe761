"""Bulk: shared files, large outputs, many small ones; and a coordinator that starts again."""
import json
import re
import shutil
import signal
import time

from suite.cluster import Cluster, cpu_s, memory_kib
from suite.coordinator import Alone
from suite.measure import Bound, Curve, Target
from suite.peers import free_port
from suite.registry import benchmark
from suite.short_ranks import spawn_loop


def _size_mib(bench):
    if bench.options.full_size:
        return 4096
    return 64 if bench.quick else 512


def _timed(work):
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def _copy(bench, source, to):
    """cp, and what it wrote on the disk."""
    seconds = _timed(lambda: (bench.run("cp", source, to), bench.run("sync", to)))
    to.unlink()
    return seconds


def _send(bench, source, to):
    """socat over loopback TCP into a file, and that on the disk."""
    if not shutil.which("socat"):
        raise bench.Unavailable("socat is not installed")
    port = free_port()
    receiver = bench.start("socat", "socat", "-b", "1048576", "-u",
                           f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr", f"OPEN:{to},creat")
    bench.until(lambda: bench.run("ss", "-ltnH", f"sport = :{port}").strip(), 10, "socat does not listen")

    def work():
        bench.run("socat", "-b", "1048576", "-u", f"FILE:{source}", f"TCP:127.0.0.1:{port}")
        receiver.wait()
        bench.run("sync", to)
    seconds = _timed(work)
    to.unlink()
    return seconds


def _need_room(bench, mib):
    free = shutil.disk_usage(bench.work).free >> 20
    if free < mib:
        raise bench.Unavailable(f"{mib} MiB are needed in {bench.work}, {free} are free: name another "
                                "place by PESC_BENCH_DIR")


class _Bulk:
    """A file of the size, new in each round: what a store has it does not fetch again."""

    def __init__(self, bench, mib):
        self.bench, self.mib, self.bytes = bench, mib, mib << 20
        self.program = bench.compile("bulk.c", "-static")
        self.directory = bench.work / "bulk-job"
        self.directory.mkdir(exist_ok=True)
        self.file = self.directory / "shared.bin"
        self.seed = 100

    def renew(self):
        self.seed += 1
        self.bench.run(self.program, self.bytes, self.seed, self.file)
        self.bench.run("sync", self.file)


def _sent_mib(bench, address):
    """What went out over the connections that the coordinator has now: its workers'."""
    listing = bench.run("ss", "-tinH", "state", "established", f"sport = :{address.rsplit(':', 1)[1]}")
    return sum(int(each) for each in re.findall(r"bytes_sent:(\d+)", listing)) / (1 << 20)


def _share(bulk, workers):
    """Submits a job with the file shared, one rank for each worker; what it took, in seconds, and the
    coordinator's processor time, and MiB, for giving the file to the workers."""
    bench = bulk.bench
    with Cluster(bench, slots=1, workers=workers, worker_options=["--pass-on"]) as cluster:
        begin = time.monotonic()
        job = cluster.submit(workers, "sleep", "0.5", cwd=bulk.directory, options=[
            "--no-auto-files", "--shared-file", "shared.bin", "--inject", "none",
            "--no-second-attempts"])
        submitted = time.monotonic() - begin
        cpu = cpu_s(cluster.coordinator.pid)
        begin = time.monotonic()
        cluster.wait(job, workers)
        placed = max(time.monotonic() - begin - 0.5, 0.001)  # without the ranks' own half second
        return (submitted, placed, cpu_s(cluster.coordinator.pid) - cpu,
                _sent_mib(bench, cluster.address))


@benchmark("large_files", "A shared file to 1 and to 4 workers, a large output back")
def large_files(bench, result):
    mib = _size_mib(bench)
    _need_room(bench, mib * 8)
    bulk = _Bulk(bench, mib)
    names = ["submit (hash, upload, sync)", "to one worker", "output: packed, to the coordinator",
             "output: fetched by the client"]
    series = {name: result.add(name, "pesc", "MiB/s") for name in names}
    copied = result.add("cp, sync", "reference", "MiB/s")
    sent = result.add("socat over loopback, sync", "reference", "MiB/s")
    slower = result.add("the slower of the two", "reference", "MiB/s")
    one = result.add("coordinator's CPU, one worker", "reference", "s")
    four = result.add("coordinator's CPU, four workers", "pesc", "s")
    one_sent = result.add("coordinator's bytes, one worker", "reference", "MiB")
    four_sent = result.add("coordinator's bytes, four workers", "pesc", "MiB")
    rounds = 1 if bench.quick else min(bench.runs, 3)
    for number in range(rounds):
        bulk.renew()
        copied.values.append(mib / _copy(bench, bulk.file, bench.work / "copy.bin"))
        sent.values.append(mib / _send(bench, bulk.file, bench.work / "copy.bin"))
        slower.values.append(min(copied.values[-1], sent.values[-1]))
        submitted, placed, cpu, mib_sent = _share(bulk, 1)
        series[names[0]].values.append(mib / submitted)
        series[names[1]].values.append(mib / placed)
        one.values.append(cpu)
        one_sent.values.append(mib_sent)
        _, placed, cpu, mib_sent = _share(bulk, 4)
        four.values.append(cpu)
        four_sent.values.append(mib_sent)
        back, fetched = _bring_back(bulk)
        series[names[2]].values.append(mib / back)
        series[names[3]].values.append(mib / fetched)
        bench.progress(f"large_files: round {number + 1}/{rounds}")
    result.targets += [Target(slower.name, at_least=0.8, of=name) for name in names]
    result.targets.append(Target(one.name, at_most=1.3, of=four.name))
    result.targets.append(Target(one_sent.name, at_most=1.3, of=four_sent.name))
    result.notes.append(f"{mib} MiB" + ("" if bench.options.full_size else " (--full-size: 4,096)") +
                        "; a new file in each round. A rank that sleeps 0.5 s waits for the file; its "
                        "time is taken off. The workers pass the file on (--pass-on).")
    shutil.rmtree(bulk.directory)


def _bring_back(bulk):
    """Seconds from the rank's end to its output's commit, and of `pesc fetch`."""
    bench = bulk.bench
    bulk.file.unlink()
    program = bulk.directory / "write"
    program.write_text(f'#!/bin/sh\nexec ./bulk {bulk.bytes} {bulk.seed} "$PESC_OUTPUT_DIR/large.bin"\n')
    program.chmod(0o755)
    shutil.copy(bulk.program, bulk.directory / "bulk")
    with Cluster(bench, slots=1) as cluster:
        job = cluster.submit(1, "./write", cwd=bulk.directory, options=[
            "--no-auto-files", "--file", "write", "--file", "bulk", "--no-second-attempts"])
        status = cluster.wait(job, 1)
        rank_s = json.loads(cluster.pesc("stats", job, "--json"))["seconds"]["max"]
        took = (status["finished_unix_ms"] - status["submitted_unix_ms"]) / 1000 - rank_s
        out = bench.work / "fetched"
        begin = time.monotonic()
        cluster.pesc("fetch", job, "-o", out)
        fetched = time.monotonic() - begin
        size = sum(each.stat().st_size for each in out.rglob("large.bin"))
        if size != bulk.bytes:
            raise bench.PeerFailed(f"the output came back with {size} bytes instead of {bulk.bytes}")
        shutil.rmtree(out)
    return max(took, 0.001), fetched


@benchmark("small_outputs", "Many outputs of 4 KiB: made, and fetched")
def small_outputs(bench, result):
    sizes = [200, 1000] if bench.quick else [1000, 5000, 20_000]
    if bench.options.full_size:
        sizes.append(100_000)
    program = bench.compile("small_output.c", "-static")
    made = Curve("Ranks per second, by ranks of the job", "ranks", "ranks/s", [])
    fetched = Curve("Outputs fetched per second, by ranks of the job", "ranks", "ranks/s", [])
    ours = result.add("PESC, runs", "pesc", "/s")
    fetch = result.add("PESC, fetch", "pesc", "/s")
    bare = result.add("bare loop, durable", "reference", "/s")
    copies = result.add("cp -r of as many files, sync", "reference", "/s")
    directory = bench.work / "loop-small"
    journal = bench.work / "journal-small" / "loop.db"
    directory.mkdir()
    journal.parent.mkdir()
    loop = spawn_loop(bench, bench.options.slots, [program], directory, journal)
    with Cluster(bench, bench.options.slots) as cluster:
        # Nothing is deleted before the end: ext4 passes over each inode deleted in the last minutes,
        # and what is made first after that (the fetch) would pay for what is made next (the copy).
        for size in sizes:
            before = loop(min(size, 2000))
            job = cluster.submit(size, "./small_output", options=["--no-second-attempts"], cwd=program.parent)
            status = cluster.wait(job, size, limit_s=1800)
            cluster.rate = size * 1000 / max(status["finished_unix_ms"] - status["submitted_unix_ms"], 1)
            out = bench.work / f"small-out-{size}"
            seconds = _timed(lambda: cluster.pesc("fetch", job, "-o", out, timeout=900))
            with open(out / "output.txt") as merged:
                bench.run(program, "verify", size, stdin=merged)
            files = bench.work / f"small-files-{size}"
            files.mkdir()
            for rank in range(size):
                (files / str(rank)).mkdir()
                (files / str(rank) / "output.txt").write_bytes(b"x" * 4096)
            to = bench.work / f"small-copied-{size}"
            copied = _timed(lambda: (bench.run("cp", "-r", files, to), bench.run("sync", "-f", to)))
            made.points += [("PESC", size, cluster.rate), ("bare loop", size, before)]
            fetched.points += [("PESC", size, size / seconds), ("cp -r", size, size / copied)]
            if size == sizes[-1]:
                ours.values.append(cluster.rate)
                bare.values.append(before)
                fetch.values.append(size / seconds)
                copies.values.append(size / copied)
            bench.progress(f"small_outputs: {size}: {cluster.rate:,.0f} ranks/s, fetched {size / seconds:,.0f}/s")
        state = cluster.dir / "coordinator"
        files = sum(1 for each in state.rglob("*") if each.is_file())
        result.notes.append(f"{sum(sizes):,} outputs are {files} files in the coordinator's state; it "
                            f"has {memory_kib(cluster.coordinator.pid) / 1024:.0f} MiB of memory. Every "
                            "byte was compared with what was printed.")
    result.curves += [made, fetched]
    result.targets += [Target(bare.name, at_least=0.8, of=ours.name),
                       Target(copies.name, at_least=0.8, of=fetch.name)]


@benchmark("restart", "Restart with many ranks, a tenth of them finished")
def restart(bench, result):
    ranks = 100_000 if bench.quick else 1_000_000
    ended = ranks // 10
    ours = result.add("coordinator: killed, until it answers", "pesc", "s")
    used = result.add("coordinator: CPU until it answers", "pesc", "s")
    reading = result.add("reading the same rows with sqlite3", "reference", "s")
    reader = bench.compile("sqlite_rows.c", "-lsqlite3")
    with Alone(bench) as cluster:
        cluster.load("coordinator_load", "--workers", 100, "--ranks", ranks, "--until", ended,
                     "--limit", 600, "--keep", timeout=700)
        job = json.loads(cluster.pesc("jobs", "--json"))[0]["id"]
        journal = cluster.dir / "coordinator" / "journal.db"
        for _ in range(bench.runs):
            cluster.coordinator.send_signal(signal.SIGKILL)
            cluster.coordinator.wait()
            copy = bench.work / "restart"
            copy.mkdir()
            for each in journal.parent.glob("journal.db*"):
                shutil.copy(each, copy)
            reading.values.append(json.loads(bench.run(reader, copy / "journal.db"))["read_s"])
            shutil.rmtree(copy)
            begin = time.monotonic()
            cluster.start_coordinator(cluster.address)
            while not cluster.pesc("status", job, check=False):
                pass
            ours.values.append(time.monotonic() - begin)
            used.values.append(cpu_s(cluster.coordinator.pid))
        status = json.loads(cluster.pesc("status", job, "--json"))
        result.notes.append(f"{status['repetitions']:,} ranks, {status['succeeded']:,} of them finished; "
                            f"{memory_kib(cluster.coordinator.pid) / 1024:.0f} MiB of memory afterwards. "
                            "Until `pesc status` has answered, its own start included.")
    result.targets += [Bound(ours.name, at_most=2), Target(reading.name, at_most=3, of=ours.name)]
