"""Transformers and TRL: runs made of several trainers, which go on where they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainplan.integrations.hf_data import transformers


def train_or_load(trainer: Any, steps: int) -> bool:
    """Train from the last checkpoint in the trainer's folder, or from the start if there is none.

    If the last checkpoint is that of the end, its weights are loaded and nothing is trained:
    ``trainer.train`` would make one more update.

    Args:
        trainer: Of Transformers or TRL; its ``output_dir`` holds checkpoints of this run alone.
        steps: Length of the trainer's run.

    Returns:
        Whether the run has come to its end; not if a callback stopped it.
    """
    folder = Path(trainer.args.output_dir)
    find = transformers.trainer_utils.get_last_checkpoint
    last = find(str(folder)) if folder.is_dir() else None
    if last is not None:
        state = transformers.TrainerState.load_from_json(str(Path(last) / "trainer_state.json"))
        if state.global_step >= steps:
            trainer._load_from_checkpoint(last)
            return True
    trainer.train(resume_from_checkpoint=last)
    return bool(trainer.state.global_step >= steps)
