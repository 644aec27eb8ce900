"""Adapt to cameras from near to far with Transformers' Trainer; stop anywhere."""

from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

import trainplan as tp
from trainplan.data import (
    DomainCurriculum,
    Joined,
    Mixture,
    diversity_loss,
    diversity_weights,
    domain_distances,
)

EPOCHS, PER_EPOCH, BATCH = 6, 4, 16
SHIFTS = {"source": 0.0, "roof": 1.5, "door": 0.3, "hall": 0.8}

plan = tp.Plan(horizon=EPOCHS * PER_EPOCH, lr=tp.schedules.constant(0.01))


def cameras() -> Joined:
    """A labelled source and three cameras, ever farther from it."""
    random = np.random.default_rng(0)
    parts, first = {}, 0
    for name, shift in SHIFTS.items():
        classes = random.integers(4, size=60)
        pixels = 2 * np.eye(4, 8)[classes] + random.normal(scale=0.5, size=(60, 8))
        columns = {"pixels": pixels + shift, "index": range(first, first + 60)}
        known = classes if name == "source" else np.full(60, -1)
        parts[name] = Dataset.from_dict(columns | {"known": known}).with_format("torch")
        first += 60
    return Joined(parts)


class Reader(nn.Module):
    """Pseudo-labels are buffers: read at the last moment, and part of checkpoints."""

    def __init__(self, labels: torch.Tensor) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(8, 16), nn.Linear(16, 4)
        self.register_buffer("marks", labels.clone())
        self.register_buffer("weights", torch.ones(len(labels)))

    def forward(self, pixels, index):
        logits = self.head(self.body(pixels.float()).relu())
        loss = diversity_loss(logits, self.marks[index], self.weights[index])
        return {"loss": loss, "logits": logits}


class Relabel(TrainerCallback):
    """New pseudo-labels for the open cameras at the start of each epoch."""

    def __init__(self, data: Joined, curriculum: DomainCurriculum) -> None:
        self.pixels = torch.cat([part[:]["pixels"] for part in data.datasets.values()])
        self.domains = np.repeat(list(data.sizes), list(data.sizes.values()))
        self.curriculum = curriculum

    @torch.no_grad()
    def on_step_begin(self, args, state, control, model, **kwargs):
        epoch, inside = divmod(state.global_step, PER_EPOCH)
        if inside:
            return
        target = np.flatnonzero(self.domains != "source")
        chosen = target[self.curriculum.members(epoch, self.domains[target])]
        model.eval()  # the trainer turns it back
        logits = model(self.pixels[chosen], torch.from_numpy(chosen))["logits"]
        marks = logits.argmax(1)
        weights = diversity_weights(marks, self.domains[chosen])
        model.marks[chosen] = marks
        model.weights[chosen] = torch.from_numpy(weights).float()


def fit(folder: Path, resume: Path | None = None, **options) -> Reader:
    data = cameras()
    known = torch.cat([part[:]["known"] for part in data.datasets.values()])
    model, sizes = Reader(known), data.sizes
    pixels = {name: part[:]["pixels"] for name, part in data.datasets.items()}
    distances = domain_distances(  # in earnest of features of the trained model
        pixels.pop("source"),
        torch.cat(list(pixels.values())),
        np.repeat(list(pixels), [len(rows) for rows in pixels.values()]),
    )
    curriculum = DomainCurriculum(
        distances,
        EPOCHS,
        steps_per_epoch=PER_EPOCH,
        sizes={name: sizes[name] for name in distances},
        always={"source": 0.5},
    )
    arguments = TrainingArguments(
        str(folder),
        max_steps=plan.horizon,
        per_device_train_batch_size=BATCH,
        lr_scheduler_type="constant",  # the plan drives the learning rate
        save_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=data,
        callbacks=[tp.transformers.PlanCallback(plan), Relabel(data, curriculum)],
    )
    mixture = Mixture(sizes, curriculum.mixture(), BATCH, steps=plan.horizon)
    tp.transformers.order_data(trainer, mixture)
    trainer.train(resume_from_checkpoint=resume and str(resume))
    return trainer.model


if __name__ == "__main__":
    model = fit(Path("cameras-run"))
    print(f"{(model.marks >= 0).float().mean():.0%} of the images are labelled")
