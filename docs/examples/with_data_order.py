"""Read data in a computed order under Transformers: stop anywhere, go on exactly."""

from pathlib import Path

import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

import trainplan as tp

STEPS = 12

plan = tp.Plan(
    horizon=STEPS,
    lr=tp.schedules.wsd(peak=0.05, warmup=2, decay=3),
    data={
        "difficulty": {"column": "length"},
        "pacing": {"root": {"start": "20%", "full_at": "50%"}},
    },
)


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, length, labels):
        predicted = self.layer(length[:, None].float())[:, 0]
        return {"loss": torch.nn.functional.mse_loss(predicted, labels.float())}


def fit(folder: Path, resume: Path | None = None, **options):
    data = Dataset.from_dict({"length": list(range(40)), "labels": [x / 40 for x in range(40)]})
    arguments = TrainingArguments(
        str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=4,
        lr_scheduler_type="constant",  # the plan drives the learning rate
        save_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    trainer = Trainer(
        Line(), arguments, train_dataset=data, callbacks=[tp.transformers.PlanCallback(plan)]
    )
    tp.transformers.order_data(trainer, tp.data.from_plan(plan, data, global_batch=4))
    trainer.train(resume_from_checkpoint=resume and str(resume))
    return trainer.model
