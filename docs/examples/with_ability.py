"""Fine-tune on the examples within the model's ability, under Transformers; stop and go on."""

from pathlib import Path

import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainerCallback, TrainingArguments

import trainplan as tp

STEPS, BATCH, TRAIN = 30, 4, 60
LAG = 1  # the trainer reads one batch ahead

random = torch.Generator().manual_seed(0)
x = torch.randn(100, 2, generator=random)
y = (x.sum(1) > 0).long()

# A crowd of worse and better models answers all examples, those held out too.
noise = torch.linspace(3.0, 0.3, 12)[:, None] * torch.randn(12, 100, generator=random)
fit = tp.data.fit_rasch((x.sum(1) + noise > 0).long() == y)
hard, held_out = fit.difficulties[:TRAIN], fit.difficulties[TRAIN:]


class Classifier(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(2, 2)
        self.seen: list[list[float]] = []

    def forward(self, x, labels):
        self.seen.append(x[:, 0].tolist())
        logits = self.layer(x)
        return {"loss": cross_entropy(logits, labels), "logits": logits}


@torch.no_grad()
def ability(model: Classifier) -> float:
    right = model.layer(x[TRAIN:]).argmax(1) == y[TRAIN:]
    return tp.data.estimate_ability(held_out, right)


class Reports(TrainerCallback):
    """Estimates the ability before each pass over what is open."""

    def __init__(self, course: tp.data.Curriculum) -> None:
        self.course = course

    def on_step_end(self, args, state, control, model, **kwargs):
        step = state.global_step - 1
        due = self.course.next_pass(step) == step + 1 + LAG
        self.course.pacing.observe(step, **({"ability": ability(model)} if due else {}))


def fit_model(folder: Path, resume: Path | None = None, **options) -> Classifier:
    model = Classifier()
    pacing = tp.data.Feedback(tp.data.AbilityPacing(ability(model)), lag=LAG)
    course = tp.data.Curriculum(
        hard, pacing, BATCH, steps=STEPS, by="value", on_empty="least", least=4 * BATCH
    )
    arguments = TrainingArguments(
        str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        learning_rate=0.05,
        save_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    data = Dataset.from_dict({"x": x[:TRAIN].tolist(), "labels": y[:TRAIN].tolist()})
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[Reports(course)])
    tp.transformers.order_data(trainer, course)  # after the callback that reports
    trainer.train(resume_from_checkpoint=resume and str(resume))
    return trainer.model


if __name__ == "__main__":
    print(fit_model(Path("ability-run")).layer.weight)
