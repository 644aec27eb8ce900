"""A progress bar for long work, if somebody is watching."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

_DRAWN: ContextVar[bool] = ContextVar("drawn", default=False)


def progress_over(things: Sequence[T], what: str, show: bool | None = None) -> Iterator[T]:
    """The things, with a bar on standard error; ``show=None`` draws it in a terminal only.

    Within a bar there is no second one: a search shows its own, not that of every estimate.
    """
    if _DRAWN.get() or not (sys.stderr.isatty() if show is None else show):
        yield from things
        return
    from rich.console import Console
    from rich.progress import track

    token = _DRAWN.set(True)
    try:
        yield from track(things, what, console=Console(stderr=True), transient=True)
    finally:
        _DRAWN.reset(token)
