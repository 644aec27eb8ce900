"""Transformers: have a trainer train on contexts that hold the model's own tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainplan._extras import require
from trainplan.data.self_tokens import SelfTokenMixer
from trainplan.errors import PlanError

transformers = require("transformers", extra="hf")
_TrainerCallback = transformers.TrainerCallback

_KEY = "trainplan_own_tokens"
"""Where the rest of a round stands in ``trainer_state.json``, under ``stateful_callbacks``."""


class OwnTokensCallback(_TrainerCallback):  # type: ignore[misc, valid-type]
    """Keeps what is left of a round in checkpoints; added by `mix_own_tokens`."""

    def __init__(self, mixer: SelfTokenMixer) -> None:
        self.mixer = mixer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go on in the round of the checkpoint, or begin one."""
        found = state.stateful_callbacks.pop(_KEY, None) if state.global_step else None
        self.mixer.load_state_dict(found or {"contexts": []})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the contexts down if a checkpoint comes."""
        if control.should_save:
            state.stateful_callbacks[_KEY] = self.mixer.state_dict()
        else:
            state.stateful_callbacks.pop(_KEY, None)

    on_epoch_end = on_step_end


def mix_own_tokens(trainer: Any, mixer: SelfTokenMixer) -> SelfTokenMixer:
    """Have a ``Trainer`` (or TRL's SFT trainer) mix own tokens into its training batches.

    At the beginning of a round it takes the batches of the round's updates from the data loader
    and mixes them in the main process, whatever the number of workers. Evaluation is not touched.
    Checkpoints hold the contexts of the rest of the round, so that a resumed run is the same run.

    Args:
        trainer: Before ``train()``. Its collator makes ``input_ids`` and ``labels``, with -100
            outside of answers.
        mixer: See `SelfTokenMixer`. Each rank needs the same.

    Returns:
        The mixer.

    Raises:
        PlanError: If the trainer mixes own tokens already.
    """
    callbacks = trainer.callback_handler.callbacks
    if any(isinstance(callback, OwnTokensCallback) for callback in callbacks):
        remedy = "Call mix_own_tokens() once"
        raise PlanError("mixes own tokens already", place="trainer", remedy=remedy)
    take = trainer.get_batch_samples

    def take_mixed(batches: Iterator[Any], number: int, device: Any) -> Any:
        def step() -> int:
            return int(trainer.state.global_step)

        return take(mixer.stream(batches, trainer.model, step, number), number, device)

    trainer.get_batch_samples = take_mixed
    trainer.add_callback(OwnTokensCallback(mixer))
    return mixer
