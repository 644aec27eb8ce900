"""Show how a comparison goes: arms, steps, loss and time left, on a terminal and nowhere else."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from trainplan.lab.comparison import Quiet
from trainplan.lab.segments import Graph


class TerminalProgress:
    """A watcher (see ``comparison.Watcher``) that draws bars; use it as a context manager.

    One bar for everything, which estimates the time left, and one for each stretch in training.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._graph: Graph | None = None
        self._live: dict[str, TaskID] = {}
        self._at: dict[str, int] = {}
        self._finished = 0
        self._title = ""
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            refresh_per_second=5,
        )
        self._total = self._progress.add_task("", total=None, loss="", visible=False)

    def __enter__(self) -> TerminalProgress:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    @property
    def steps_done(self) -> int:
        """Steps that are trained, of the present stage."""
        return sum(self._at.values())

    def stage(self, title: str) -> None:
        """Begin a stage with a title."""
        self._title = title

    def warn(self, message: str) -> None:
        """Say something above the bars."""
        self._progress.console.print(f"Note: {message}", markup=False, highlight=False)

    def begin(self, graph: Graph) -> None:
        """Draw the bar of everything anew for a graph."""
        self._graph, self._at, self._finished = graph, {}, 0
        self._progress.reset(
            self._total, total=graph.steps, description=self._title, visible=True, loss="starting"
        )

    def progress(self, key: str, step: int, loss: float | None) -> None:
        """Move the bar of a segment, and the one of everything."""
        if self._graph is None:
            return
        segment = self._graph.segments[key]
        if key not in self._live:
            text = f"  {segment.arm}, seed {segment.seed}"
            if segment.parent is not None or not segment.ends:
                text += f", steps {segment.start}-{segment.stop}"
            self._live[key] = self._progress.add_task(text, total=segment.steps, loss="")
        done = step - segment.start
        shown = "" if loss is None else f"loss {loss:.3f}"
        self._progress.update(self._live[key], completed=done, loss=shown)
        self._at[key] = done
        self._progress.update(self._total, completed=self.steps_done)

    def done(self, key: str) -> None:
        """Count a segment as complete and take its bar away."""
        if self._graph is None:
            return
        if key in self._live:
            self._progress.remove_task(self._live.pop(key))
        self._at[key] = self._graph.segments[key].steps
        self._finished += 1
        count = f"{self._finished}/{len(self._graph.segments)} parts"
        self._progress.update(self._total, completed=self.steps_done, loss=count)


class Notes(Quiet):
    """A watcher for output that is not a terminal: warnings go to standard error, nothing else."""

    def warn(self, message: str) -> None:
        """Print it."""
        Console(stderr=True).print(f"Note: {message}", markup=False, highlight=False)
