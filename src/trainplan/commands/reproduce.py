"""``trainplan reproduce``: run the studies of papers' claims, and say what was found."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from trainplan.errors import PlanError

if TYPE_CHECKING:
    from trainplan.lab.study import Study
    from trainplan.lab.study_outcome import StudyOutcome
    from trainplan.lab.study_runner import Cell

_RUNS = Path("runs")
_LOG_WIDTH = 160
_STYLES = {"reproduced": "green", "contradicted": "red", "inconclusive": "yellow"}


def reproduce(
    studies: Annotated[
        list[str],
        typer.Argument(
            metavar="SLUG...",
            help="Papers' slugs, or all; a study of your own as FILE.py or package.module:STUDY.",
            show_default=False,
        ),
    ],
    seeds: Annotated[
        int | None,
        typer.Option(
            min=2, help="Use at most so many seeds. [default: the study's]", show_default=False
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Two seeds and shorter runs, to see it work: no evidence."),
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs at a time, each on one core; changes no result. [default: all cores]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the results. [default: runs/reproduce-DATE; --resume: the newest]",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a stopped or killed run.")
    ] = False,
    save: Annotated[
        bool,
        typer.Option("--save", help="Also write the results that the catalogue shows (checkout)."),
    ] = False,
) -> None:
    """Run the study of a paper's claim: its arms, on its seeds, to a verdict.

    \b
    trainplan reproduce wsd-s              one paper
    trainplan reproduce wsd-s rex          several
    trainplan reproduce all                every study of the repository
    trainplan reproduce my_study.py        a study of your own

    A study ends reproduced, contradicted or inconclusive, by a rule that was fixed beforehand.
    Every measurement is kept as it is made: after Ctrl-C or a crash, --resume goes on.
    """  # noqa: D301  (Click wants the control character, not a backslash)
    from trainplan.lab.runner import LabError
    from trainplan.lab.study_loading import find_study, load_study

    console = Console()
    if not console.is_terminal:
        console = Console(width=_LOG_WIDTH)  # so that a log shows all arms side by side
    folder = results_folder() if save else None
    if save and (quick or seeds is not None):
        remedy = "Leave out --save, or --quick and --seeds"
        raise PlanError("only a study as it is written is saved", place="--save", remedy=remedy)
    sources = [find_study(name) for name in _named(studies)]
    loaded = [load_study(source) for source in sources]
    root = _directory(out, resume)
    outcomes = []
    try:
        for study, source in zip(loaded, sources, strict=True):
            name = _file_name(study, source)
            outcome = _run(study, source, root / f"{name}.jsonl", seeds, quick, jobs, console)
            _write(outcome, root, name)
            if folder is not None:
                _write_json(outcome, folder / f"{study.paper}.json")
            _show(outcome, console)
            outcomes.append(outcome)
    except KeyboardInterrupt:
        console.print(f"\nStopped. Go on with  trainplan reproduce {' '.join(studies)} --resume")
        raise typer.Exit(130) from None
    except LabError as error:
        sys.stderr.write(f"trainplan: {error}\n")
        raise typer.Exit(1) from None
    if len(outcomes) > 1:
        console.print(verdict_table(outcomes))
    console.print(f"Pages and data: {root}", style="dim", highlight=False)


def results_folder() -> Path:
    """Where the repository keeps the results that the catalogue shows.

    Raises:
        PlanError: Outside a checkout.
    """
    from trainplan.lab.study_loading import studies_folder

    folder = studies_folder()
    if folder is None:
        remedy = "Run it inside the repository"
        raise PlanError("there is no folder studies here", place="--save", remedy=remedy)
    (folder / "results").mkdir(exist_ok=True)
    return folder / "results"


def verdict_table(outcomes: Sequence[StudyOutcome]) -> Table:
    """One line per study."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("study", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("advantage of the first claim")
    table.add_column("seeds", justify="right")
    table.add_column("time", justify="right")
    table.add_column("CPU time", justify="right")
    for outcome in outcomes:
        seeds = "exact" if outcome.study.exact else str(len(outcome.results))
        table.add_row(
            outcome.study.paper,
            Text(outcome.verdict, style=_STYLES[outcome.verdict]),
            outcome.claims[0].figure,
            seeds,
            f"{outcome.seconds:.0f} s",
            f"{outcome.cpu_seconds:.0f} s",
        )
    return table


