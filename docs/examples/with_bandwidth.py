"""Train on low frequencies first, with Lightning, and go on after an interruption."""

from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, interpolate
from torchdata.stateful_dataloader import StatefulDataLoader

import trainplan as tp

EPOCHS, STEPS, BATCH = 5, 4, 64
stages = tp.data.bandwidth_stages(EPOCHS, (10, 10, 12, 14, 16), warmup=1)
plan = tp.Plan(
    horizon=EPOCHS * STEPS,
    steps_per_epoch=STEPS,
    lr=stages.lr(0.01),  # one curve over all stages
    bandwidth=stages.bandwidth,
    magnitude=stages.magnitude,
)


def images() -> list[tuple[torch.Tensor, int]]:
    x, y = load_digits(return_X_y=True)
    x = torch.tensor(x[: BATCH * STEPS], dtype=torch.float32).view(-1, 1, 8, 8)
    return list(zip((interpolate(x, 16, mode="bicubic") - 5) / 6, y.tolist(), strict=False))


def noise(magnitude: float):
    """An augmentation of a given strength; with torchvision, take tp.data.rand_augment."""
    return lambda image: image + 0.02 * magnitude * torch.sin(100 * image)


def loader() -> StatefulDataLoader:
    data = images()
    sampler = tp.data.BatchSampler(
        tp.data.Shuffle(len(data), BATCH, epochs=EPOCHS),
        shape=tp.data.Strengths(plan["magnitude"]),  # reaches all workers
    )
    return StatefulDataLoader(tp.data.Shaped(data, tp.data.Augment(noise)), batch_sampler=sampler)


class Digits(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),  # takes any size
            nn.Flatten(),
            nn.Linear(32, 10),
        )
        self.crop = tp.data.LowFrequencyCrop(plan["bandwidth"])
        self.sizes: list[int] = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        x = self.crop(x, self.global_step)
        self.sizes.append(x.shape[-1])
        return cross_entropy(self.network(x), y)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), weight_decay=0.05)  # the plan sets the rate


def fit(folder: Path, resume: Path | None = None) -> Digits:
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
    module = Digits()
    trainer.fit(module, loader(), ckpt_path=resume)
    return module


if __name__ == "__main__":
    print(fit(Path("bandwidth-run")).sizes)
