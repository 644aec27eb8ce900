"""How far each data set of a mixture has been read at each step, and what happens at its end.

For shares that are known beforehand the positions are sums of quotas, gone through a thousand
steps at a time; only the few steps at which a data set runs out are taken one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from trainplan.data.batches import Indices
from trainplan.data.hashing import hashed, key
from trainplan.data.mixture_replay import REPLAY, Buffer
from trainplan.data.quotas import (
    CHOICE,
    Counts,
    Floats,
    capped_counts,
    drawn_counts,
    labels_at,
    quota_counts,
    turns,
)
from trainplan.data.shares import Shares, by_name
from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count

Policy = Literal["repeat", "stop", "cover", "drop", "error"]
POLICIES = ("repeat", "stop", "cover", "drop", "error")
_CHUNK = 1024
_BLOCK = 1 << 16
"""So many places are drawn for at once, to stay in the processor's cache."""
_LONGEST = 1 << 22
"""So many steps are gone through at most to find the end of a run."""


class Walk:
    """Positions in each data set, step by step.

    Args:
        shares: Share of each data set at each step.
        sizes: (k,) number of examples of each.
        size: Examples of a step.
        seed: Of the quotas' offsets, and of draws.
        exact: Whether steps have exact quotas.
        exhausted: What to do when a data set ends, for all or by name.
        max_epochs: Drop a data set that was read so often, for all or by name.
        parts: Each of so many equal parts of a step has quotas of its own.
        past: What is replayed, if the last data set is replay.
    """

    def __init__(
        self,
        shares: Shares,
        sizes: Counts,
        size: int,
        seed: int,
        *,
        exact: bool,
        exhausted: Policy | Mapping[str, Policy],
        max_epochs: int | Mapping[str, int] | None,
        parts: int = 1,
        past: Buffer | None = None,
    ) -> None:
        self.parts, self.past = parts, past
        self.shares, self.sizes, self.names = shares, sizes, shares.names
        self.global_batch, self.seed, self.exact = size, seed, exact
        self.exhausted = by_name(self.names, exhausted, "exhausted", "repeat")
        for name, policy in self.exhausted.items():
            if policy not in POLICIES:
                raise PlanError(
                    "unknown",
                    place=f"exhausted.{name}",
                    value=policy,
                    remedy=nearest(str(policy), POLICIES),
                )
        self.max_epochs = by_name(self.names, max_epochs, "max_epochs", None)
        if past is not None:
            # The past has no end.
            self.exhausted[REPLAY], self.max_epochs[REPLAY] = "repeat", None
        self._caps = self._limits()
        self._droppable = np.isfinite(self._caps) & np.array(
            [
                self.max_epochs[name] is not None or self.exhausted[name] == "drop"
                for name in self.names
            ]
        )
        self._cover = np.array([self.exhausted[name] == "cover" for name in self.names])
        self.finite = bool(np.isfinite(self._caps).any() or self._cover.any())
        """Whether the data may end the run."""
        self.end: int | None = None
        """The first step that the data no longer suffice for, as far as it is known."""
        self._starts = [np.zeros(len(self.names), np.int64)]
        self._chunks: dict[int, tuple[Counts, Floats]] = {}
        self._decided: dict[int, Counts] = {0: self._starts[0]}

    def _limits(self) -> Floats:
        """(k,) examples of each data set that may be shown."""
        caps = np.full(len(self.names), np.inf)
        for k, name in enumerate(self.names):
            epochs = self.max_epochs[name]
            if epochs is not None:
                caps[k] = count(epochs, f"max_epochs.{name}") * self.sizes[k]
            elif self.exhausted[name] not in ("repeat", "cover"):
                caps[k] = self.sizes[k]
        return caps

    def cursors(self, step: int) -> Counts:
        """(k,) examples of each data set that were shown before a step."""
        if self.shares.lag is not None:
            return self._cursors_decided(step)
        chunk, inside = divmod(step, _CHUNK)
        cursors: Counts = self._chunk(chunk)[0][inside]
        return cursors

    def go_on(self, step: int, cursors: Counts) -> None:
        """Begin at a step whose positions are known."""
        self._decided, self.end = {step: cursors}, None

    def shares_at(self, step: int) -> Floats:
        """(k,) planned shares of a step."""
        chunk, inside = divmod(step, _CHUNK)
        listens = self.shares.lag is not None
        table = self.shares(np.array([step])) if listens else self._chunk(chunk)[1]
        shares: Floats = table[0 if listens else inside]
        return shares

    def weights_at(self, step: int) -> Floats:
        """(k,) shares of a step without what is used up, or has nothing to replay yet."""
        weights: Floats = self._open(self.cursors(step), self.shares_at(step)[None])[0]
        return weights

    def labels(self, step: int) -> Counts:
        """(global_batch,) independent draws of a data set for each place of a step."""
        before = self.cursors(step)
        weights = self.weights_at(step)
        drawn = self._labels_drawn(step, weights, self._caps - before)
        assert drawn is not None  # noqa: S101 - else the run had ended
        return drawn

    def part_counts(self, step: int) -> Counts:
        """(parts, k) quotas of the parts of a step."""
        before = self.cursors(step)
        weights = self.weights_at(step)
        counts = self._parts(step, weights, self._caps - before)
        assert counts is not None  # noqa: S101 - else the run had ended
        return counts

    def step_of(self, k: int, cursor: int) -> int:
        """The step that shows the example of a data set at a position."""
        chunk = 0
        while self._chunk(chunk)[0][-1][k] <= cursor:
            chunk += 1
        inside = np.searchsorted(self._chunk(chunk)[0][:, k], cursor, side="right")
        return chunk * _CHUNK + int(inside) - 1

    def find_end(self, steps: int | None) -> int | None:
        """Length of the run, if the data end it before ``steps``."""
        limit, step = _LONGEST if steps is None else steps, 0
        while self.end is None and step < limit:
            self._chunk(step // _CHUNK)
            step += _CHUNK
        found = [x for x in (steps, self.end) if x is not None]
        return min(found) if found else None

    def _cursors_decided(self, step: int) -> Counts:
        if step not in self._decided:
            before = self._cursors_decided(step - 1) if step - 1 in self._decided else None
            if before is None:
                raise PlanError(
                    f"step {step} cannot be reached without those before it",
                    place="step",
                    value=step,
                    remedy="Load the state of that step",
                )
            taken = self._step(step - 1, before, self.shares(np.array([step - 1]))[0])
            after = before if taken is None else before + taken
            if taken is None:
                self.end = step - 1
            self._look_for_cover(step - 1, np.stack([before, after]))
            self._decided[step] = after
            kept = step - 2 * (self.shares.lag or 0) - 8
            self._decided = {s: c for s, c in self._decided.items() if s >= kept}
        return self._decided[step]

    def _chunk(self, index: int) -> tuple[Counts, Floats]:
        """Cursors (_CHUNK + 1, k) at the steps of a chunk and after it; shares (_CHUNK, k)."""
        while len(self._starts) <= index + 1:
            last = len(self._starts) - 1
            self._keep(last)
            self._starts.append(self._chunks[last][0][-1])
        if index not in self._chunks:
            self._keep(index)
        return self._chunks[index]

    def _keep(self, index: int) -> None:
        first = index * _CHUNK
        shares = self.shares(np.arange(first, first + _CHUNK))
        walked = self._walk(first, self._starts[index], shares)
        self._chunks = {**dict(list(self._chunks.items())[-1:]), index: (walked, shares)}

    def _walk(self, first: int, before: Counts, shares: Floats) -> Counts:
        """Cursors at _CHUNK steps from ``first`` on, and after the last of them."""
        steps = np.arange(first, first + _CHUNK)
        cursors = np.empty((_CHUNK + 1, before.size), np.int64)
        cursors[0], done = before, 0
        while done < _CHUNK:
            if self.end is not None and first + done >= self.end:
                cursors[done + 1 :] = cursors[done]
                break
            good = self._undisturbed(steps[done:], cursors[done], shares[done:])
            cursors[done + 1 : done + 1 + len(good)] = good
            done += len(good)
            if done < _CHUNK:
                taken = self._step(first + done, cursors[done], shares[done])
                if taken is None:
                    self.end = first + done
                    continue
                cursors[done + 1] = cursors[done] + taken
                done += 1
        self._look_for_cover(first, cursors)
        return cursors

    def _undisturbed(self, steps: Indices, before: Counts, shares: Floats) -> Counts:
        """(t, k) cursors after each step, up to the first step that uses a data set up."""
        weights = self._open(before, shares)
        some = weights.any(axis=1)
        number = len(steps) if some.all() else int(np.argmin(some))
        sums = before + np.cumsum(self._planned(steps[:number], weights[:number]), axis=0)
        used_up = (sums > self._caps) | (self._droppable & (sums >= self._caps))
        disturbed = (used_up & ~self._dropped(before)).any(axis=1)
        if self.past is not None and number:
            # A step sees the past of the one before: what began or ceased to be there by then.
            others = np.where(self._dropped(before), 0.0, shares[:number])[:, :-1]
            earlier = np.concatenate([before[None], sums[:-1]])[:, :-1]
            filled = self.past.filled(earlier, others)
            disturbed |= filled != filled[0]
        after: Counts = sums[: int(np.argmax(disturbed))] if disturbed.any() else sums
        return after

    def _dropped(self, cursors: Counts) -> Any:
        """(k,) which data sets are used up and go without."""
        dropped = self._droppable & (cursors >= self._caps)
        if self.past is not None:
            # Replay alone would never end.
            dropped[-1] = dropped[:-1].all()
        return dropped

    def _open(self, cursors: Counts, shares: Floats) -> Floats:
        """(t, k) shares (t, k) of what is not used up at the positions of the first step."""
        weights: Floats = np.where(self._dropped(cursors), 0.0, shares)
        if self.past is None or not len(weights):
            return weights
        if not self.past.filled(cursors[None, :-1], weights[:1, :-1])[0]:
            weights[:, -1] = 0.0
        return weights

    def _look_for_cover(self, first: int, cursors: Counts) -> None:
        if self.end is not None or not self._cover.any():
            return
        covered = (cursors[1:] >= self.sizes)[:, self._cover].all(axis=1)
        if covered.any():
            self.end = first + int(np.argmax(covered)) + 1

    def _planned(self, steps: Indices, weights: Floats) -> Counts:
        """(t, k) counts if nothing runs out."""
        if self.exact:
            parts = np.add.outer(steps * self.parts, np.arange(self.parts)).ravel()
            size, each = self.global_batch // self.parts, np.repeat(weights, self.parts, axis=0)
            planned = quota_counts(size, each, turns(self.seed, parts))
            summed: Counts = planned.reshape(len(steps), self.parts, weights.shape[1]).sum(axis=1)
            return summed
        counts = np.empty(weights.shape, np.int64)
        some = max(_BLOCK // self.global_batch, 1)
        for i in range(0, len(steps), some):
            counts[i : i + some] = drawn_counts(
                self.seed, steps[i : i + some], self.global_batch, weights[i : i + some]
            )
        return counts

    def _bits(self, step: int) -> Any:
        first = step * self.global_batch
        positions = np.arange(first, first + self.global_batch, dtype=np.uint64)
        return hashed(positions, key(self.seed, CHOICE))

    def _step(self, step: int, cursors: Counts, shares: Floats) -> Counts | None:
        """(k,) counts of one step, in which data may run out; None if the run ends before it."""
        left = self._caps - cursors
        weights = self._open(cursors, shares[None])[0]
        if not weights.any():
            if not self._dropped(cursors).all() and self.past is not None and shares[-1]:
                raise PlanError(
                    f"there is nothing to replay at step {step}, and no data set has a weight",
                    place=f"weights.{REPLAY}",
                    value=float(shares[-1]),
                )
            return None
        wanted = self._planned(np.array([step]), weights[None])[0]
        for k in np.flatnonzero((wanted > left) & ~self._droppable):
            if self.exhausted[self.names[k]] == "stop":
                return None
            raise PlanError(
                f"the data set is used up at step {step}",
                place=f"exhausted.{self.names[k]}",
                value="error",
                remedy="Train for fewer steps, give it less weight, or repeat it",
            )
        if self.exact:
            counts = self._parts(step, weights, left)
            return None if counts is None else counts.sum(axis=0)
        labels = self._labels_drawn(step, weights, left)
        return None if labels is None else np.bincount(labels, minlength=len(self.names))

    def _parts(self, step: int, weights: Floats, left: Floats) -> Counts | None:
        """(parts, k) quotas of the parts of a step, one after the other; data may run out."""
        offsets = turns(self.seed, step * self.parts + np.arange(self.parts))
        counts = np.zeros((self.parts, left.size), np.int64)
        for part, offset in enumerate(offsets.tolist()):
            after = left - counts.sum(axis=0)
            found = capped_counts(self.global_batch // self.parts, weights, offset, after)
            if found is None:
                return None
            counts[part] = found
        return counts

    def _labels_drawn(self, step: int, weights: Floats, left: Floats) -> Counts | None:
        """(global_batch,) independent draws; places that find nothing left draw among the rest."""
        if not weights.any():
            return None
        bits = self._bits(step)
        labels = labels_at(bits, weights)
        while True:
            over = np.zeros(labels.size, bool)
            for k in np.flatnonzero(np.bincount(labels, minlength=left.size) > left):
                over[np.flatnonzero(labels == k)[int(left[k]) :]] = True
                weights = np.where(np.arange(left.size) == k, 0.0, weights)
            if not over.any():
                return labels
            if not weights.any():
                return None
            labels[over] = labels_at(bits[over], weights)
