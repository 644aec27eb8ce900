"""A loop whose learning rate is searched as it trains, and that can be killed at any moment."""

import copy
from pathlib import Path

import torch

import trainplan as tp


class Training:
    """Four functions for the search: train, save, restore, validate."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.position = 0  # in the data
        self.kept = {}

    def loss(self, position: int) -> torch.Tensor:
        data = torch.Generator().manual_seed(position)
        x = torch.randn(32, 8, generator=data)
        noise = 0.1 * torch.randn(32, 1, generator=data)
        return (self.model(x) - torch.sin(x.sum(1, keepdim=True)) - noise).square().mean()

    def train(self, rate: float, steps: int) -> list[float]:
        losses = []
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for _ in range(steps):
            loss = self.loss(self.position)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.position += 1
            losses.append(loss.item())
        return losses

    def state(self) -> dict:  # all that training changes
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return copy.deepcopy(parts) | {"position": self.position}

    def load(self, state: dict) -> None:
        # A copy, because an optimizer goes on to train the tensors that it is given.
        state = copy.deepcopy(state)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.position = state["position"]

    def save(self) -> None:
        self.kept = self.state()

    def restore(self) -> None:
        self.load(self.kept)

    def validate(self) -> float:
        with torch.no_grad():
            return sum(self.loss(10**6 + i).item() for i in range(4)) / 4


def search(file: Path, stop_after: int | None = None) -> tuple[tp.schedules.AutoLRS, Training]:
    """Train 300 steps; start anew, or go on from the checkpoint in ``file``."""
    training = Training()
    lr = tp.schedules.AutoLRS(
        1e-3, 0.3, steps=300, trials=5, trial_steps=16, stage_steps=80, longest_stage=320
    )
    if file.exists():
        state = torch.load(file, weights_only=True)
        lr.load_state_dict(state["lr"])
        training.load(state["now"])
        training.kept = state["kept"]

    calls = 0

    def after(lr: tp.schedules.AutoLRS) -> None:
        nonlocal calls
        calls += 1
        state = {"lr": lr.state_dict(), "now": training.state(), "kept": training.kept}
        torch.save(state, file)
        if calls == stop_after:
            raise KeyboardInterrupt

    tp.schedules.train_with_search(
        lr,
        train=training.train,
        save=training.save,
        restore=training.restore,
        validate=training.validate,
        after=after,
    )
    return lr, training


if __name__ == "__main__":
    lr, training = search(Path("checkpoint.pt"))
    print("loss", training.validate())
    print("rate and steps of each stage", lr.chosen)
    print("cost", lr.cost)
    tp.Plan(horizon=lr.cost.exploited, lr=lr.found()).save("found.yaml")  # needs no search
