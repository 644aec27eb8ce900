"""``trainplan schema``: the JSON Schema of plan files, for editors."""

from __future__ import annotations

import json
import sys


def schema() -> None:
    """Print the JSON Schema of plan files.

    Editors complete and check plan files with it: save it next to them, and put the line
    # yaml-language-server: $schema=plan.schema.json  at the top of a plan.
    """
    from trainplan.schema import plan_schema

    sys.stdout.write(json.dumps(plan_schema(), indent=2) + "\n")
