"""Train with Lightning under a plan, stop anywhere, and go on as if nothing had happened."""

from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

import trainplan as tp

plan = tp.Plan(
    horizon=12,
    lr=tp.schedules.wsd(peak=0.05, warmup="25%", decay="25%"),
    weight_decay=tp.schedules.linear(0.1, end=0.01),
    betas=(0.9, 0.95),
)


class Regression(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.layer(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())  # the plan sets the rest


def batches(size: int = 8) -> StatefulDataLoader:
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(x, x.sum(dim=1, keepdim=True))
    return StatefulDataLoader(data, batch_size=size)  # a plain one begins its epoch anew


def fit(folder: Path, steps: int, plan: tp.Plan = plan, resume: Path | None = None, **options):
    trainer = lightning.Trainer(
        max_steps=steps,
        callbacks=[
            LearningRateMonitor(),
            tp.lightning.PlanCallback(plan),
            ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1),
        ],
        logger=CSVLogger(folder),
        log_every_n_steps=1,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    module = Regression()
    trainer.fit(module, batches(), ckpt_path=resume)
    return module, trainer


if __name__ == "__main__":
    folder = Path("lightning-run")
    fit(folder, steps=7)  # interrupted
    fit(folder, steps=12, resume=folder / "step=7.ckpt")
