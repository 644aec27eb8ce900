"""The law that a command works with: a fitted one, or that of the curves trainplan brings along."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from trainplan.laws.predictor import Predictor
    from trainplan.plan import Plan

USUAL = Path("law.json")
HELP = "What trainplan fit wrote (default: law.json, or the embedded example without one)."
EXAMPLE = (
    "The embedded example is used: curves of a 0.1-million-parameter transformer on Python's "
    "standard library, peak rate 0.004, 3000 steps. They say how schedules differ there, nothing "
    "about your model. For that:  trainplan fit YOUR-LOGS"
)


def law_of(path: Path | None, console: Console) -> tuple[Predictor, bool]:
    """The law, and whether it is the example's; says so if it is."""
    from trainplan import laws

    if path is not None or USUAL.exists():
        return laws.Predictor.load(path or USUAL), False
    console.print(EXAMPLE, style="yellow", highlight=False, soft_wrap=True)
    return laws.example_law(), True


def with_peak_of(law: Predictor, plan: Plan, console: Console) -> Plan:
    """The plan with its rate multiplied so that its peak is that of the law's curves."""
    from trainplan.laws.curves import rates_of
    from trainplan.laws.law import length_of
    from trainplan.schedules.base import Schedule

    lr = plan.knobs.get("lr")
    if not isinstance(lr, Schedule):
        return plan
    peak = float(rates_of(plan, length_of(plan, None)).max())
    if not peak > 0 or abs(peak / law.evidence.peak - 1) < 0.01:
        return plan
    console.print(
        f"{plan.name}: its peak rate {peak:g} is taken as the example's {law.evidence.peak:g}; "
        "only its shape is judged.",
        style="yellow",
        highlight=False,
        soft_wrap=True,
    )
    return plan.replace(lr=lr * (law.evidence.peak / peak))


__all__ = ["EXAMPLE", "HELP", "USUAL", "law_of", "with_peak_of"]
