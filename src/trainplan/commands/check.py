"""``trainplan check``: what is wrong with a plan, before it costs a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from trainplan.lint import Finding
from trainplan.lint import check as lint
from trainplan.plan import Plan

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def check(
    plans: Annotated[list[Path], typer.Argument(help="Plan files.", show_default=False)],
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 for warnings too, not only for errors.")
    ] = False,
) -> None:
    """Find mistakes in plan files, each with a remedy.

    Exits with 1 if there is an error (with --strict: or a warning), with 2 if a file is not a
    plan.
    """
    console = Console()
    failed = False
    for path in plans:
        findings = lint(Plan.load(path))
        for finding in findings:
            _print(console, path, finding)
        levels = {finding.level for finding in findings}
        failed |= "error" in levels or (strict and "warning" in levels)
        if not findings:
            console.print(f"{path}: nothing found", highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _print(console: Console, path: Path, finding: Finding) -> None:
    colour = _COLOURS[finding.level]
    console.print(f"[{colour}]{finding.level}[/] ", end="")
    console.print(
        f"{path}: {finding.place}: {finding.message}", markup=False, highlight=False, soft_wrap=True
    )
    if finding.remedy:
        console.print(f"    {finding.remedy}", markup=False, highlight=False, soft_wrap=True)
