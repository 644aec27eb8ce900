"""``trainplan compare``: train several plans on real text and compare them honestly."""

from __future__ import annotations

import signal
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from trainplan.lab.comparison import Session
    from trainplan.lab.results import Comparison

_RUNS = Path("runs")


def compare(
    plans: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PLAN.yaml ...]",
            help="Plan files; the first is the one that the others are compared with. "
            "Without any: constant, linear, cosine, REX, WSD (1-sqrt) and WSD-S.",
            show_default=False,
        ),
    ] = None,
    workload: Annotated[
        str | None,
        typer.Option(help="What to train: text (the default), digits, or package.module:name."),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="NAME=VALUE", help="An option of the workload, like width=128."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Budget of every arm (default: the plans' horizon, or 800)."),
    ] = None,
    own_horizons: Annotated[
        bool, typer.Option("--own-horizons", help="Let the plans' budgets differ.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds; every arm runs on all (default: 5).")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at a time, one core each (default: all cores)."),
    ] = None,
    peak: Annotated[
        float | None,
        typer.Option(help="Peak learning rate of the default arms (default: the workload's)."),
    ] = None,
    tune_peak: Annotated[
        bool, typer.Option("--tune-peak", help="First choose each arm's peak, on other seeds.")
    ] = False,
    peak_factors: Annotated[
        str | None,
        typer.Option(metavar="F,F,...", help="Grid of --tune-peak (default: 0.25,0.5,1,2,4)."),
    ] = None,
    eval_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between evaluations (default: 12 per run).")
    ] = None,
    record_grad_norms: Annotated[
        bool, typer.Option("--record-grad-norms", help="Record the gradient's L1 and L2 norms.")
    ] = False,
    no_sharing: Annotated[
        bool, typer.Option("--no-sharing", help="Train each arm alone, even where arms are equal.")
    ] = False,
    predict: Annotated[
        bool,
        typer.Option(
            "--predict",
            help="Train the first arms first, fit a law to them, and predict the others.",
        ),
    ] = False,
    predict_from: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="How many arms --predict fits the law to (default: two, or one of two arms).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where to keep everything (default: runs/compare-DATE, new)."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue what was stopped or killed in DIR, or the newest."),
    ] = False,
    open_report: Annotated[
        bool, typer.Option("--open", help="Open the report in the browser at the end.")
    ] = False,
    checkpoint_seconds: Annotated[float, typer.Option(min=0, hidden=True)] = 30.0,
) -> None:
    """Train several plans on the same data and seeds, and compare their losses honestly.

    \b
    trainplan compare                          six learning-rate plans, some minutes
    trainplan compare --workload digits        the same on a toy problem, in seconds
    trainplan compare a.yaml b.yaml --seeds 8  your own plans
    trainplan compare --predict                predict arms from the first two, and check it
    trainplan compare --resume                 go on after Ctrl-C, a kill or a crash

    Ends with a table, and with results.json and report.html in DIR. Ctrl-C loses nothing.
    """  # noqa: D301  (Click wants the control character, not a backslash)
    from trainplan.lab import comparison, forecast
    from trainplan.lab.environment import available_cores
    from trainplan.lab.request import Request
    from trainplan.lab.runner import LabError

    request = Request(
        plans=tuple(plans or ()),
        workload=workload,
        options=tuple(options or ()),
        steps=steps,
        own_horizons=own_horizons,
        seeds=seeds,
        peak=peak,
        tune_peak=tune_peak,
        peak_factors=peak_factors,
        eval_every=eval_every,
        record_grad_norms=record_grad_norms,
        no_sharing=no_sharing,
        predict=predict,
        predict_from=predict_from,
    )
    workers = jobs or available_cores()
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a workload of the user's own lies here
    try:
        if resume:
            root = out or newest_run(_RUNS)
            session = comparison.resume(root)
            request.check_agrees_with(session.experiment, root)
            if request.predicts:
                forecast.ask(session.directory, session.experiment, predict_from)
        else:
            root = out or _RUNS / f"compare-{datetime.now():%Y%m%d-%H%M%S}"
            experiment = request.experiment()
            count = forecast.check_count(experiment, predict_from) if request.predicts else 0
            session = comparison.begin(root, experiment, workers, predict_from=count)
        result = _execute(session, root, workers, checkpoint_seconds)
        _finish(result, root, open_report=open_report)
    except (LabError, OSError) as error:
        typer.echo(f"trainplan: {error}", err=True)
        raise typer.Exit(2) from None


def newest_run(runs: Path) -> Path:
    """The comparison that was begun last.

    Raises:
        RunDirectoryError: If there is none.
    """
    from trainplan.lab.store import RunDirectoryError

    found = sorted(path.parent for path in runs.glob("compare-*/manifest.json"))
    if not found:
        raise RunDirectoryError(f"{runs} holds no comparison to resume: name one with --out DIR")
    return found[-1]


def _execute(session: Session, root: Path, workers: int, checkpoint_seconds: float) -> Comparison:
    from trainplan.lab.comparison import execute
    from trainplan.lab.progress import Notes, TerminalProgress

    console = Console()
    watcher: Any = TerminalProgress(console) if console.is_terminal else nullcontext(Notes())
    try:
        with _terminate_like_interrupt(), watcher as shown:
            return execute(
                session, jobs=workers, watcher=shown, checkpoint_seconds=checkpoint_seconds
            )
    except KeyboardInterrupt:
        command = f"trainplan compare --resume --out {root}"
        typer.echo(f"Stopped; everything so far is saved. Continue with:  {command}", err=True)
        raise typer.Exit(130) from None


def _finish(result: Comparison, root: Path, *, open_report: bool) -> None:
    from trainplan.lab import report, table
    from trainplan.lab.store import json_text, write_atomically

    write_atomically(root / "results.json", json_text(result.to_dict()).encode())
    path = root / "report.html"
    write_atomically(path, report.render(result).encode())
    console = Console()
    table.show(result, console)
    console.print(f"\nReport: {path}", highlight=False, soft_wrap=True)
    if open_report:
        webbrowser.open(path.resolve().as_uri())


@contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """A polite kill (SIGTERM) stops as cleanly as Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
