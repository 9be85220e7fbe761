"""scripts/bench: every benchmark, PESC and its reference side by side in one run.

Prints a table of ratios with medians and spread, and writes it with all figures as results.json, and
as a page with charts, results.html. Builds the release programs first, unless PESC_BIN names others.
Temporary directories are made below /var/tmp (PESC_BENCH_DIR) and /dev/shm; PESC_BENCH_KEEP=1 keeps
them. Root (as in a container) or not: what a benchmark cannot have here it says.
"""
import argparse
import json
import os
import pathlib
import sys
import time
import traceback

from suite import machine, page, peers, table
# They register themselves, in this order.
from suite import short_ranks, coordinator, gangs, rpc, thesis, files, instructions  # noqa: F401
from suite.measure import Result
from suite.place import REPO, Place, PeerFailed, Unavailable
from suite.registry import BENCHMARKS


def parse_options():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", action="store_true",
                        help="beside packaged peers too; those that are missing are installed by apt")
    parser.add_argument("--only", action="append", metavar="NAME",
                        help="only this benchmark, or those that begin so; repeatable")
    parser.add_argument("--quick", action="store_true",
                        help="smaller and fewer rounds: does the instrument work?")
    parser.add_argument("--runs", type=int, help="rounds of each benchmark (5; quick: 2)")
    parser.add_argument("--seconds", type=float,
                        help="of each contender in a round, about (3; quick: 0.6)")
    parser.add_argument("--slots", type=int, default=2, help="of a worker (2)")
    parser.add_argument("--full-size", action="store_true",
                        help="files of 4 GiB and 100,000 outputs: takes an hour more, 40 GiB")
    parser.add_argument("--out", type=pathlib.Path, default=REPO / "build" / "bench",
                        help="where results.json and results.html go (build/bench)")
    parser.add_argument("--no-build", action="store_true", help="take build/release as it is")
    parser.add_argument("--list", action="store_true", help="name the benchmarks, and end")
    options = parser.parse_args()
    options.runs = options.runs or (2 if options.quick else 5)
    if options.list:
        for name, (title, _) in BENCHMARKS.items():
            print(f"{name:20} {title}")
        sys.exit(0)
    chosen = [name for name in BENCHMARKS
              if not options.only or any(name.startswith(each) for each in options.only)]
    if not chosen:
        parser.error(f"no benchmark is called {' or '.join(options.only)}: see --list")
    return options, chosen


def run_one(place, name):
    title, function = BENCHMARKS[name]
    result = Result(name, title)
    begin = time.monotonic()
    place.progress(f"{name}: {title}")
    started = len(place.processes)
    try:
        function(place, result)
    except Unavailable as error:
        result.failure = f"not measured: {error}"
    except PeerFailed as error:
        result.failure = f"failed: {error}"
    except Exception as error:  # the others are to be seen nevertheless
        traceback.print_exc()
        result.failure = f"failed: {type(error).__name__}: {error}"
    for process in reversed(place.processes[started:]):
        place.end(process, 10)
    del place.processes[started:]
    if hasattr(place, "slurm"):
        del place.slurm
    result.seconds = time.monotonic() - begin
    if result.failure:
        place.progress(f"{name}: {result.failure}")
    return result


def write(options, about, results):
    options.out.mkdir(parents=True, exist_ok=True)
    everything = {"about": about, "benchmarks": [one.as_json() for one in results]}
    (options.out / "results.json").write_text(json.dumps(everything, indent=1) + "\n")
    (options.out / "results.html").write_text(page.render(everything))


def main():
    options, chosen = parse_options()
    if options.peers:
        peers.install(Place.progress)
    place = Place(options)
    place.seconds = options.seconds or (0.6 if options.quick else 3)
    about = machine.describe(place)
    results = []
    try:
        for name in chosen:
            results.append(run_one(place, name))
            write(options, about, results)  # what there is, should it be cut short
    except KeyboardInterrupt:
        place.progress("stopped")
    finally:
        place.close()
        os.chdir(REPO)
    about["seconds"] = round(time.time() - about["unix_s"])
    about["load_after"] = machine.load()
    write(options, about, results)
    print(table.render(about, results))
    print(f"\n{options.out}/results.json, {options.out}/results.html")
    return 1 if any(one.failure.startswith("failed") for one in results) else 0
