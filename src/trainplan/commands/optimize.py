"""``trainplan optimize``: the schedule with the lowest predicted loss."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from trainplan.commands._law import HELP, law_of
from trainplan.plan import Plan


def optimize(
    horizon: Annotated[int, typer.Option(min=2, help="Steps of the run.", show_default=False)],
    law: Annotated[Path | None, typer.Option(help=HELP, show_default=False)] = None,
    peak: Annotated[
        float | None, typer.Option(min=0, help="Peak rate (default: that of the curves).")
    ] = None,
    end: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Last rate over the peak (default: found, up to 0.1)."),
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(min=0, help="Steps of warm-up (default: as in the curves).")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the plan.")] = Path(
        "plan.yaml"
    ),
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Answer even what the curves cannot tell.")
    ] = False,
) -> None:
    """Find the schedule with the lowest predicted final loss and write it as a plan.

    \b
    trainplan optimize --law law.json --horizon 50000 --out plan.yaml
    trainplan optimize --law law.json --horizon 50000 --end 0
    The search is over warm-up, constant rate and decay: its length, its power and its end.
    """  # noqa: D301  (Click wants the control character, not a backslash)
    from trainplan import laws

    console = Console()
    predictor, _ = law_of(law, console)
    choice = laws.optimize(predictor, horizon, peak=peak, end=end, warmup=warmup, anyway=anyway)
    Plan(horizon=horizon, name=out.stem, lr=choice.schedule).save(out)
    console.print(
        f"predicted final loss {choice.loss:.4f} (80% band {choice.low:.4f} to {choice.high:.4f})",
        highlight=False,
    )
    console.print(choice.schedule.sparkline(horizon), highlight=False, markup=False)
    for name, gain in choice.gains.items():
        console.print(f"better than {name + ':':13} {gain}", highlight=False, markup=False)
    console.print(f"Written to {out}", highlight=False)
