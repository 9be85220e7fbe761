"""Other systems that run many programs, as Debian packages them, each as well tuned as it can be."""
import os
import shutil
import socket
import subprocess
import time

from suite.place import REPO, PeerFailed

# What apt has of each peer; a package that is not there is said, and its peer left out.
PACKAGES = ["parallel", "slurmctld", "slurmd", "slurm-client", "munge", "openmpi-bin",
            "python3-distributed", "gearman-tools", "gearman-job-server", "libgearman-dev",
            "coop-computing-tools", "coop-computing-tools-dev", "libgrpc++-dev", "libprotobuf-dev",
            "protobuf-compiler-grpc", "socat"]


def install(progress):
    """Those that are missing, by apt; none of their services is started."""
    def missing():
        return [name for name in PACKAGES if subprocess.run(
            ["dpkg-query", "-W", "-f=${db:Status-Status}", name], capture_output=True,
            text=True).stdout != "installed"]
    wanted = missing()
    if not wanted:
        return
    progress("installing peers: " + " ".join(wanted))
    root = [] if os.geteuid() == 0 else ["sudo"]
    # RUNLEVEL: what the packages' scripts ask before they start a service.
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get", "-qq"]
    subprocess.run([*root, *quiet, "update"], check=False, stdout=subprocess.DEVNULL)
    for name in wanted:
        subprocess.run([*root, *quiet, "install", "-y", "--no-install-recommends", name],
                       check=False, stdout=subprocess.DEVNULL)
    if missing():
        progress("cannot be had here, and are left out: " + " ".join(missing()))


def timed(count, work):
    begin = time.monotonic()
    work()
    return count / (time.monotonic() - begin)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def parallel(bench, slots, command, results=None):
    def run(count):
        keep = ["--results", results] if results else []
        numbers = "\n".join(str(i) for i in range(count)) + "\n"
        rate = timed(count, lambda: bench.run(
            "parallel", "--will-cite", "-N0", f"-j{slots}", *keep, *command, input=numbers,
            env={"PARALLEL_HOME": str(bench.work)}))
        if results:
            shutil.rmtree(results)
        return rate
    return run


