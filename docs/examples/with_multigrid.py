"""Train a video network under multigrid with Lightning, and go on exactly where a run stopped."""

from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn.functional import cross_entropy, interpolate
from torchdata.stateful_dataloader import StatefulDataLoader

import trainplan as tp
from trainplan.data import BatchSampler, MultigridBatches, MultigridSchedule, Shaped, Shuffle
from trainplan.models import split_batch_norms

BATCH = 8
# In place of 3 epochs of which the last has a tenth of the rate.
grid = MultigridSchedule.from_step_schedule([0, 2], 3, crop=16, frames=8)
batches = MultigridBatches(Shuffle(128, BATCH), grid)
plan = tp.Plan(horizon=batches.steps, lr=batches.lr(0.02, warmup=0.5))


def videos() -> list[tuple[np.ndarray, int]]:
    """Noise that moves to the left or to the right; yours are decoded from files."""
    random = np.random.default_rng(0)
    still = random.random((128, 1, 20, 20)).astype(np.float32)
    left = np.stack([np.roll(still[:64], -t, axis=3) for t in range(12)], axis=2)
    right = np.stack([np.roll(still[64:], t, axis=3) for t in range(12)], axis=2)
    return [(video, k // 64) for k, video in enumerate([*left, *right])]


def read(data, index: int, shape: dict[str, int]):
    """A clip of some frames and pixels; this runs in the loader's workers."""
    video, label = data[index]
    random = np.random.default_rng((index, *shape.values()))
    places = grid.clip_frames(video.shape[1], shape["frames"], 1, random)
    clip = torch.from_numpy(video[:, places])[None]
    size = (shape["frames"], shape["crop"], shape["crop"])
    return interpolate(clip, size, mode="area")[0], label


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Conv3d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm3d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(8, 2),
        )
        split_batch_norms(self.network, 1)

    def training_step(self, clips, batch_idx):
        videos, labels = clips
        # Statistics of BATCH clips in every phase; nothing changes unless the phase does.
        phase = batches.phase_at(self.global_step)
        split_batch_norms(self.network, grid.normalisation(phase, BATCH, base=BATCH).splits)
        return cross_entropy(self.network(videos), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)  # the plan sets the rate


def loader(workers: int = 0) -> StatefulDataLoader:
    data = Shaped(videos(), read=read)
    return StatefulDataLoader(data, batch_sampler=BatchSampler(batches), num_workers=workers)


def fit(folder: Path, resume: Path | None = None, workers: int = 0) -> Classifier:
    trainer = lightning.Trainer(
        max_steps=plan.horizon,
        callbacks=[
            tp.lightning.PlanCallback(plan),
            ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1),
        ],
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Classifier()
    trainer.fit(module, loader(workers), ckpt_path=resume)
    return module


if __name__ == "__main__":
    fit(Path("multigrid-run"))
