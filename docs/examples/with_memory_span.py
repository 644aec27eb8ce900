"""Lengthen a recurrent network's memory with Lightning, and go on exactly where a run stopped."""

from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torchdata.stateful_dataloader import StatefulDataLoader

import trainplan as tp
from trainplan.data import HorizonCurriculum, MemoryTask
from trainplan.models import LeakyRNN, accuracies, summed_loss

plan = tp.Plan(horizon=40, lr=tp.schedules.constant(0.01))


class Memory(lightning.LightningModule):
    def __init__(self, every: int = 5, threshold: float = 0.98) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = LeakyRNN(hidden=32, heads=range(2, 30))
        self.curriculum = HorizonCurriculum("cumulative", threshold=threshold)
        self.task, self.fresh = MemoryTask(batch_size=64), MemoryTask(batch_size=256, seed=1)
        self.every = every

    def training_step(self, step, batch_idx):
        # Here, not after a batch: checkpoints are written before the module hears of its end.
        if step and step % self.every == 0:
            with torch.no_grad():
                self.curriculum.update(accuracies(*self.answers(self.fresh, step)))
        return summed_loss(*self.answers(self.task, step))

    def answers(self, task: MemoryTask, step: int):
        bits, labels = task.batch(int(step), self.curriculum.active)
        noise = torch.Generator().manual_seed(int(step))  # a resumed run has the same
        start = self.network.start(bits.shape[1], noise)
        answers = self.network(torch.from_numpy(bits), list(labels), start)
        return answers, {n: torch.from_numpy(values) for n, values in labels.items()}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())  # the plan sets the rate

    def train_dataloader(self):
        return StatefulDataLoader(range(plan.horizon), batch_size=None)  # numbers of batches

    def on_save_checkpoint(self, checkpoint):
        checkpoint["curriculum"] = self.curriculum.state_dict()

    def on_load_checkpoint(self, checkpoint):
        self.curriculum.load_state_dict(checkpoint["curriculum"])


def fit(folder: Path, steps: int = plan.horizon, resume: Path | None = None, **options) -> Memory:
    trainer = lightning.Trainer(
        max_steps=steps,
        callbacks=[
            tp.lightning.PlanCallback(plan),
            ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1),
        ],
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Memory(**options)
    trainer.fit(module, ckpt_path=resume)
    return module


if __name__ == "__main__":
    print(fit(Path("memory-run")).curriculum.active)
