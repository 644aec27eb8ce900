"""Train a small GPT-2 with held norms in Transformers' Trainer, log effective rates, resume."""

from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

import trainplan as tp

plan = tp.Plan(
    horizon=8,
    lr=tp.schedules.cosine(3e-3),  # embeddings, norms, biases
    effective_lr=tp.schedules.cosine(1e-2, warmup="25%"),  # matrices whose norms are held
)


class LogRates(TrainerCallback):
    """Adds the mean effective rate of the held matrices to the Trainer's logs."""

    def __init__(self, projector):
        self.projector = projector
        self.rates = []

    def on_optimizer_step(self, args, state, control, model, optimizer, **kwargs):
        # At once: the Trainer's own scheduler overwrites the groups' rates after the step.
        initial = self.projector.initial
        rates = tp.optim.effective_lr(model, optimizer, initial=initial)
        self.rates.append(sum(rates[name] for name in initial) / len(initial))

    def on_log(self, args, state, control, logs, **kwargs):
        logs["effective_lr"] = self.rates[-1]


def fit(folder: Path, resume: Path | None = None):
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": 32}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    rows = [(torch.arange(8) + k) % 32 for k in range(32)]

    # Norms before the activations; every matrix of the blocks is held.
    batch = {"input_ids": torch.stack(rows[:2])}
    projector = tp.optim.normalize_and_project(model, batch, project="all")
    groups = projector.param_groups(effective_lr=1e-2)
    optimizer = torch.optim.AdamW(groups, lr=3e-3)
    projector.attach(optimizer)

    log = LogRates(projector)
    trainer = Trainer(
        model,
        TrainingArguments(
            str(folder),
            max_steps=8,
            save_steps=4,
            logging_steps=1,
            lr_scheduler_type="constant",  # the plan drives the learning rates
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=[{"input_ids": row, "labels": row} for row in rows],
        optimizers=(optimizer, None),
        callbacks=[tp.transformers.PlanCallback(plan), log],
    )
    trainer.train(resume_from_checkpoint=resume and str(resume))
    return trainer, projector, log.rates


if __name__ == "__main__":
    fit(Path("held-norms-run"))
