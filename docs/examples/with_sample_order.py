"""Record a run, estimate what other orders of its batches would give, and check the best one."""

from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

import trainplan as tp
from trainplan.laws.order import OrderedBatchSampler, OrderEstimator, OrderRecorder

STEPS, SIZE = 12, 16
PLAN = tp.Plan(horizon=STEPS, lr=tp.schedules.cosine(3e-3))


def make_data(seed: int, examples: int) -> TensorDataset:
    x = torch.randn(examples, 8, generator=torch.Generator().manual_seed(seed))
    y = torch.sin(x.sum(1, keepdim=True))
    by_size = x.norm(dim=1).argsort()  # small ones first: a curriculum, good or bad
    return TensorDataset(x[by_size], y[by_size])


def build() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    tp.torch.attach(PLAN, optimizer)
    return model, optimizer


def loss_fn(model: torch.nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def train(model, optimizer, loader) -> None:
    for batch in loader:
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()


def held_out(model: torch.nn.Module, seed: int = 1) -> float:
    with torch.no_grad():
        return loss_fn(model, list(make_data(seed, 256).tensors)).item()


def main(folder: Path, budget: int = 60) -> dict[str, float]:
    data = make_data(0, STEPS * SIZE)
    loader = DataLoader(data, batch_size=SIZE)

    model, optimizer = build()
    with OrderRecorder(folder, model, optimizer):  # listens to optimizer.step()
        train(model, optimizer, loader)
    found = {"recorded order": held_out(model)}

    model, optimizer = build()
    estimator = OrderEstimator(folder, model, optimizer, loss_fn, list(loader))
    print(estimator.cost())  # before anything is computed
    best = estimator.search(held_out, budget=budget)
    estimate = estimator.estimate(best.order)
    print(f"distance from the recorded path, over its length: {estimate.drift[-1]:.2f}")

    model, optimizer = build()
    sampler = OrderedBatchSampler(len(data), SIZE, order=best.order)
    train(model, optimizer, DataLoader(data, batch_sampler=sampler))
    return found | {"best order, estimated": best.score, "best order, trained": held_out(model)}


if __name__ == "__main__":
    for name, loss in main(Path("runs/reference")).items():
        print(f"{name}: {loss:.4f}")
