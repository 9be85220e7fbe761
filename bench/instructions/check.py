#!/usr/bin/env python3
"""Instructions of both cores and the codec for each rank, as valgrind counts them: the same from run
to run, so that a growth is seen that no stop-watch shows.

  check.py PROGRAM --compiler "GNU 12.2.0" --flags FLAGS [--update] [--json]

Fails when a count has grown by more than 10 % over baseline.json beside this file; --update writes
what is counted there, to be committed with the change that grew it, and its reason. What a compiler
makes of the same lines differs: the baseline names its compiler and flags, and with others this says
so and is skipped (exit code 77).
"""
import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys

BASELINE = pathlib.Path(__file__).with_name("baseline.json")
# Two sizes of each: their difference is without the program's start. Buffers that double make a
# single pair jump; sizes between two powers of two do not.
WORK = {"coordinator": (3000, 6000), "restore": (3000, 6000), "worker": (3000, 6000),
        "codec": (2000, 4000)}
GROWTH = 1.10
SKIPPED = 77


def count(program, work, number):
    done = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program,
                           work, str(number)], capture_output=True, text=True)
    found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    if done.returncode != 0 or not found:
        sys.exit(f"{program} {work} {number} failed under valgrind:\n{done.stderr[-800:]}")
    return int(found.group(1))


def per_rank(program):
    counts = {}
    for work, (small, large) in WORK.items():
        difference = count(program, work, large) - count(program, work, small)
        counts[work] = round(difference / (large - small))
    return counts


def skip(why):
    print(f"skipped: {why}")
    sys.exit(SKIPPED)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?", default="")
    parser.add_argument("--compiler", default="")
    parser.add_argument("--flags", default="")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--json", action="store_true", help="print what is counted, compare nothing")
    parser.add_argument("--skip", metavar="WHY", help="only say so")
    options = parser.parse_args()
    if options.skip:
        skip(options.skip)
    if not shutil.which("valgrind"):
        skip("there is no valgrind (scripts/install-dependencies valgrind)")
    made_with = {"compiler": options.compiler, "flags": " ".join(options.flags.split())}
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if not options.update and not options.json and baseline.get("made_with") != made_with:
        skip(f"the baseline was counted with {baseline.get('made_with')}, this build is of {made_with}")
    counts = per_rank(options.program)
    if options.json:
        print(json.dumps(counts))
        return
    if options.update:
        BASELINE.write_text(json.dumps({"made_with": made_with, "instructions_per_rank": counts},
                                       indent=1) + "\n")
    worse = []
    for work, now in counts.items():
        before = baseline.get("instructions_per_rank", {}).get(work)
        change = f" ({now / before - 1:+.1%} of {before})" if before else ""
        print(f"{work}: {now} instructions per rank{change}")
        if before and now > before * GROWTH:
            worse.append(work)
    if worse and not options.update:
        sys.exit(f"{', '.join(worse)}: more than {GROWTH - 1:.0%} over the baseline. If that is worth "
                 f"it, run this with --update and commit {BASELINE.name} with the change and its reason.")


if __name__ == "__main__":
    main()
