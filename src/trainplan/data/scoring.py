"""Score every example of a data set once: with a progress bar, resumable, cached, in parallel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan.data.scoring_ray import score_with_ray
from trainplan.data.scoring_workers import Part, score_batches, score_in_processes
from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count

_ENGINES = {"processes": score_in_processes, "ray": score_with_ray}


def score(
    dataset: Any,
    function: Callable[[Any], Any],
    *,
    batch_size: int = 256,
    cache: str | Path | None = None,
    key: str = "",
    progress: bool = True,
    save_every: int = 64,
    workers: int = 1,
    engine: str = "processes",
) -> npt.NDArray[np.float64]:
    """Apply a function to all of a data set, in batches, to get a difficulty per example.

    With several workers, each takes a stretch of up to ``save_every`` batches at a time. The
    batches are those that one process makes, so the scores are the same, unless the function's
    own sums depend on the number of threads: a worker has one. When interrupted, workers finish
    the batch that they are at, and with a cache nothing that was computed is lost.

    Args:
        dataset: A Hugging Face ``Dataset``, or any sequence of examples.
        function: Gets a batch, as the data set gives a slice (a dictionary of columns for Hugging
            Face, else a list of examples), and returns one number per example, such as a model's
            losses.
        batch_size: Examples per call.
        cache: A directory: scores are kept there, and an interrupted run goes on where it was,
            with another number of workers too.
        key: What the scores depend on beside the data and the function's name, such as a model's
            name; part of the cache's key.
        progress: Show a progress bar, if the terminal is one.
        save_every: Write to the cache after so many batches.
        workers: Processes to share the work. Each gets a copy of the data set (of a Hugging Face
            one on disk, only where it is) and of the function, which must be defined in a
            module. A script that is run needs ``if __name__ == "__main__":`` around its calls.
        engine: ``"processes"`` of this machine, or ``"ray"``: workers of the cluster that
            ``ray.init`` has connected to, else of this machine; data on disk must be there too.

    Returns:
        (n,) scores; memory-mapped if they are cached.

    Raises:
        PlanError: If the function returns anything but one number per example, or cannot be sent
            to a process, or the engine is unknown or too small.

    >>> score(["a", "abc"], lambda texts: [len(text) for text in texts], progress=False).tolist()
    [1.0, 3.0]
    """
    n, size = len(dataset), count(batch_size, "batch_size")
    workers, per_save = count(workers, "workers"), count(save_every, "save_every")
    if engine not in _ENGINES:
        raise PlanError("unknown", place="engine", value=engine, remedy=nearest(engine, _ENGINES))
    path = None
    if cache is not None:
        path = Path(cache) / f"scores-{_digest(dataset, function, key)}.npy"
        if path.exists():
            return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]
    scores = _Scores(n, path)
    with _bar(n, progress) as advance:
        advance(n - sum(stop - start for start, stop in scores.missing()))

        def keep(start: int, values: npt.NDArray[np.float64]) -> None:
            scores.keep(start, values)
            advance(len(values))

        if workers == 1 and engine == "processes":
            for start, stop in _cut(scores.missing(), size * per_save):
                try:
                    for first, values in score_batches(dataset, function, start, stop, size):
                        keep(first, values)
                finally:
                    scores.save()
        else:

            def keep_and_save(start: int, values: npt.NDArray[np.float64]) -> None:
                keep(start, values)
                scores.save()

            # Several stretches for each, so that all of them are busy to the end.
            fair = -(-n // (size * workers * 4))
            parts = _cut(scores.missing(), size * max(min(per_save, fair), 1))
            _ENGINES[engine](dataset, function, parts, size, workers, keep_and_save)
    return scores.finished()


def loss_scorer(
    model: Any, collate: Callable[[Sequence[Any]], Any], device: Any = None
) -> Callable[[Any], Any]:
    """A function for `score`: the loss of a language model on each example.

    Args:
        model: A Transformers model whose output has ``logits`` (B, T, V); it is set to evaluation.
        collate: Makes a batch of tensors with ``labels`` (B, T), -100 where there is no loss,
            from a list of examples.
        device: Where to put the batch; by default where the model is.

    Returns:
        A function from a batch to (B,) mean losses per token, each label being the token after
        its logits.
    """
    return _Losses(model, collate, device)


def length_scorer(
    column: str | None = None, tokenize: Callable[[Any], Any] | None = None
) -> Callable[[Any], Any]:
    """A function for `score`: the length of each example, in tokens if it is told how.

    Args:
        column: Of each example, what is measured; None measures the example itself.
        tokenize: Makes the tokens of what is measured, such as a tokenizer of Transformers;
            None takes texts or token lists as they are. Name the tokenizer in the ``key`` of
            `score`, if there is a cache.

    Returns:
        A function from a batch to (B,) lengths.

    >>> rows = [{"text": "a b"}, {"text": "a"}]
    >>> score(rows, length_scorer("text", str.split), progress=False).tolist()
    [2.0, 1.0]
    """
    return _Lengths(column, tokenize)


class _Losses:
    """A class and not a closure, so that it can be sent to a worker."""

    def __init__(self, model: Any, collate: Callable[[Sequence[Any]], Any], device: Any) -> None:
        self.model, self.collate, self.device = model, collate, device

    def __call__(self, rows: Any) -> Any:
        import torch

        place = next(self.model.parameters()).device if self.device is None else self.device
        batch = {name: value.to(place) for name, value in self.collate(_examples(rows)).items()}
        self.model.eval()
        with torch.no_grad():
            logits = self.model(**{k: v for k, v in batch.items() if k != "labels"}).logits
        labels = batch["labels"][:, 1:]
        each = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().transpose(1, 2), labels, ignore_index=-100, reduction="none"
        )
        return (each.sum(1) / (labels != -100).sum(1).clamp(min=1)).cpu().numpy()


class _Lengths:
    def __init__(self, column: str | None, tokenize: Callable[[Any], Any] | None) -> None:
        self.column, self.tokenize = column, tokenize
        # Lengths of other columns are other scores in the cache.
        self.__qualname__ = f"length_scorer({column!r}, {tokenize and _name(tokenize)})"

    def __call__(self, rows: Any) -> npt.NDArray[np.float64]:
        items = rows
        if self.column is not None:
            of_columns = isinstance(rows, dict)
            items = rows[self.column] if of_columns else [row[self.column] for row in rows]
        return np.fromiter((self._length(item) for item in items), np.float64, len(items))

    def _length(self, item: Any) -> int:
        tokens = item if self.tokenize is None else self.tokenize(item)
        return len(tokens["input_ids"] if isinstance(tokens, Mapping) else tokens)


def _examples(rows: Any) -> list[Any]:
    if not isinstance(rows, dict):
        return list(rows)
    return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]


class _Scores:
    """The scores so far, and which there are: in memory, or on disk if there is a path."""

    def __init__(self, n: int, path: Path | None) -> None:
        self.n, self.path = n, path
        self.done: list[Part] = []
        """Stretches that are scored, in order and apart."""
        if path is None:
            self.values: Any = np.full(n, np.nan)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self.part, self.note = path.with_suffix(".part.npy"), path.with_suffix(".done.json")
        if self.part.exists() and self.note.exists():
            self.done = [(start, stop) for start, stop in json.loads(self.note.read_text())]
        self.values = np.lib.format.open_memmap(
            self.part,
            mode="r+" if self.done else "w+",
            dtype=np.float64,
            shape=None if self.done else (n,),
        )

    def missing(self) -> list[Part]:
        """Stretches that are not scored."""
        edges = [0, *(edge for part in self.done for edge in part), self.n]
        return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]

    def keep(self, start: int, values: npt.NDArray[np.float64]) -> None:
        """Take scores from ``start`` on."""
        stop = start + len(values)
        self.values[start:stop] = values
        merged: list[Part] = []
        for a, b in sorted([*self.done, (start, stop)]):
            if merged and a <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(b, merged[-1][1])
            elif a < b:
                merged.append((a, b))
        self.done = merged

    def save(self) -> None:
        """Make sure that what there is outlives the process."""
        if self.path is None:
            return
        # Scores are on disk before the note that says so, and the note is never half written.
        self.values.flush()
        fresh = self.note.with_suffix(".tmp")
        fresh.write_text(json.dumps(self.done))
        fresh.replace(self.note)

    def finished(self) -> npt.NDArray[np.float64]:
        """All scores."""
        if self.path is None:
            return self.values  # type: ignore[no-any-return]
        self.values.flush()
        self.part.replace(self.path)
        self.note.unlink(missing_ok=True)
        return np.load(self.path, mmap_mode="r")  # type: ignore[no-any-return]


def _cut(stretches: Sequence[Part], size: int) -> list[Part]:
    """Stretches in pieces of at most ``size``."""
    return [
        (start, min(start + size, last))
        for first, last in stretches
        for start in range(first, last, size)
    ]


class _bar:  # noqa: N801 - used like a function
    """A progress bar on standard error, if that is a terminal."""

    def __init__(self, total: int, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self.progress = Progress(console=console, disable=not (shown and console.is_terminal))
        self.task = self.progress.add_task("scoring", total=total)

    def __enter__(self) -> Callable[[int], None]:
        self.progress.start()
        return lambda number: self.progress.advance(self.task, number)

    def __exit__(self, *_: object) -> None:
        self.progress.stop()


def _name(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    own = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{own}"


def _digest(dataset: Any, function: Callable[[Any], Any], key: str) -> str:
    fingerprint = getattr(dataset, "_fingerprint", None)
    if fingerprint is None:
        ends = [repr(dataset[i])[:1000] for i in (0, len(dataset) // 2, -1)] if len(dataset) else []
        fingerprint = json.dumps(ends)
    text = json.dumps([_name(function), key, len(dataset), fingerprint])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
