"""Let controllers that try things out save a task in training and go back to it.

A controller with a method ``connect`` (such as ``AutoLRS``) asks the loop to keep its state and to
restore it later. What is kept is all that training changes: the model, the optimizer, what else
the task saves, and the clock, which is also the position in the data and the seed of every step.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from trainplan.integrations.torch import Run
from trainplan.lab.workload import Task


class Rewind:
    """The kept state of one task, in memory; for the controllers of its run."""

    def __init__(self, task: Task, run: Run) -> None:
        self.task = task
        self.run = run
        self.kept: dict[str, Any] | None = None
        self._went_back = False

    def connect(self) -> None:
        """Give the run's controllers the means to go back; after its state is loaded, if any."""
        for controller in self.run.plan.controllers.values():
            if hasattr(controller, "connect"):
                controller.connect(save=self.save, restore=self.restore, validate=self.validate)

    @property
    def trying(self) -> bool:
        """Whether what is being trained will be undone."""
        return any(getattr(c, "searching", False) for c in self.run.plan.controllers.values())

    def went_back(self) -> bool:
        """Whether the task was restored since this was last asked."""
        answer, self._went_back = self._went_back, False
        return answer

    def save(self) -> None:
        """Keep the present state, in place of the one before."""
        state: dict[str, Any] = {
            "model": self.task.model.state_dict(),
            "optimizer": self.task.optimizer.state_dict(),
            "clock": self.run.clock.state_dict(),
        }
        if hasattr(self.task, "state_dict"):
            state["task"] = self.task.state_dict()
        self.kept = copy.deepcopy(state)

    def restore(self) -> None:
        """Go back to the kept state; it can be gone back to again."""
        if self.kept is None:
            raise RuntimeError("restore() before save()")
        # An optimizer goes on with the tensors that it is given, and would train the kept ones.
        state = copy.deepcopy(self.kept)
        self.task.model.load_state_dict(state["model"])
        self.run.clock.load_state_dict(state["clock"])
        self.task.optimizer.load_state_dict(state["optimizer"])
        if hasattr(self.task, "load_state_dict"):
            self.task.load_state_dict(state["task"])
        self._went_back = True

    def validate(self) -> float:
        """The task's validation loss."""
        return float(self.task.evaluate()["loss"])

    def state_dict(self) -> dict[str, Any]:
        """What is kept: tensors, plain numbers and text; empty if nothing is."""
        return {} if self.kept is None else self.kept

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep what `state_dict` gave."""
        self.kept = dict(state) or None
