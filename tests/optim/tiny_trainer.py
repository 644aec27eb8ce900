"""Transformers' Trainer with a tiny GPT-2, for any optimizer."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from optim.training import Subject


def gpt2() -> Any:
    """One layer of width 16 without dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": 32}
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return GPT2LMHeadModel(GPT2Config(**sizes, **rates, bos_token_id=0, eos_token_id=0))


def fit(subject: Subject, way: str, folder: Path, resume: Path | None = None) -> Any:
    """Seven updates on sentences that count, saved after the fourth."""
    from transformers import Trainer, TrainingArguments

    model = gpt2()
    rows = [(torch.arange(8) + k) % 32 for k in range(40)]
    settings = TrainingArguments(
        str(folder),
        max_steps=7,
        save_steps=4,
        logging_steps=1,
        per_device_train_batch_size=8,
        lr_scheduler_type="constant",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    optimizer: dict[str, Any]
    if way == "class":
        assert subject.trainer is not None
        optimizer = {"optimizer_cls_and_kwargs": subject.trainer(model)}
    else:
        optimizer = {"optimizers": (subject.make(model), None)}
    data = [{"input_ids": row, "labels": row} for row in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(model, settings, train_dataset=data, **optimizer)
        trainer.train(resume_from_checkpoint=resume and str(resume))
    return trainer
