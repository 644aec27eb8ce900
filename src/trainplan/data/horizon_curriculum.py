"""Lengthen the memory that a network must hold, whenever it has mastered the present one.

Keeping the earlier spans (a read-out for each) prevents forgetting and costs little; replacing them
forgets. Khajehabdollahi et al., 2023, "Emergent mechanisms for long timescales depend on training
curriculum", arXiv 2309.12927.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count, finite

MODES: Final = ("cumulative", "single", "sliding", "fixed")


class HorizonCurriculum:
    """Which N are trained, and when the next one comes.

    It advances when the mean accuracy over the active N and that of the largest are both above the
    threshold. ``cumulative`` adds the next N and keeps all; ``single`` replaces N by N + 1;
    ``sliding`` drops the smallest and adds as many; ``fixed`` never changes, and is `solved`.

    Args:
        mode: See above.
        start: The first N: one, or several for ``sliding`` and ``fixed``.
        threshold: To be exceeded, in the unit of the accuracies.
        add: How many N ``cumulative`` adds, and by how much ``single`` grows.
        forget: How many N ``sliding`` drops and adds.
        most: The largest N; it is `solved` when that is mastered.

    Attributes:
        active: N in ascending order.
        checks: How often it was updated.
        solved: Whether there is nothing left to advance to.

    Raises:
        PlanError: If an argument cannot be meant.

    >>> curriculum = HorizonCurriculum("cumulative")
    >>> curriculum.update({2: 0.99}), curriculum.active
    (True, [2, 3])
    >>> curriculum.update({2: 1.0, 3: 0.97}), curriculum.active
    (False, [2, 3])
    """

    def __init__(
        self,
        mode: str = "cumulative",
        start: int | Iterable[int] = 2,
        *,
        threshold: float = 0.98,
        add: int = 1,
        forget: int = 1,
        most: int | None = None,
    ) -> None:
        if mode not in MODES:
            raise PlanError("unknown", place="mode", value=mode, remedy=nearest(mode, MODES))
        self.mode, self.threshold = mode, finite(threshold, "threshold")
        given = [start] if isinstance(start, int) else list(start)
        self.active = sorted({count(n, "start") for n in given})
        self.add, self.forget = count(add, "add"), count(forget, "forget")
        self.most = None if most is None else count(most, "most", least=2)
        if not self.active or (mode == "single" and len(self.active) > 1):
            remedy = "Give one N" if self.active else "Give at least one N"
            raise PlanError("cannot begin", place="start", value=given, remedy=remedy)
        if mode == "sliding" and self.forget > len(self.active):
            remedy = f"Give at most {len(self.active)}"
            raise PlanError(
                "drops more than there are", place="forget", value=forget, remedy=remedy
            )
        self.checks, self.solved = 0, False

    @property
    def largest(self) -> int:
        """The largest N."""
        return self.active[-1]

    def update(self, accuracies: Mapping[int, float]) -> bool:
        """Advance if it is time; at most once per call.

        Args:
            accuracies: Of every active N, on fresh data; others are ignored.

        Returns:
            Whether the active N have changed.

        Raises:
            PlanError: If one is missing.
        """
        missing = [n for n in self.active if n not in accuracies]
        if missing:
            remedy = f"Evaluate N = {missing[0]}"
            raise PlanError("no accuracy", place="accuracies", value=missing, remedy=remedy)
        self.checks += 1
        found = [float(accuracies[n]) for n in self.active]
        if not (sum(found) / len(found) > self.threshold and found[-1] > self.threshold):
            return False
        before = list(self.active)
        self.active = self._next()
        self.solved = self.active == before
        return not self.solved

    def _next(self) -> list[int]:
        last = self.largest
        if self.mode == "fixed":
            return self.active
        if self.mode == "single":
            new = [last + self.add]
        else:
            number = self.add if self.mode == "cumulative" else self.forget
            kept = self.active if self.mode == "cumulative" else self.active[number:]
            new = [*kept, *range(last + 1, last + number + 1)]
        return self.active if self.most is not None and new[-1] > self.most else new

    def state_dict(self) -> dict[str, Any]:
        """The active N and the count of checks."""
        return {"active": list(self.active), "checks": self.checks, "solved": self.solved}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            PlanError: If it is none.
        """
        if set(state) != set(self.state_dict()):
            raise PlanError("not the state of a curriculum", place="state", value=sorted(state))
        self.active = [count(n, "state.active") for n in state["active"]]
        self.checks, self.solved = int(state["checks"]), bool(state["solved"])
