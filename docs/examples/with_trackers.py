"""Log what a plan did, beside the loss, to the tracker that you already use."""

from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

import trainplan as tp


def train(target, steps: int = 8) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(layer.parameters())
    plan = tp.Plan(
        horizon=steps,
        lr=tp.schedules.ReduceOnPlateau(0.1, factor=0.5, patience=0, threshold=0.3),
        weight_decay=tp.schedules.linear(0.1, end=0.01),
        betas=(0.9, 0.95),
    )
    run = tp.torch.attach(plan, optimizer)
    tracker = tp.trackers.to(target)
    for _ in range(steps):
        loss = layer(torch.ones(8, 4)).square().mean()
        loss.backward()
        optimizer.step()
        tracker.log(run)  # what this update has used
        run.observe(loss=loss.item())  # may change what the next one will use
        optimizer.zero_grad()


if __name__ == "__main__":
    with SummaryWriter(Path("runs")) as writer:
        train(writer)
