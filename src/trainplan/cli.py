"""The command line: ``trainplan COMMAND``. Each command lives in its own module."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any, Final

import typer
from typer.core import TyperGroup

from trainplan.errors import MissingExtraError, PlanError

COMMANDS: Final = {
    "compare": "trainplan.commands.compare",
    "show": "trainplan.commands.show",
    "check": "trainplan.commands.check",
    "schema": "trainplan.commands.schema",
    "refine": "trainplan.commands.refine",
    "fit": "trainplan.commands.fit",
    "predict": "trainplan.commands.predict",
    "optimize": "trainplan.commands.optimize",
    "papers": "trainplan.commands.papers",
    "reproduce": "trainplan.commands.reproduce",
}
"""Commands and the modules that hold a function of the same name, in the order of the help."""


class Commands(TyperGroup):
    """Commands whose modules are loaded when they are called for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands that are there."""
        return [name for name, module in COMMANDS.items() if importlib.util.find_spec(module)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Load one command; None if there is none of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(COMMANDS[cmd_name])
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name=cmd_name)(getattr(module, cmd_name))
        return typer.main.get_command(single)


app = typer.Typer(cls=Commands, add_completion=False, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def trainplan() -> None:
    """Plan everything that changes while a model trains.

    \b
    A plan is a small YAML file, here a learning rate with warm-up and decay:
      horizon: 20000
      lr: {wsd: {peak: 3e-4, warmup: 2%, decay: 20%, shape: 1-sqrt, end: 0}}

    \b
    First steps:
      trainplan show plan.yaml       what the plan does, step by step
      trainplan check plan.yaml      what is wrong with it, and the remedy
      trainplan compare              train six plans on real text and compare them
      trainplan compare a.yaml b.yaml --workload text --steps 1000 --seeds 5
      trainplan papers cosine        find a published method
      trainplan COMMAND --help       everything a command can do
    """  # noqa: D301  (Click wants the control character, not a backslash)


def main() -> None:
    """Run the command line; what a user can mend ends in one line and exit code 2."""
    try:
        app()
    except (PlanError, MissingExtraError) as error:
        sys.stderr.write(f"trainplan: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
