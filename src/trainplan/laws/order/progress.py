"""A progress bar for long work, if somebody is watching."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def progress_over(things: Sequence[T], what: str, show: bool | None = None) -> Iterable[T]:
    """The things, with a bar on standard error; ``show=None`` draws it in a terminal only."""
    if not (sys.stderr.isatty() if show is None else show):
        return things
    from rich.console import Console
    from rich.progress import track

    return track(things, what, console=Console(stderr=True), transient=True)
