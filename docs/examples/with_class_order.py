"""Learn classes one after another, in a good order and with a little replay."""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import trainplan as tp
from trainplan.data import (
    BalancedReservoir,
    BatchSampler,
    Curriculum,
    CurriculumDesigner,
    group_difficulty,
)

BATCH, REPLAY = 10, 10

digits = load_digits(n_class=5)
images, labels = torch.tensor(digits.data / 16).float(), digits.target
designer = CurriculumDesigner.of(images, labels)
STEPS = len(labels) // BATCH
plan = tp.Plan(horizon=STEPS, lr=tp.schedules.constant(0.01))


class Training:
    """One pass over the classes of an order; all of its state fits a file."""

    def __init__(self, order) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 5)
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1.0, momentum=0.9)
        self.run = tp.torch.attach(plan, self.optimizer)
        place = group_difficulty(labels, order)  # the first class is the easiest
        self.sampler = BatchSampler(Curriculum(place, None, BATCH, within="sorted", steps=STEPS))
        self.memory = BalancedReservoir(capacity=25)

    def train(self, until: int = STEPS) -> None:
        data = TensorDataset(images, torch.tensor(labels), torch.arange(len(labels)))
        loader = DataLoader(data, batch_sampler=self.sampler)
        for shown, marks, index in loader:
            old = torch.from_numpy(self.memory.sample(REPLAY))  # indices, to look up
            inputs = torch.cat([shown, images[old]])
            targets = torch.cat([marks, data.tensors[1][old]])
            self.optimizer.zero_grad()
            cross_entropy(self.model(inputs), targets).backward()
            self.optimizer.step()
            self.memory.add(index.tolist(), marks.tolist())
            if self.sampler.step >= until:
                break

    def save(self, path: Path) -> None:
        parts = {name: getattr(self, name).state_dict() for name in vars(self)}
        torch.save(parts, path)

    def load(self, path: Path) -> None:
        for name, state in torch.load(path).items():
            getattr(self, name).load_state_dict(state)


def accuracy(model) -> list[float]:
    """Of each class."""
    with torch.no_grad():
        right = (model(images).argmax(1).numpy() == labels).astype(float)
    return [float(right[labels == name].mean()) for name in range(5)]


if __name__ == "__main__":
    training = Training(designer.best()[0])
    training.train()
    print(designer.best()[0], np.mean(accuracy(training.model)))
