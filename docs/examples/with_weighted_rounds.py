"""Train in rounds that grow and shrink, with Lightning; stop anywhere, go on exactly."""

from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

import trainplan as tp

random = torch.Generator().manual_seed(0)
x = torch.randn(120, 2, generator=random)
y = (x.sum(1) + 0.5 * torch.randn(120, generator=random) > 0).long()
losses = cross_entropy(torch.stack([-x.sum(1), x.sum(1)], 1), y, reduction="none")  # a teacher's

sizes = tp.data.cyclic_sizes(start=0.25, end=1.0, multiplier=0.5, budget=4, until_full=True)
weights = tp.data.loss_weights(losses, "hard")
steps = tp.data.WeightedSubsets(weights, sizes, global_batch=8).steps
plan = tp.Plan(horizon=steps, lr=tp.schedules.linear(0.05))  # rounds differ in length: count steps


class Rounds(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(2, 2)
        self.seen: list[list[float]] = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0][:, 0].tolist())
        return cross_entropy(self.layer(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())  # the plan sets the rate

    def train_dataloader(self):
        source = tp.data.WeightedSubsets(weights, sizes, global_batch=8)
        return StatefulDataLoader(TensorDataset(x, y), batch_sampler=tp.data.BatchSampler(source))


def fit(folder: Path, until: int = steps, resume: Path | None = None) -> Rounds:
    trainer = lightning.Trainer(
        max_steps=until,
        callbacks=[
            tp.lightning.PlanCallback(plan),
            ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1),
        ],
        use_distributed_sampler=False,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Rounds()
    trainer.fit(module, ckpt_path=resume)
    return module


if __name__ == "__main__":
    print(fit(Path("rounds-run")).seen[-1])
