"""Shift weight from labelled to unlabelled data with Lightning, and go on where a run stopped."""

from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torchdata.stateful_dataloader import StatefulDataLoader

import trainplan as tp

EPOCHS, STEPS, BATCH = 4, 5, 16
plan = tp.Plan(
    horizon=EPOCHS * STEPS,
    steps_per_epoch=STEPS,
    lr=0.01,
    head_lr=tp.data.head_rate(),
    consistency=tp.data.consistency_weight().sample(every="1 epoch"),
)


class Transfer(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.student = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 6))
        self.teacher = tp.models.EmaTeacher(self.student, 0.99, every=STEPS)  # once per epoch
        x, y = load_digits(return_X_y=True)
        x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
        self.source, self.labels, self.target = x[y < 6], y[y < 6], 1 - x[y >= 6]
        self.used: list[tuple[float, float]] = []

    def training_step(self, step, batch_idx):
        random = torch.Generator().manual_seed(int(step))  # a resumed run draws the same
        rows = torch.randint(len(self.source), (BATCH,), generator=random)
        u = self.target[torch.randint(len(self.target), (BATCH,), generator=random)]
        weak, strong = (u + s * torch.randn(u.shape, generator=random) for s in (0.05, 0.3))
        agreement = tp.models.consistency_loss(self.student(strong), self.teacher(weak))
        weight = self.plan_callback.values["consistency"]
        supervised = cross_entropy(self.student(self.source[rows]), self.labels[rows])
        return supervised + weight * agreement

    @property
    def plan_callback(self) -> tp.lightning.PlanCallback:
        return next(c for c in self.trainer.callbacks if isinstance(c, tp.lightning.PlanCallback))

    def on_train_start(self):
        tp.data.follow(self.plan_callback.run, 1, "head_lr")

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        self.teacher.update(self.student)  # here, so that every checkpoint holds it
        rates = [group["lr"] for group in self.optimizers().param_groups]
        self.used.append(tuple(rates))

    def configure_optimizers(self):
        *body, head = self.student.children()
        groups = [{"params": nn.Sequential(*body).parameters()}, {"params": head.parameters()}]
        return torch.optim.SGD(groups, 0.01, momentum=0.9, nesterov=True)

    def train_dataloader(self):
        return StatefulDataLoader(range(plan.horizon), batch_size=None)


def fit(folder: Path, resume: Path | None = None) -> Transfer:
    trainer = lightning.Trainer(
        max_steps=plan.horizon,
        gradient_clip_val=5.0,
        callbacks=[
            tp.lightning.PlanCallback(plan),
            ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1),
        ],
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Transfer()
    trainer.fit(module, ckpt_path=resume)
    return module


if __name__ == "__main__":
    print(fit(Path("transfer-run")).used)
