"""Instructions of both cores and the codec, as valgrind counts them."""
import json
import shutil

from suite.place import REPO
from suite.measure import Target
from suite.registry import benchmark


@benchmark("instructions", "Instructions for each rank: both cores and the codec")
def instructions(bench, result):
    if not shutil.which("valgrind"):
        raise bench.Unavailable("valgrind is not installed")
    folder = REPO / "bench" / "instructions"
    counts = json.loads(bench.run("python3", folder / "check.py", "--json",
                                  bench.built("core_instructions"), timeout=900))
    baseline = {}
    if (folder / "baseline.json").exists():
        baseline = json.loads((folder / "baseline.json").read_text())
    for work, count in counts.items():
        ours = result.add(work, "pesc", "instructions", [count])
        before = baseline.get("instructions_per_rank", {}).get(work)
        if before:
            base = result.add(f"{work}: baseline", "reference", "instructions", [before])
            result.targets.append(Target(base.name, at_most=1.1, of=ours.name))
    result.notes.append(f"The baseline is of {baseline.get('made_with')}; another compiler's counts "
                        "differ. ctest compares them in a Release build (bench.instructions).")
