#!/usr/bin/python3
"""Data-parallel training on all ranks at once: each has its own data, gradients are averaged by
all_reduce, and every rank ends with the same model. Saves a checkpoint each epoch, so that a gang that
is stopped and started again goes on from there.

  pesc run -n 3 --parallel -o results -- ./torch_all_reduce.py 20

Nothing in it is about PESC but the directory of the checkpoint and one line of PESC_EVENTS: RANK,
WORLD_SIZE, MASTER_ADDR and MASTER_PORT are in the environment, as torch.distributed reads them.
"""
import os
import sys
import time

import torch
import torch.distributed as dist

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 20
SECONDS = float(os.environ.get("EPOCH_SECONDS", "0"))
CHECKPOINT = os.path.join(os.environ.get("PESC_CHECKPOINT_DIR", "."), "model.pt")


def save(model, epoch):
    torch.save({"epoch": epoch, "model": model.state_dict()}, CHECKPOINT + ".tmp")
    os.replace(CHECKPOINT + ".tmp", CHECKPOINT)
    if "PESC_EVENTS" in os.environ:
        with open(os.environ["PESC_EVENTS"], "a") as events:
            events.write("checkpoint\nprogress %.3f epoch %d\n" % (epoch / EPOCHS, epoch))


def main():
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(rank)
    inputs = torch.randn(200, 3)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.01 * torch.randn(200, 1)
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    first = 0
    if os.path.exists(CHECKPOINT):
        saved = torch.load(CHECKPOINT)
        model.load_state_dict(saved["model"])
        first = saved["epoch"]
    # The ranks may have been stopped between two saves: they begin where the last of them was.
    begin = torch.tensor([first])
    dist.all_reduce(begin, op=dist.ReduceOp.MIN)
    source = torch.tensor([rank if first == int(begin) else size])
    dist.all_reduce(source, op=dist.ReduceOp.MIN)
    for parameter in model.parameters():
        dist.broadcast(parameter.data, src=int(source))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(int(begin), EPOCHS):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(inputs), targets).backward()
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad /= size
        optimizer.step()
        time.sleep(SECONDS)
        save(model, epoch + 1)
    weights = [round(float(w), 4) for w in model.weight.detach().flatten()]
    print("rank %d of %d: began at epoch %d, weights %s" % (rank, size, int(begin), weights))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
