"""The RPC layer: PESC's stack (KJ on Asio), plain Cap'n Proto and gRPC, over TCP on loopback, in plain
text, 32 bytes in each message."""
import subprocess

from suite.measure import Contender, Target, compete
from suite.registry import benchmark


GATHERED = ("Gathered: up to 512 messages in one call, as PESC sends what it streams (reports, updates, "
            "small blobs). One by one, each message is a call of its own, with an answer that makes "
            "room for the next ones; gRPC's stream has no answers.")


class Server:
    """A program that serves the shapes, and its calls as a contender."""

    def __init__(self, bench, target):
        self.bench = bench
        self.program = bench.built(target)
        self.process = subprocess.Popen([self.program, "serve"], stdout=subprocess.PIPE, text=True,
                                        env=bench.environment)
        bench.processes.append(self.process)
        self.port = self.process.stdout.readline().strip()
        if not self.port:
            raise bench.PeerFailed(f"{target} does not serve")

    def shape(self, shape):
        return lambda count: float(self.bench.run(self.program, "call", self.port, shape, count))


def _compare(bench, result, shape):
    pesc = Server(bench, "rpc_shapes_pesc")
    contenders = [Contender("PESC", "pesc", pesc.shape(shape)),
                  Contender("plain Cap'n Proto", "reference",
                            Server(bench, "rpc_shapes_plain").shape(shape))]
    try:
        contenders.append(Contender("gRPC C++", "reference",
                                    Server(bench, "rpc_shapes_grpc").shape(shape)))
    except (bench.Unavailable, bench.PeerFailed) as error:
        result.notes.append(f"No gRPC beside it (libgrpc++-dev, protobuf-compiler-grpc): {error}")
    if shape.endswith("_stream"):
        contenders.insert(1, Contender("PESC, gathered", "pesc", pesc.shape(f"{shape}_gathered")))
        result.notes.append(GATHERED)
    for one in contenders:
        one.warm_up = 2000
    compete(bench, result, contenders, bench.seconds / 2)
    for ours in [one.name for one in contenders if one.role == "pesc"]:
        result.targets.append(Target("gRPC C++", at_least=1.2, of=ours))
    result.targets.append(Target("plain Cap'n Proto"))


@benchmark("rpc_unary", "RPC: unary calls, one at a time")
def rpc_unary(bench, result):
    _compare(bench, result, "unary")


@benchmark("rpc_unary_64", "RPC: unary calls, 64 in flight")
def rpc_unary_64(bench, result):
    _compare(bench, result, "unary64")


@benchmark("rpc_server_stream", "RPC: a stream from the server")
def rpc_server_stream(bench, result):
    _compare(bench, result, "server_stream")


@benchmark("rpc_client_stream", "RPC: a stream to the server")
def rpc_client_stream(bench, result):
    _compare(bench, result, "client_stream")
