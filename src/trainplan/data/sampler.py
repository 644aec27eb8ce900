"""A batch sampler for any PyTorch loader whose state is a few numbers.

It shares the steps of a `Source` out among ranks and accumulated micro-batches: micro-batch
number ``(step * accumulation + a) * ranks + rank`` takes the next ``global_batch / (ranks *
accumulation)`` examples. So the examples of a step are the same for any number of ranks, workers
and accumulated micro-batches, no two ranks ever get the same one, and a run goes on after any
batch, also on other hardware.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any, Literal

from trainplan.data.batches import Batch
from trainplan.data.order import VERSION
from trainplan.data.readers import Reader, find_reader
from trainplan.data.shapes import ShapedBatch, Shapes
from trainplan.data.sources import Source
from trainplan.errors import PlanError
from trainplan.schedules.values import count

_LOG = logging.getLogger("trainplan")


class BatchSampler:
    """Give it to a ``DataLoader`` or ``StatefulDataLoader`` as ``batch_sampler=``.

    An iterator ends with the epoch, if the source has epochs, else with the run; the next one goes
    on from there. There is no ``set_epoch`` to call.

    Args:
        source: What the run sees: `Shuffle`, `Curriculum`, `Mixture`.
        ranks: Number of processes that share the data; by default that of ``torch.distributed``.
        rank: This process; by default that of ``torch.distributed``. ``"all"`` yields the
            micro-batches of all ranks in turn, for libraries that share them out themselves
            (Accelerate, and with it Transformers and TRL).
        accumulation: Micro-batches of a rank per optimizer step.
        shape: What `Shapes` takes: then the items of a batch are pairs of an example's number and
            its step's shape, for a data set wrapped in `Shaped`. By default the source's, if any.

    Attributes:
        batch_size: Examples of a micro-batch; None if that changes from step to step.

    >>> from trainplan.data import Shuffle
    >>> sampler = BatchSampler(Shuffle(10, global_batch=4, epochs=1), ranks=2, rank=1)
    >>> [list(batch) for batch in sampler]
    [[9, 0], [2, 1]]
    >>> sampler.seek(step=1)
    >>> [list(batch) for batch in sampler], sampler.state_dict()["position"]
    ([[2, 1]], 8)
    """

    drop_last = False
    """Micro-batches are never cut here; for libraries that ask."""

    def __init__(
        self,
        source: Source,
        *,
        ranks: int | None = None,
        rank: int | Literal["all"] | None = None,
        accumulation: int = 1,
        shape: Any = None,
    ) -> None:
        here, world = _process()
        self.source = source
        self.ranks = count(world if ranks is None else ranks, "ranks")
        self.rank: int | Literal["all"] = (
            "all" if rank == "all" else count(here if rank is None else rank, "rank", least=0)
        )
        if self.rank != "all" and self.rank >= self.ranks:
            raise PlanError(f"there are {self.ranks} ranks, from 0", place="rank", value=rank)
        self.accumulation = count(accumulation, "accumulation")
        self.shapes = source.shapes if shape is None else Shapes.of(shape, source.steps)
        self.batch_size = None if source.uneven else self._split(source.global_batch)
        source.check_parts(self.ranks * self.accumulation)
        if source.steps_per_epoch is not None:
            self._split(source.size(source.steps_per_epoch - 1))
        self.per_step = self.accumulation * (self.ranks if self.rank == "all" else 1)
        """Micro-batches that this sampler yields per step."""
        self._drawn = 0
        """Micro-batches handed out since the start of the run."""
        self._known_from = 0
        """Micro-batches before this one cannot be read, if the source listens."""
        self._live: _Drawing | None = None
        self._reader = Reader()

    def _split(self, size: int) -> int:
        parts = self.ranks * self.accumulation
        if size % parts:
            down = size - size % parts
            least = f"{down} or {down + parts}" if down else str(parts)
            raise PlanError(
                f"a step of {size} examples cannot be shared out evenly among {self.ranks} ranks "
                f"with {self.accumulation} micro-batches each",
                place="global_batch",
                value=size,
                remedy=f"The nearest that can: {least}"
                + ("" if size == self.source.global_batch else "; or choose another tail"),
            )
        return size // parts

    def __iter__(self) -> Iterator[Batch | ShapedBatch]:
        # Not a generator: the reader is found among the callers.
        reader = find_reader()
        self._check_shards(reader)
        self._check_lag(reader)
        self._reader = reader
        self._live = _Drawing(self)
        return self._live

    def __len__(self) -> int:
        """Micro-batches in an epoch, or in a run without epochs."""
        steps = self.source.steps_per_epoch or self.source.steps
        if steps is None:
            raise TypeError("a run without an end has no length: give epochs= or steps=")
        return steps * self.per_step

    def batch(self, number: int) -> Batch | ShapedBatch:
        """Micro-batch ``number`` of this sampler, counted from the start of the run."""
        step, part = divmod(count(number, "number", least=0), self.per_step)
        if not self.exists(number):
            raise IndexError(f"the run ends before step {step}")
        size = self.batch_size
        if size is None or self.source.size(step) != self.source.global_batch:
            size = self._split(self.source.size(step))
        place = part if self.rank == "all" else part * self.ranks + self.rank
        found = Batch(self.source, step, place * size, (place + 1) * size)
        return found if self.shapes is None else ShapedBatch(found, self.shapes(step))

    def exists(self, number: int) -> bool:
        """Whether the run has a micro-batch; what is skipped had it."""
        return number < self._known_from or self.source.exists(number // self.per_step)

    # Where it stands

    @property
    def step(self) -> int:
        """The step of the next batch to be drawn."""
        return self._drawn // self.per_step

    @property
    def epoch(self) -> int:
        """The epoch of the next batch to be drawn."""
        per_epoch = self.source.steps_per_epoch
        return self.step // per_epoch if per_epoch else 0

    def seek(
        self, step: int | None = None, *, position: int | None = None, epoch: int | None = None
    ) -> None:
        """Go on at a step, at a position in examples, or at the start of an epoch.

        Sources that do not listen to the run reach any point without a state. An iterator that
        is under way is left behind.
        """
        if sum(x is not None for x in (step, position, epoch)) != 1:
            raise PlanError("say where to go in one way", place="seek", value=(step, position))
        if position is not None:
            step = self.source.step_at(count(position, "position", least=0))
        if epoch is not None:
            per_epoch = self.source.steps_per_epoch
            if per_epoch is None and epoch:
                raise PlanError("the run is not divided into epochs", place="epoch", value=epoch)
            step = count(epoch, "epoch", least=0) * (per_epoch or 0)
        self._drawn = count(step, "step", least=0) * self.per_step
        self._live = None

    def state_dict(self, consumed: int | None = None, *, step: int | None = None) -> dict[str, Any]:
        """A few numbers from which any such sampler goes on, with other ranks and workers too.

        Args:
            consumed: Micro-batches that were used, counted on this sampler since the start of the
                run; what is drawn beyond them will be drawn again.
            step: Completed optimizer steps, instead.

        Raises:
            PlanError: If neither is given while a loader may have drawn ahead.
        """
        if step is not None:
            used = count(step, "step", least=0) * self.per_step
        elif consumed is not None:
            used = count(consumed, "consumed", least=0)
        elif self._reader.ahead and not self._reader.stateful and self._live is not None:
            raise PlanError(
                f"{self._reader.name} may have drawn up to {self._reader.ahead} batches that are "
                "not used yet, so what was drawn is not what was seen",
                place="consumed",
                value=None,
                remedy="Give step= (completed optimizer steps) or consumed= (used batches), or "
                "use torchdata's StatefulDataLoader, which counts them",
            )
        else:
            used = self._drawn
        done, part = divmod(used, self.per_step)
        source = self.source
        share = source.size(done) * part // self.per_step if part else 0
        state: dict[str, Any] = {
            "version": VERSION,
            "seed": source.seed,
            "n": source.n,
            "global_batch": source.global_batch,
            "position": source.position(done) + share,
            "step": done,
            "fields": fields_of(source, self.shapes),
        }
        if part:
            state["part"] = [part, self.per_step]
        inner = source.state(done)
        if source.lag is not None and self._reader.ahead and step is None and consumed is None:
            state["ahead"] = self._reader.ahead
        return state | ({"source": inner} if inner else {})

    def load_state_dict(self, state: dict[str, Any], *, skipped: bool = False) -> None:
        """Go on from `state_dict`, before iterating.

        Args:
            state: What `state_dict` gave.
            skipped: The reader begins at the epoch's start and skips what was used, as
                Transformers does. Batches before the state's step are then handed out unread.

        Raises:
            PlanError: If the state is of other data, another seed or another plan; the first
                difference is named.
        """
        source = self.source
        _check_state(source, self.shapes, state)
        if "ahead" in state:
            raise PlanError(
                "the state was taken while drawing ahead, before what it must have heard",
                place="state.ahead",
                value=state["ahead"],
                remedy="Save sampler.state_dict(step=...) beside the loader's own state",
            )
        step, size = int(state["step"]), int(state["global_batch"])
        done, parts = (int(x) for x in state.get("part", (0, 1)))
        if done * self.per_step % parts:
            raise PlanError(
                f"the state was taken after {done} of {parts} micro-batches of a step, where no "
                f"micro-batch ends if there are {self.per_step}",
                place="state.part",
                value=state["part"],
                remedy="Save after whole steps",
            )
        source.load(state.get("source", {}), step)
        if size != source.global_batch:
            _LOG.info("steps have %d examples from here, and had %d", source.global_batch, size)
            if done:
                raise PlanError(
                    "the state was taken inside a step of another size",
                    place="state.part",
                    value=state["part"],
                    remedy="Save after whole steps",
                )
            source.rebase(step, int(state["position"]), size)
        self._drawn = self._known_from = step * self.per_step + done * self.per_step // parts
        if skipped:
            self._drawn = self.epoch * len(self) if source.steps_per_epoch else 0
        self._live = None

    def _check_shards(self, reader: Reader) -> None:
        mine = self.ranks if self.rank == "all" else 1
        if reader.shards > 1 and mine != reader.shards:
            raise PlanError(
                f"the loader shares batches out among {reader.shards} ranks by itself",
                place="rank",
                value=self.rank,
                remedy=f"Give BatchSampler(..., ranks={reader.shards}, rank='all')",
            )

    def _check_lag(self, reader: Reader) -> None:
        lag = self.source.lag
        if lag is None:
            return
        needed = -(-reader.ahead // self.per_step)
        if needed > lag:
            raise PlanError(
                f"{reader.name} draws up to {reader.ahead} batches ahead, and so decides "
                f"{needed} steps before it can have heard what it needs",
                place="lag",
                value=lag,
                remedy=f"Give lag={needed}, or read with fewer workers (num_workers=0)",
            )

    def __repr__(self) -> str:
        return (
            f"BatchSampler({type(self.source).__name__} of {self.source.n}, "
            f"global_batch={self.source.global_batch}, ranks={self.ranks}, rank={self.rank!r}, "
            f"accumulation={self.accumulation}, step={self.step})"
        )


class _Drawing(Iterator["Batch | ShapedBatch"]):
    """One pass of a reader: to the end of the epoch, or of the run."""

    def __init__(self, sampler: BatchSampler) -> None:
        self.sampler = sampler
        per_epoch = sampler.source.steps_per_epoch
        self.stop = (sampler.epoch + 1) * per_epoch * sampler.per_step if per_epoch else None

    def __next__(self) -> Batch | ShapedBatch:
        sampler = self.sampler
        number = sampler._drawn
        listens = sampler.source.lag is not None and number >= sampler._known_from
        if number == self.stop or not sampler.exists(number):
            raise StopIteration
        if sampler._live is not self:
            raise PlanError(
                "another loader has begun to iterate this sampler, or it was moved",
                place="sampler",
                value=sampler,
                remedy="Give each loader a sampler of its own; begin a new iteration after seek",
            )
        batch = sampler.batch(number)
        if listens:
            # What was decided now must not change with what is heard later.
            batch = batch.known()
        # The count moves with the last batch of an epoch, not with the request after it: some
        # libraries never make that one.
        sampler._drawn = number + 1
        return batch


def fields_of(source: Source, shapes: Shapes | None = None) -> dict[str, str]:
    """A short digest of each setting, so that a difference can be named."""
    settings = source.settings()
    if shapes is not None:
        settings["shape"] = shapes.settings()
    return {name: _short_digest(value) for name, value in settings.items()}


def _short_digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _check_state(source: Source, shapes: Shapes | None, state: dict[str, Any]) -> None:
    needed = ("version", "seed", "n", "global_batch", "position", "step", "fields")
    missing = [name for name in needed if name not in state] if isinstance(state, dict) else needed
    if missing:
        raise PlanError(f"not a state of a sampler: no {missing[0]!r}", place="state", value=state)
    if state["version"] != VERSION:
        raise PlanError(
            f"written by version {state['version']} of the order; this is version {VERSION}",
            place="state.version",
            value=state["version"],
        )
    if state["n"] != source.n:
        raise PlanError(
            f"the data set changed: {state['n']} -> {source.n} examples",
            place="state.n",
            value=state["n"],
            remedy="Give the old data, or begin anew without a state",
        )
    if state["seed"] != source.seed:
        raise PlanError(
            f"the state is of seed {state['seed']}, this order has seed {source.seed}",
            place="state.seed",
            value=state["seed"],
            remedy=f"Give seed={state['seed']}",
        )
    here = fields_of(source, shapes)
    for name in {**state["fields"], **here}:
        if state["fields"].get(name) != here.get(name):
            raise PlanError(
                f"the state is of another order: {name} differs",
                place=f"state.fields.{name}",
                value=source.settings().get(name),
                remedy="Give what the run began with",
            )


def _process() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()