def mpirun(bench, command, at_once=16):
    """As many at once as it is sure to come back from: of 32 it sometimes waits for ever here."""
    def run(count):
        more = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        times = max(1, count // at_once)

        def work():
            for _ in range(times):
                bench.run("mpirun", "--oversubscribe", "-np", at_once, *command, env=more, timeout=30)
        return timed(times * at_once, work)
    return run


class WorkQueue:
    """A manager and one worker; the worker's directories are at `where`."""

    def __init__(self, bench, slots, where):
        self.bench, self.slots, self.where = bench, slots, where

    def command(self, command):
        def run(count):
            program = self.bench.compile("peers/work_queue_peer.c", "-lwork_queue", "-ldttools",
                                         "-lcrypto", "-lz", "-lm")
            self.where.mkdir(exist_ok=True)
            port = self.where / "port"
            port.unlink(missing_ok=True)
            manager = subprocess.Popen([program, str(count), port, str(command)],
                                       stdout=subprocess.PIPE, text=True, env=self.bench.environment)
            self.bench.processes.append(manager)
            self.bench.until(lambda: port.exists() and port.read_text().strip(), 10,
                             "Work Queue's manager names no port")
            worker = self.bench.start(
                "work_queue_worker", "work_queue_worker", f"--cores={self.slots}", "--memory=4096",
                "--disk=4096", "--single-shot", "-t", "10", "-s", self.where, "127.0.0.1",
                port.read_text().strip())
            try:
                rate = manager.communicate(timeout=300)[0]
            except subprocess.TimeoutExpired:
                raise PeerFailed("Work Queue is not done after 300 s") from None
            finally:
                self.bench.end(manager, 5)
                self.bench.end(worker, 5)
            if manager.returncode != 0:
                raise PeerFailed("a task of Work Queue failed")
            return float(rate)
        return run


class Gearman:
    """gearmand with its own command-line workers; durable: its queue in SQLite."""

    def __init__(self, bench, slots, durable=False):
        self.bench, self.slots, self.durable, self.port = bench, slots, durable, None

    def _start(self):
        self.program = self.bench.compile("peers/gearman_peer.c", "-lgearman")
        self.port = free_port()
        name = "gearmand-durable" if self.durable else "gearmand"
        queue = (["--queue-type=libsqlite3", f"--libsqlite3-db={self.bench.work}/gearman.db"]
                 if self.durable else [])
        self.bench.start(name, "gearmand", "-p", self.port, "-L", "127.0.0.1", "-l", "stderr", *queue)

        def listens():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        self.bench.until(listens, 10, "gearmand does not listen")
        for _ in range(self.slots):
            self.bench.start("gearman-worker", "gearman", "-w", "-h", "127.0.0.1", "-p", self.port,
                             "-f", "run", "/bin/true")

    def run(self, count):
        for program in ("gearmand", "gearman"):
            if not shutil.which(program):
                raise PeerFailed(f"there is no {program}")
        if self.port is None:
            self._start()
        background = ["background"] if self.durable else []
        return float(self.bench.run(self.program, self.port, "run", count, *background))


class Dask:
    """Dask distributed: a scheduler and a worker process for each slot."""

    def __init__(self, bench, slots):
        self.bench, self.slots, self.process = bench, slots, None

    def run(self, count):
        if self.process is None:
            log = open(self.bench.work / "dask.log", "wb")
            self.process = subprocess.Popen(
                ["/usr/bin/python3", REPO / "bench" / "peers" / "dask_peer.py", str(self.slots)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                cwd=self.bench.work, env=self.bench.environment)
            self.bench.processes.append(self.process)
            if self.process.stdout.readline().strip() != "ready":
                raise PeerFailed("Dask does not start: " + self.bench.log("dask").strip()[-300:])
        try:
            self.process.stdin.write(f"{count}\n")
            self.process.stdin.flush()
            return float(self.process.stdout.readline())
        except (OSError, ValueError):
            raise PeerFailed("Dask failed: " + self.bench.log("dask").strip()[-300:]) from None


class _Slurm:
    """slurmctld and slurmd of our own, as this user, on ports of our own."""

    def __init__(self, bench, slots):
        self.bench, self.slots, self.directory = bench, slots, None

    def _start(self):
        for program in ("slurmctld", "slurmd", "sbatch", "munged"):
            if not shutil.which(program) and not os.path.exists(f"/usr/sbin/{program}"):
                raise PeerFailed(f"there is no {program}")
        if os.geteuid() != 0:
            raise PeerFailed("slurmd wants root")
        directory = self.bench.work / "slurm"
        shutil.rmtree(directory, ignore_errors=True)  # of an earlier benchmark
        for name in ("state", "spool", "munge"):
            (directory / name).mkdir(parents=True)
        directory.chmod(0o755)
        (directory / "munge").chmod(0o755)
        key = directory / "munge" / "key"
        key.write_bytes(os.urandom(64))
        key.chmod(0o600)
        sock = directory / "munge" / "socket"
        self.bench.start("munged", "/usr/sbin/munged", "--foreground", "--force", f"--key-file={key}",
                         f"--socket={sock}", f"--pid-file={directory}/munge/pid",
                         f"--log-file={directory}/munge/log", f"--seed-file={directory}/munge/seed")
        self.bench.until(sock.exists, 10, "munged does not start")
        # Tuned for many short jobs: no accounting, no cgroups, and 32 jobs at once on each processor:
        # slurmctld places once a second, so that with one a processor idles most of it.
        host = socket.gethostname().split(".")[0]
        (directory / "slurm.conf").write_text(f"""
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={sock}
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_min_interval=0,default_queue_depth=10000,max_rpc_cnt=0,batch_sched_delay=0
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
MaxArraySize=100001
MaxJobCount=200000
MinJobAge=2
KillWait=1
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={self.slots} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:32
""")
        self.environment = {"SLURM_CONF": str(directory / "slurm.conf")}
        self.bench.start("slurmctld", "/usr/sbin/slurmctld", "-D", "-f", directory / "slurm.conf")
        self.bench.start("slurmd", "/usr/sbin/slurmd", "-D", "-N", host, "-f", directory / "slurm.conf")

        def idle():
            return "idle" in self.bench.run("sinfo", "-h", "-o", "%t", env=self.environment, check=False)
        self.bench.until(idle, 40, "Slurm's node is not idle: " +
                         self.bench.log("slurmctld").strip()[-200:])
        self.directory = directory

    def array(self, program, base):
        def run(count):
            if self.directory is None:
                self._start()
            out = base / "slurm-out"
            out.mkdir()
            script = base / "slurm-job.sh"
            script.write_text(f"#!/bin/sh\nexec {program}\n")

            def work():
                # --wait polls seldom; asking ourselves is quicker.
                job = self.bench.run("sbatch", "--parsable", f"--array=0-{count - 1}", "-n1", "-o",
                                     f"{out}/%a.txt", script, env=self.environment,
                                     cwd=base).strip()
                end = time.monotonic() + 120
                while self.bench.run("squeue", "-h", "-t", "PD,R,CF,CG", "-j", job, check=False,
                                     env=self.environment).strip():
                    if time.monotonic() > end:
                        raise PeerFailed("Slurm's array is not done after 120 s")
                    time.sleep(0.1)
            try:
                return timed(count, work)
            finally:
                shutil.rmtree(out)
        return run


def slurm(bench, slots):
    if not hasattr(bench, "slurm"):
        bench.slurm = _Slurm(bench, slots)
    return bench.slurm
