"""Learn two tasks in one network with Lightning, each under a plan and a mask of its own."""

from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

import trainplan as tp
from trainplan.optim import DynamicSparse

STEPS = 24
plan = tp.Plan(
    horizon=STEPS,
    lr=tp.schedules.linear(0.01),
    drop_fraction=tp.schedules.cosine(0.5, end=0.005),
)


class TwoTasks(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh())
        self.heads = torch.nn.ModuleDict({t: torch.nn.Linear(32, 2) for t in ("left", "right")})
        self.task = "left"
        self.sparse = DynamicSparse(
            self, density=0.25, grow="gradient", every=4, drop_fraction=None, skip=["heads"]
        )

    def forward(self, x):
        return self.heads[self.task](self.body(x))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), weight_decay=0.1)
        self.sparse.attach(optimizer)  # before the plan, which drives drop_fraction
        return optimizer


def data(task: str) -> StatefulDataLoader:
    x = torch.randn(96, 16, generator=torch.Generator().manual_seed(1))
    half = x[:, :8] if task == "left" else x[:, 8:]
    return StatefulDataLoader(TensorDataset(x, (half.sum(1) > 0).long()), batch_size=8)


def learn(module: TwoTasks, task: str, folder: Path, steps: int = STEPS, resume=None) -> None:
    module.task = task
    if module.sparse.task != task:
        module.sparse.begin(task, steps=STEPS)
    callbacks = [
        tp.lightning.PlanCallback(plan),
        ModelCheckpoint(folder, filename=task + "-{step}", every_n_train_steps=1, save_top_k=-1),
    ]
    trainer = lightning.Trainer(
        max_steps=steps,
        callbacks=callbacks,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data(task), ckpt_path=resume)
    if steps == STEPS:
        module.sparse.end()


if __name__ == "__main__":
    module = TwoTasks()
    for name in ("left", "right"):
        learn(module, name, Path("sparse-run"))
    with module.sparse.activated("left"):
        print(module(torch.zeros(1, 16)))
