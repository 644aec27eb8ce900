"""Train a small GPT-2 on contexts that hold its own tokens, in Transformers' Trainer; resume."""

from functools import partial
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import trainplan as tp
from trainplan.data.corrections import answer_example, padded

END, PAD = 10, 11
plan = tp.Plan(
    horizon=12,
    lr=tp.schedules.cosine(3e-3),
    own_tokens=tp.schedules.linear(0.0, end=0.5, duration="50%"),
)


def examples(number: int = 48) -> list[dict[str, list[int]]]:
    """Three digits, and their running sums modulo ten."""
    digits = torch.randint(10, (number, 3), generator=torch.Generator().manual_seed(0))
    sums = digits.cumsum(1) % 10
    return [answer_example(d, s, END) for d, s in zip(digits.tolist(), sums.tolist(), strict=True)]


def fit(folder: Path, share=plan["own_tokens"], resume: Path | None = None, **options):
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": 12}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=END, eos_token_id=END))
    trainer = Trainer(
        model,
        TrainingArguments(
            str(folder),
            max_steps=plan.horizon,
            per_device_train_batch_size=8,
            save_steps=1,
            lr_scheduler_type="constant",  # the plan drives the rate
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            **options,
        ),
        train_dataset=examples(),
        data_collator=partial(padded, pad=PAD),
        callbacks=[tp.transformers.PlanCallback(plan)],
    )
    mixer = tp.data.SelfTokenMixer(share, refresh_every=4, eos=END)
    tp.transformers.mix_own_tokens(trainer, mixer)
    trainer.train(resume_from_checkpoint=resume and str(resume))
    return trainer


if __name__ == "__main__":
    fit(Path("own-tokens-run"))
