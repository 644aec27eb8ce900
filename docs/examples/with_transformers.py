"""Train with Transformers under a plan, stop anywhere, and go on as if nothing had happened."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

import trainplan as tp

plan = tp.Plan(
    horizon=12,
    lr=tp.schedules.wsd(peak=0.01, warmup="25%", decay="25%"),
    weight_decay=tp.schedules.linear(0.1, end=0.01, duration=8),
    betas=(0.9, 0.95),
)


def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, num_hidden_layers=1, **sizes))


def sentences(n: int = 40):
    tokens = torch.randint(32, (n, 8), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": row} for row in tokens]


def arguments(folder: Path, steps: int, **options):
    settings = {
        "lr_scheduler_type": "constant",  # the plan drives the learning rate
        "per_device_train_batch_size": 4,
        "save_steps": 1,
        "logging_steps": 1,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return TrainingArguments(str(folder), max_steps=steps, **(settings | options))


def fit(folder: Path, steps: int, plan: tp.Plan = plan, resume: Path | None = None, **options):
    trainer = Trainer(
        model(),
        arguments(folder, steps, **options),
        train_dataset=sentences(),
        callbacks=[tp.transformers.PlanCallback(plan)],
    )
    trainer.train(resume_from_checkpoint=resume and str(resume))
    return trainer


def fit_with_scheduler(folder: Path, steps: int, plan: tp.Plan, resume: Path | None = None):
    """The same for a plan with no other knob of the optimizer, as a scheduler."""
    network = model()
    optimizer = torch.optim.AdamW(network.parameters())
    scheduler = tp.transformers.plan_scheduler(plan, optimizer)
    trainer = Trainer(
        network,
        arguments(folder, steps),
        train_dataset=sentences(),
        optimizers=(optimizer, scheduler),
    )
    trainer.train(resume_from_checkpoint=resume and str(resume))
    return trainer


if __name__ == "__main__":
    folder = Path("transformers-run")
    fit(folder, steps=7)  # interrupted
    fit(folder, steps=12, resume=folder / "checkpoint-7")
