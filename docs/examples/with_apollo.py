"""Fine-tune with APOLLO in Transformers' Trainer under a plan, and go on where it stopped."""

from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import trainplan as tp
from trainplan.optim import APOLLO, split_params

plan = tp.Plan(horizon=8, lr=tp.schedules.wsd(peak=0.01, warmup="25%", decay="25%"))


def model():
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": 32}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


def fit(folder: Path, steps: int = 8, resume: Path | None = None):
    network = model()
    groups = split_params(network, targets=["attn", "mlp"])
    trainer = Trainer(
        network,
        TrainingArguments(
            str(folder),
            max_steps=steps,
            save_steps=4,
            lr_scheduler_type="constant",  # the plan drives the learning rate
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=[
            {"input_ids": row, "labels": row}
            for row in torch.randint(32, (64, 8), generator=torch.Generator().manual_seed(1))
        ],
        optimizer_cls_and_kwargs=(APOLLO, {"params": groups, "rank": 0.25}),
        callbacks=[tp.transformers.PlanCallback(plan)],
    )
    trainer.train(resume_from_checkpoint=resume and str(resume))
    return trainer


if __name__ == "__main__":
    fit(Path("apollo-run"))
