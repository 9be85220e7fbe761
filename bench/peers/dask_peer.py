"""dask_peer.py SLOTS: for each count on standard input, as many runs of /bin/true by Dask distributed
on SLOTS worker processes; answers with the tasks per second."""
import subprocess
import sys
import time

from distributed import Client, LocalCluster


def task(_):
    return subprocess.call(["/bin/true"], close_fds=False)


def main():
    slots = int(sys.argv[1])
    with LocalCluster(n_workers=slots, threads_per_worker=1, processes=True,
                      dashboard_address=None) as cluster, Client(cluster) as client:
        print("ready", flush=True)
        for line in sys.stdin:
            count = int(line)
            begin = time.monotonic()
            failed = sum(client.gather(client.map(task, range(count), pure=False)))
            print("failed" if failed else count / (time.monotonic() - begin), flush=True)


if __name__ == "__main__":
    main()
