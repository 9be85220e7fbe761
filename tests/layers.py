#!/usr/bin/env python3
"""Checks the house's rules over the sources: who may include whom, and what a core may not know.

  layers.py SOURCE_DIR    prints each offence as FILE:LINE: RULE and exits 1; first shows, on lines
                          made up for it, that the rules can fail
"""
import pathlib
import re
import sys

# Each folder with the folders it may include (itself always).
ALLOWED = {
    "src/model": ["include/pesc"],
    "src/protocol": ["src/model"],
    "src/rpc": ["src/protocol", "src/model"],
    "src/blob": ["src/model"],
    "runtime/common": ["src/model"],
    "runtime/coordinator/core": ["src/model"],
    "runtime/worker/core": ["src/model"],
    "runtime/worker/containment": [],
    "runtime/worker/gpu": ["src/rpc", "src/model"],
    "runtime/worker/keeper": ["runtime/worker/containment", "src/protocol", "src/model"],
    "runtime/worker/keeper_client": ["src/rpc", "src/protocol", "src/model", "runtime/common",
                                     "runtime/worker/containment", "runtime/worker/keeper"],
    "runtime/coordinator/shell": ["runtime/coordinator/core", "runtime/common", "src/rpc",
                                  "src/protocol", "src/blob", "src/model"],
    "runtime/worker/owner": ["src/rpc", "src/model"],
    "runtime/worker/shell": ["runtime/worker/core", "runtime/worker/owner", "runtime/worker/keeper_client",
                             "runtime/worker/containment", "runtime/worker/gpu",
                             "runtime/common", "src/rpc", "src/protocol", "src/blob", "src/model"],
    "runtime/local": ["runtime/coordinator/shell", "runtime/worker/shell", "runtime/common",
                      "src/rpc", "src/protocol", "src/model"],
    "src/client": ["runtime/local", "src/rpc", "src/protocol", "src/blob", "src/model",
                   "include/pesc"],
    "runtime/cli": ["runtime/worker/owner", "src/client", "runtime/local", "runtime/common",
                    "runtime/worker/containment",
                    "runtime/worker/gpu", "src/rpc", "src/model", "src/blob", "include/pesc"],
}
IMPURE = [
    (re.compile(r"system_clock|steady_clock|\bclock_gettime|\btime\(|gettimeofday"), "a clock"),
    (re.compile(r"<thread>|<mutex>|<atomic>|<future>|<condition_variable>"), "threads"),
    (re.compile(r"<random>|\brand\(|random_device"), "randomness"),
    (re.compile(r"asio|kj/|capnp|sqlite|spdlog"), "an I/O library"),
    (re.compile(r"<fstream>|<iostream>|<filesystem>|<cstdio>|<unistd\.h>|<sys/|<fcntl\.h>"), "I/O"),
    (re.compile(r"flat_hash_|unordered_"), "unordered iteration"),
]
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def folder_of(path, root):
    relative = path.relative_to(root)
    for folder in sorted(ALLOWED, key=len, reverse=True):
        if relative.is_relative_to(folder):
            return folder
    return None


def target_of(name, path, root):
    """The folder that an include names: its own, below src, below include, or from the root."""
    for base in (path.parent, root / "src", root / "include", root):
        candidate = base / name
        if candidate.is_file():
            candidate = candidate.resolve()
            if candidate.is_relative_to(root / "include"):
                return "include/pesc"
            return folder_of(candidate, root)
    return "src/protocol" if name.endswith(".capnp.h") else None


def offences(path, text, root):
    folder = folder_of(path, root)
    if folder is None:
        return
    for number, line in enumerate(text.splitlines(), 1):
        found = INCLUDE.match(line)
        if found:
            target = target_of(found.group(1), path, root)
            if target and target != folder and target not in ALLOWED[folder]:
                yield number, f"{folder} may not include {target}"
        if folder.endswith("/core") or path.name.startswith("policy."):
            code = re.sub(r"//.*", "", line)
            for pattern, what in IMPURE:
                if pattern.search(code):
                    yield number, f"a core knows no {what.removeprefix('a ').removeprefix('an ')}"


def self_test(root):
    core = root / "runtime/coordinator/core/core.cc"
    for line in ('#include "rpc/loop.h"', "#include <thread>", "steady_clock::now()",
                 "#include <random>", "std::unordered_map<int, int> m;", "#include <fstream>"):
        if not list(offences(core, line, root)):
            sys.exit(f"layers.py: the rule against `{line}` cannot fail")
    if list(offences(core, '#include "model/ids.h"  // a steady_clock in a comment', root)):
        sys.exit("layers.py: a harmless line is refused")


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    self_test(root)
    count = 0
    for folder in ("src", "runtime"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in (".cc", ".h"):
                continue
            for number, rule in offences(path, path.read_text(), root):
                print(f"{path.relative_to(root)}:{number}: {rule}")
                count += 1
    sys.exit(1 if count else 0)


main()
