"""Ranks of a parallel job: how far apart they start."""
import json
import statistics

from suite.cluster import Cluster
from suite.measure import Target
from suite.registry import benchmark


@benchmark("gang_64", "A gang of 64 ranks on one worker: first to last start")
def gang_64(bench, result):
    program = bench.compile("first_instruction.c", "-static")
    times = 3 if bench.quick else 10
    ours = result.add("gang of 64", "pesc", "ms")
    bare = result.add("64 × posix_spawn", "reference", "ms")
    with Cluster(bench, slots=64) as cluster:
        for number in range(bench.runs):
            seen = json.loads(bench.run(
                bench.built("client_load"), "--coordinator", cluster.address, "gang", "--program",
                program, "--fifo", bench.work / f"gang-{number}", "--times", times, "--ranks", 64))
            ours.values.append(statistics.median(seen["submitted"]))
            bare.values.append(statistics.median(seen["spawned"]))
    result.targets.append(Target(bare.name, at_most=1.5))
    result.notes.append(f"Each round's figure is the median of {times}; the worker says that it has 64 "
                        "cpus.")
