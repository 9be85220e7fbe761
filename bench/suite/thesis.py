"""The thesis's own figures: its two examples beside Amdahl's estimate, and its 1,200 ranks."""
import time

from suite.cluster import Cluster
from suite.measure import Bound, Target
from suite.place import REPO
from suite.registry import benchmark

SERIAL = 0.01  # as the thesis takes it
CORES = 2


def _alone(bench, program, arguments, ranks):
    begin = time.monotonic()
    for rank in range(ranks):
        bench.run(program, *arguments, env={"PESC_RANK": str(rank), "PESC_WORLD_SIZE": str(ranks)})
    return time.monotonic() - begin


def _speed_up(bench, cluster, program, arguments, ranks):
    sequential = _alone(bench, program, arguments, ranks)
    job = cluster.submit(ranks, f"./{program.name}", *arguments, cwd=program.parent,
                         options=["--no-second-attempts"])
    cluster.rate = ranks / sequential * CORES
    status = cluster.wait(job, ranks)
    return sequential / ((status["finished_unix_ms"] - status["submitted_unix_ms"]) / 1000)


@benchmark("amdahl", "The thesis's Examples 1 and 2, two workers of one core each")
def amdahl(bench, result):
    include = f"-I{REPO / 'include'}"
    seconds = 1.5 if bench.quick else 6  # of all ranks, one after the other
    examples = []
    # Ranks that two cores can share evenly: five equal ones of the thesis's Example 1 take three
    # fifths of the time on two cores however they are placed, ten of growing length in their order 0.55.
    for number, name, ranks, unit in ((1, "gaussian", 10, 1_000_000), (2, "integral", 40, 200_000)):
        program = bench.compile(REPO / "examples" / f"{name}.cc", include)
        one = _alone(bench, program, [unit], 1)
        size = int(unit * seconds / one / (ranks if number == 1 else 1))
        series = result.add(f"Example {number}: speed-up, {ranks} ranks", "pesc", "×")
        examples.append((series, program, [size], ranks))
    estimate = result.add("Amdahl's estimate", "reference", "×")
    with Cluster(bench, slots=1, workers=CORES) as cluster:
        for number in range(bench.runs):
            for series, program, arguments, ranks in examples:
                series.values.append(_speed_up(bench, cluster, program, arguments, ranks))
            estimate.values.append(1 / (SERIAL + (1 - SERIAL) / CORES))
            bench.progress(f"amdahl: round {number + 1}/{bench.runs}")
    result.targets += [Target(estimate.name, at_least=0.97, of=each[0].name) for each in examples]
    result.notes.append("Sequential: the same ranks, one after the other, by themselves. The estimate "
                        "takes 1 % as serial, as the thesis does. The thesis's own splits (5 equal "
                        "ranks; 10 whose lengths grow) do not divide by two cores: no placement in rank "
                        "order reaches more than 0.84 and 0.92 of it.")


@benchmark("thesis_replay", "The thesis's 1,200 ranks on its four clients' speeds, in the simulator")
def thesis_replay(bench, result):
    simulator = bench.built("pesc_sim", "tests")
    out = bench.run(simulator, "--replay", "thesis", check=False, timeout=300)
    rows = {}
    for line in out.splitlines():
        words = line.split()
        if len(words) > 7 and ":" in words[-7]:
            rows[" ".join(words[:-7])] = words[-7:]
    if "PESC" not in rows:
        raise bench.PeerFailed("the simulator does not replay it: " + out[-300:])
    for name, (makespan, of_best, *ranks) in rows.items():
        ours = name.startswith("PESC")
        result.add(name, "pesc" if ours else "reference", "of the best schedule", [float(of_best)],
                   [f"{makespan}; ranks of clients 7, 8, 9, 12: {', '.join(ranks[:4])}"])
    result.targets.append(Bound("PESC", at_most=1.02))
    result.notes += [line for line in out.splitlines()[:2] if line]
