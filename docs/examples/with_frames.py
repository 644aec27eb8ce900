"""Train a TimeSformer on single frames first, then on four, under Transformers' Trainer."""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import (
    TimesformerConfig,
    TimesformerForVideoClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import trainplan as tp
from trainplan.data import FrameCountCurriculum, Shuffle, VideoClips, resize_frames

curriculum = FrameCountCurriculum(frames=(1, 4), shares=(2, 1), steps=12)
plan = tp.Plan(horizon=curriculum.steps, lr=tp.schedules.wsd(peak=3e-3, warmup=2, decay=3))


class Frames(TrainerCallback):
    """Gives the model as many temporal positions as the step's clips have frames."""

    def on_step_begin(self, args, state, control, model, optimizer, **kwargs):
        resize_frames(model, curriculum.num_frames(state.global_step), optimizer)


def videos(number: int = 40) -> VideoClips:
    """A bar that moves left or right."""
    random = np.random.default_rng(0)
    right, start = random.integers(0, 2, number), random.integers(0, 8, number)
    time = np.arange(8)
    places = (start[:, None] + np.where(right, 1, -1)[:, None] * time) % 8
    pixels = np.zeros((number, 8, 3, 8, 8), np.float32)
    pixels[np.arange(number)[:, None], time, :, :, places] = 1
    return VideoClips(pixels, columns={"labels": right.tolist()})


def model(step: int = 0) -> TimesformerForVideoClassification:
    """With the temporal positions of a step: a checkpoint's sizes must be those of the model."""
    torch.manual_seed(0)
    config = TimesformerConfig(
        image_size=8,
        patch_size=4,
        num_frames=curriculum.num_frames(step),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=2,
    )
    return TimesformerForVideoClassification(config)


def fit(folder: Path, resume: Path | None = None, **options) -> TimesformerForVideoClassification:
    done = 0
    if resume is not None:
        # The last step's clips decide: the table grows when the next step begins.
        state = json.loads((resume / "trainer_state.json").read_text())
        done = state["global_step"] - 1
    arguments = TrainingArguments(
        str(folder),
        max_steps=curriculum.steps,
        per_device_train_batch_size=4,
        lr_scheduler_type="constant",  # the plan drives the learning rate
        save_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    data = videos()
    trainer = Trainer(
        model(done),
        arguments,
        train_dataset=data,
        callbacks=[tp.transformers.PlanCallback(plan), Frames()],
    )
    tp.transformers.order_data(trainer, Shuffle(len(data), 4, epochs=2), shape=curriculum)
    trainer.train(resume_from_checkpoint=resume and str(resume))
    return trainer.model


if __name__ == "__main__":
    fit(Path("frames-run"))
