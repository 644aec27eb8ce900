"""Raise the motion of video triplets with Lightning, and go on exactly where a run stopped."""

from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torchdata.stateful_dataloader import StatefulDataLoader

import trainplan as tp
from trainplan.data import BatchSampler, MotionCurriculum, motion_triplets
from trainplan.models import InterleavedScan, laplacian_loss

PER_EPOCH = 4
curriculum = MotionCurriculum(
    total_epochs=3, epochs_per_stage=1, start_size=16, end_size=24, increment=0.25, max_gap=6
)
STEPS = curriculum.total_epochs * PER_EPOCH
plan = tp.Plan(horizon=STEPS, lr=tp.schedules.wsd(peak=2e-3, warmup=2, decay=4))


def clips(number: int, frames: int, side: int) -> np.ndarray:
    """A texture that moves by a pixel per frame; yours are read from a disk."""
    texture = np.random.default_rng(0).random((number, 1, side, side)).astype(np.float32)
    return np.stack([np.roll(texture, t, axis=-1) for t in range(frames)], axis=1)


class Interpolation(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shrink, self.grow = nn.Conv2d(1, 8, 4, stride=4), nn.PixelShuffle(4)
        self.block, self.leave = InterleavedScan(8, states=2), nn.Conv2d(16, 16, 1)

    def forward(self, first, last):
        # All first frames, then all second ones: the block's order.
        both = self.block(self.shrink(torch.cat([first, last])))
        change = self.grow(self.leave(torch.cat(both.chunk(2), dim=1)))
        return (first + last) / 2 + change

    def training_step(self, triplets, batch_idx):
        first, target, last = triplets.unbind(1)
        return laplacian_loss(self(first, last), target, levels=2)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())  # the plan sets the rate


def loader(workers: int = 0) -> StatefulDataLoader:
    data = motion_triplets(curriculum, clips(9, 3, 16), clips(4, 9, 24), crop=16)
    source = curriculum.mixture(data.sizes, PER_EPOCH, global_batch=4)
    return StatefulDataLoader(data, batch_sampler=BatchSampler(source), num_workers=workers)


def fit(folder: Path, resume: Path | None = None, workers: int = 0) -> Interpolation:
    trainer = lightning.Trainer(
        max_steps=STEPS,
        callbacks=[
            tp.lightning.PlanCallback(plan),
            ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1),
        ],
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Interpolation()
    trainer.fit(module, loader(workers), ckpt_path=resume)
    return module


if __name__ == "__main__":
    fit(Path("motion-run"))
