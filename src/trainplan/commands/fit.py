"""``trainplan fit``: from loss curves to a law that predicts others."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from trainplan.laws.curves import Curve
    from trainplan.laws.predictor import Predictor


def fit(
    curves: Annotated[
        list[Path],
        typer.Argument(
            metavar="CURVES...",
            help="Logs: trainer_state.json, TensorBoard or MLflow directories, Weights & Biases "
            "exports, Lightning's metrics.csv, CSV, JSON or JSONL tables, trainplan's runs.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the law.")] = Path(
        "law.json"
    ),
    law: Annotated[
        str,
        typer.Option(
            help="auto (all, weighed), concave, functional, multi_power, annealing or power."
        ),
    ] = "auto",
    loss: Annotated[
        str | None, typer.Option(help="Column of the loss (default: a usual name).")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Column of the learning rate (default: a usual name).")
    ] = None,
    step: Annotated[
        str | None, typer.Option(help="Column that counts steps (default: a usual name).")
    ] = None,
    run: Annotated[
        list[str] | None, typer.Option("--run", help="Take only this run of a file; repeatable.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="Plan file with the rate, if it was not logged.")
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(min=0, help="First step after warm-up (default: found).")
    ] = None,
) -> None:
    """Fit a law to loss curves, so that other schedules can be predicted.

    \b
    trainplan fit constant.csv cosine.csv --out law.json
    trainplan fit output/ --loss eval_loss           a Transformers output directory
    trainplan fit runs.csv --run a --run b           some runs of an export
    Best are two curves of one peak rate: a constant one and one with a decay.
    """  # noqa: D301  (Click wants the control character, not a backslash)
    from trainplan import laws

    console = Console()
    found = laws.load(
        *curves, loss=loss, rate=rate, step=step, plan=plan, warmup=warmup, runs=run or None
    )
    console.print(curve_table(found))
    for curve in found:
        for note in curve.notes:
            console.print(f"{curve.name}: {note}", style="dim", highlight=False, markup=False)
    predictor = laws.fit(law, found)
    predictor.save(out)
    console.print(law_table(predictor))
    if len(found) == 1:
        console.print(
            "One curve cannot tell progress from what the rate does: bands are four times as "
            "wide. A second one under another schedule, of the same peak, helps most.",
            highlight=False,
        )
    console.print(f"Written to {out}.  Next:  trainplan predict --law {out} PLAN.yaml")


def curve_table(curves: list[Curve]) -> Table:
    """What was read."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("curve", "points", "steps", "warm-up", "peak rate", "last loss", "noise %"):
        table.add_column(name, justify="left" if name == "curve" else "right")
    for c in curves:
        cells = (
            len(c),
            c.last,
            c.warmup,
            f"{c.peak:g}",
            f"{c.loss[-1]:.4f}",
            f"{100 * c.noise:.2f}",
        )
        table.add_row(c.name, *map(str, cells))
    return table


def law_table(predictor: Predictor) -> Table:
    """The laws, their shares and parameters."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("law")
    table.add_column("share", justify="right")
    table.add_column("held-out error %", justify="right")
    table.add_column("parameters")
    errors = predictor.held_out or (math.nan,) * len(predictor.laws)
    for law, weight, error in zip(predictor.laws, predictor.weights, errors, strict=True):
        values = ", ".join(f"{name}={getattr(law, name):.4g}" for name in law.units)
        shown = "-" if math.isnan(error) else f"{100 * error:.2f}"
        table.add_row(law.kind, f"{weight:.0%}", shown, values)
    return table
