"""What each of two processes does for the optimizers' tests: train on its half of every batch."""

import importlib.util
import sys
from pathlib import Path

import torch
from torch import distributed, nn

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "src"), str(TESTS.parent / "docs" / "examples")]


def main(file, name, folder, rank):
    from optim.training import batch, net, weights

    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("subject", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["subject"] = module
    spec.loader.exec_module(module)
    meeting = f"file://{Path(folder).resolve()}/meeting"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(net(torch.float64))
    optimizer = getattr(module, name).subject.make(model.module)
    for t in range(6):
        images, labels = batch(t, torch.float64)
        optimizer.zero_grad()
        half = slice(rank, None, 2)
        nn.functional.cross_entropy(model(images[half]).float(), labels[half]).backward()
        optimizer.step()
    torch.save(weights(model.module), Path(folder) / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
