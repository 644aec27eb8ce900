"""A plain PyTorch loop under a plan, with accumulation and checkpoints."""

from pathlib import Path

import torch

import trainplan as tp

plan = tp.Plan(
    horizon=12,
    lr=tp.schedules.wsd(peak=0.05, warmup="25%", decay="25%"),
    weight_decay=tp.schedules.linear(0.1, end=0.01),
    noise=tp.schedules.linear(0.1, end=0.0),  # not the optimizer's: the loop reads it
)


class Training:
    def __init__(self, plan: tp.Plan = plan) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 1))
        first, last = self.model
        self.optimizer = torch.optim.AdamW(
            [
                {"params": first.parameters(), "lr_scale": 0.1},  # a tenth of the plan's rate
                {"params": last.parameters(), "weight_decay": 0.0},  # never any decay
            ]
        )
        self.run = tp.torch.attach(plan, self.optimizer)

    def update(self, accumulate: int = 2) -> None:
        noise = self.run.plan.at(self.run.t)["noise"]
        for i in range(accumulate):
            data = torch.Generator().manual_seed(self.run.clock.steps * accumulate + i)
            x = torch.randn(8, 4, generator=data)
            noisy = x + noise * torch.randn(8, 4, generator=data)
            loss = (self.model(noisy) - x.sum(dim=1, keepdim=True)).square().mean()
            (loss / accumulate).backward()
        self.optimizer.step()  # sets the plan's values first, and counts one update
        self.optimizer.zero_grad()

    def save(self, file: Path) -> None:
        parts = {"model": self.model, "optimizer": self.optimizer, "run": self.run}
        torch.save({name: part.state_dict() for name, part in parts.items()}, file)

    def load(self, file: Path) -> None:
        state = torch.load(file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.run.load_state_dict(state["run"])


def with_a_scheduler(steps: int) -> list[float]:
    """For code that wants a scheduler and steps it itself."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(()))])
    scheduler = tp.torch.as_lr_scheduler(plan, optimizer)
    used = []
    for _ in range(steps):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()  # once per optimizer step, never per batch
    return used


if __name__ == "__main__":
    training = Training()
    for _ in range(7):
        training.update()
    training.save(Path("checkpoint.pt"))

    training = Training()
    training.load(Path("checkpoint.pt"))
    for _ in range(5):
        training.update()
