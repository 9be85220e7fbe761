#!/usr/bin/python3
"""The thesis's scenario 4: torch.distributed.rpc, rank 0 an agent that holds the parameters, the
others observers that it calls and that call it back.

  pesc run -n 3 --parallel -o results -- ./torch_parameter_server.py
"""
import os

import torch
import torch.distributed.rpc as rpc

RANK, WORLD_SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


class ParameterServer:
    """Lives in rank 0; the others reach it by a remote reference."""

    def __init__(self):
        self.weights = torch.zeros(2)
        self.updates = 0

    def update(self, gradient):
        self.weights -= 0.1 * gradient
        self.updates += 1
        return self.weights


def push(server, gradient):
    return server.rpc_sync().update(gradient)


def observe(server, steps):
    """Runs in an observer: fits y = 3 + 2 x on points of its own."""
    torch.manual_seed(rpc.get_worker_info().id)
    weights = torch.zeros(2)
    for _ in range(steps):
        x = torch.randn(32)
        error = weights[0] + weights[1] * x - (3 + 2 * x)
        weights = push(server, torch.stack([error.mean(), (error * x).mean()]))
    return steps


def main():
    name = "agent" if RANK == 0 else "observer%d" % RANK
    rpc.init_rpc(name, rank=RANK, world_size=WORLD_SIZE)
    if RANK == 0:
        server = rpc.RRef(ParameterServer())
        calls = [rpc.rpc_async("observer%d" % rank, observe, args=(server, 200))
                 for rank in range(1, WORLD_SIZE)]
        steps = sum(call.wait() for call in calls)
        state = server.local_value()
        print("agent: %d updates of %d observers, weights %.2f %.2f"
              % (state.updates, WORLD_SIZE - 1, state.weights[0], state.weights[1]))
        assert state.updates == steps
    rpc.shutdown()
    if RANK != 0:
        print("%s: done" % name)


if __name__ == "__main__":
    main()
