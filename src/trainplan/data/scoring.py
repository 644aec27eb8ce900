"""Score every example of a data set once: with a progress bar, resumable, and cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError
from trainplan.schedules.values import count


def score(
    dataset: Any,
    function: Callable[[Any], Any],
    *,
    batch_size: int = 256,
    cache: str | Path | None = None,
    key: str = "",
    progress: bool = True,
    save_every: int = 64,
) -> npt.NDArray[np.float64]:
    """Apply a function to all of a data set, in batches, to get a difficulty per example.

    Args:
        dataset: A Hugging Face ``Dataset``, or any sequence of examples.
        function: Gets a batch, as the data set gives a slice (a dictionary of columns for Hugging
            Face, else a list of examples), and returns one number per example, such as a model's
            losses.
        batch_size: Examples per call.
        cache: A directory: scores are kept there, and an interrupted run goes on where it was.
        key: What the scores depend on beside the data and the function's name, such as a model's
            name; part of the cache's key.
        progress: Show a progress bar, if the terminal is one.
        save_every: Write to the cache after so many batches.

    Returns:
        (n,) scores; memory-mapped if they are cached.

    >>> score(["a", "abc"], lambda texts: [len(text) for text in texts], progress=False).tolist()
    [1.0, 3.0]
    """
    n, size = len(dataset), count(batch_size, "batch_size")
    if cache is None:
        scores, first = np.full(n, np.nan), 0
        for _ in _fill(scores, dataset, function, first, size, progress, n or 1):
            pass
        return scores
    path = Path(cache) / f"scores-{_digest(dataset, function, key)}.npy"
    if path.exists():
        return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]
    path.parent.mkdir(parents=True, exist_ok=True)
    part, note = path.with_suffix(".part.npy"), path.with_suffix(".part.json")
    first = json.loads(note.read_text()) if note.exists() and part.exists() else 0
    mapped: Any = np.lib.format.open_memmap(
        part, mode="r+" if first else "w+", dtype=np.float64, shape=None if first else (n,)
    )
    for done in _fill(mapped, dataset, function, first, size, progress, save_every):
        # Scores are on disk before the note that says so.
        mapped.flush()
        note.write_text(json.dumps(done))
    mapped.flush()
    part.replace(path)
    note.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


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
    import torch

    place = next(model.parameters()).device if device is None else device

    def losses(rows: Any) -> Any:
        examples = _examples(rows)
        batch = {name: value.to(place) for name, value in collate(examples).items()}
        model.eval()
        with torch.no_grad():
            logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
        labels = batch["labels"][:, 1:]
        each = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().transpose(1, 2), labels, ignore_index=-100, reduction="none"
        )
        return (each.sum(1) / (labels != -100).sum(1).clamp(min=1)).cpu().numpy()

    return losses


def _examples(rows: Any) -> list[Any]:
    if not isinstance(rows, dict):
        return list(rows)
    return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]


def _fill(
    scores: npt.NDArray[np.float64],
    dataset: Any,
    function: Callable[[Any], Any],
    first: int,
    size: int,
    progress: bool,
    save_every: int,
) -> Iterator[int]:
    """Fill in scores from ``first`` on; yields how many are done, now and then."""
    n = len(scores)
    with _bar(n, progress) as advance:
        advance(first)
        for number, start in enumerate(range(first, n, size), start=1):
            stop = min(start + size, n)
            values = np.asarray(function(_rows(dataset, start, stop)), dtype=np.float64)
            if values.shape != (stop - start,):
                raise PlanError(
                    f"the function returned {values.shape} for {stop - start} examples",
                    place="function",
                    value=function,
                    remedy="Return one number per example",
                )
            scores[start:stop] = values
            advance(stop - start)
            if number % save_every == 0:
                yield stop
    yield n


def _rows(dataset: Any, start: int, stop: int) -> Any:
    if hasattr(dataset, "column_names") or isinstance(dataset, (list, tuple, np.ndarray)):
        return dataset[start:stop]
    return [dataset[i] for i in range(start, stop)]


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


def _digest(dataset: Any, function: Callable[[Any], Any], key: str) -> str:
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    fingerprint = getattr(dataset, "_fingerprint", None)
    if fingerprint is None:
        ends = [repr(dataset[i])[:1000] for i in (0, len(dataset) // 2, -1)] if len(dataset) else []
        fingerprint = json.dumps(ends)
    text = json.dumps([name, key, len(dataset), fingerprint])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