class _Bars:
    """Draws the progress of a study, on a terminal and nowhere else; a context manager."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def stage(self, title: str, cells: int, known: int) -> None:
        """Begin a bar."""
        self._progress.reset(self._task, total=cells, completed=known, description=title)

    def measured(self, cell: Cell, seconds: float) -> None:
        """Move the bar."""
        self._progress.advance(self._task)


def _run(
    study: Study,
    source: str,
    cache: Path,
    seeds: int | None,
    quick: bool,
    jobs: int | None,
    console: Console,
) -> StudyOutcome:
    from trainplan.lab.study_runner import run_study

    console.print(Text(study.paper, style="bold"), Text(study.claim))
    with _Bars(console) as bars:
        return run_study(
            study,
            source="" if study.exact else source,
            seeds=None if study.exact else seeds,
            quick=quick,
            jobs=jobs,
            cache=cache,
            watcher=bars,
        )


def _show(outcome: StudyOutcome, console: Console) -> None:
    study = outcome.study
    if outcome.quick:
        console.print(Text("Shortened by --quick: no evidence.", style="yellow"))
    for arm, chosen in outcome.tuned.items():
        values = ", ".join(f"{name}={value}" for name, value in chosen.items())
        console.print(f"  tuned on other seeds: {arm}: {values}", highlight=False)
    for metric in study.metrics:
        table = _seed_table(outcome, metric)
        if table is not None:
            console.print(Padding(table, (0, 0, 0, 2)))
    for found in outcome.claims:
        role = "" if found.claim.decides else ", reported only"
        console.print(
            Text("  "),
            Text(found.verdict, style=_STYLES[found.verdict]),
            Text(f"{found.claim.text}: {found.figure}, margin {found.claim.margin:g}{role}"),
        )
    console.print(
        Text("Verdict:", style="bold"),
        Text(outcome.verdict, style=f"bold {_STYLES[outcome.verdict]}"),
        Text(f"({outcome.seconds:.0f} s, {outcome.cpu_seconds:.0f} s of CPU time)", style="dim"),
    )
    console.print()


def _seed_table(outcome: StudyOutcome, metric: str) -> Table | None:
    columns = [(arm, values) for arm in outcome.arms if (values := outcome.values(arm, metric))]
    if not columns:
        return None
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(metric)
    for arm, _ in columns:
        table.add_column(arm, justify="right")
    for index, seed in enumerate(outcome.results):
        title = "exact" if seed < 0 else f"seed {seed}"
        table.add_row(title, *(f"{values[index]:.4f}" for _, values in columns))
    if len(outcome.results) > 1:
        table.add_row("mean", *(f"{sum(v) / len(v):.4f}" for _, v in columns), style="bold")
    return table


def _named(names: Sequence[str]) -> list[str]:
    from trainplan.lab.study_loading import study_slugs

    found: list[str] = []
    for name in names:
        slugs = study_slugs() if name == "all" else (name,)
        if not slugs:
            remedy = "Run inside a checkout of the repository"
            raise PlanError("there are no studies here", place="study", value=name, remedy=remedy)
        found += [slug for slug in slugs if slug not in found]
    return found


def _directory(out: Path | None, resume: bool) -> Path:
    if resume:
        found = [out] if out else sorted(_RUNS.glob("reproduce-*"))
        if not found or not found[-1].is_dir():
            remedy = "Start without --resume"
            place = str(out or _RUNS / "reproduce-*")
            raise PlanError("there is nothing to go on with", place=place, remedy=remedy)
        return found[-1]
    root = out or _RUNS / f"reproduce-{datetime.now():%Y%m%d-%H%M%S}"
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        remedy = "Go on with it by --resume, or choose another --out"
        raise PlanError("there is something already", place="--out", value=str(root), remedy=remedy)
    root.mkdir(parents=True, exist_ok=True)
    return root


def _file_name(study: Study, source: str) -> str:
    """The slug, made harmless: a study of somebody's own may be called anything."""
    name = study.paper or Path(source).stem
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).lstrip(".") or "study"


def _write(outcome: StudyOutcome, root: Path, name: str) -> None:
    from trainplan.lab import study_page
    from trainplan.lab.store import write_atomically

    _write_json(outcome, root / f"{name}.json")
    write_atomically(root / f"{name}.html", study_page.render(outcome).encode())


def _write_json(outcome: StudyOutcome, path: Path) -> None:
    from trainplan.lab.store import json_text, write_atomically

    write_atomically(path, json_text(outcome.to_dict()).encode())
