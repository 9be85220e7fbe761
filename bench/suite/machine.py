"""What the figures were measured on, and with."""
import os
import platform
import re
import subprocess
import sys
import time

from suite.place import REPO


def _out(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=REPO).stdout.strip()
    except OSError:
        return ""


def load():
    return [round(each, 2) for each in os.getloadavg()]


def _first(path, pattern, default=""):
    try:
        with open(path) as file:
            found = re.search(pattern, file.read(), re.M)
        return found.group(1).strip() if found else default
    except OSError:
        return default


def describe(place):
    file_system = _out("stat", "-f", "-c", "%T", str(place.work)) or "unknown"
    packages = {}
    for name in ("libcapnp-dev", "libasio-dev", "libsqlite3-0", "libgrpc++-dev", "parallel",
                 "slurmctld", "openmpi-bin", "python3-distributed", "gearman-job-server",
                 "coop-computing-tools"):
        version = _out("dpkg-query", "-W", "-f=${Version}", name)
        if version:
            packages[name] = version
    commit = _out("git", "describe", "--always", "--dirty")
    return {
        "command": "scripts/bench " + " ".join(sys.argv[1:]),
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "unix_s": time.time(),
        "commit": commit,
        "pesc": _out(str(place.bin / "pesc"), "--version"),
        "cpu": _first("/proc/cpuinfo", r"^model name\s*:\s*(.*)$", platform.machine()),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "system": _first("/etc/os-release", r'^PRETTY_NAME="(.*)"$'),
        "file_system": file_system,
        "virtual": bool(re.search(r"\bhypervisor\b", _first("/proc/cpuinfo", r"^flags\s*:(.*)$"))),
        "compiler": _out("c++", "--version").splitlines()[0] if _out("c++", "--version") else "",
        "packages": packages,
        "root": os.geteuid() == 0,
        "rounds": place.runs,
        "load_before": load(),
    }
