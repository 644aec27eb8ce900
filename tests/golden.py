"""Check files of reference values: python tests/golden.py FILE...

A file names a paper and holds cases: a function in words, inputs, expected outputs and tolerances.
The adapters in golden_adapters/ translate each paper's functions into calls of the library.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [path for path in (str(HERE), str(HERE.parent / "src")) if path not in sys.path]

from golden_adapters import LATER  # noqa: E402

Adapter = Callable[..., dict[str, Any]]
"""From inputs to outputs; one that has an argument ``case`` is told the case's name as well."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case: "passed", "failed" or "skipped", and why."""

    case: str
    status: str
    why: str = ""


def adapters_of(paper: str) -> dict[str, Adapter]:
    """The paper's adapters, by the words that its functions' descriptions begin with."""
    name = paper.replace("-", "_").replace(".", "_")
    try:
        module = importlib.import_module(f"golden_adapters.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"golden_adapters.{name}":
            raise
        return {}
    adapters: dict[str, Adapter] = module.ADAPTERS
    return adapters


def check_file(path: Path) -> Iterator[Outcome]:
    """Evaluate every case of a file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    paper = content["paper"]
    adapters = adapters_of(paper)
    later = LATER.get(paper, ())
    for case in content["cases"]:
        label = f"{path.name}: {case['name']}"
        function = case["function"]
        known = [adapter for key, adapter in adapters.items() if function.startswith(key)]
        if known:
            yield check_case(label, known[0], case)
        elif any(function.startswith(key) for key in later):
            yield Outcome(label, "skipped", "its room is not built yet")
        else:
            yield Outcome(label, "failed", f"no adapter for the function {function!r}")


def check_case(label: str, adapter: Adapter, case: dict[str, Any]) -> Outcome:
    """Evaluate one case."""
    try:
        named = {"case": case["name"]} if "case" in signature(adapter).parameters else {}
        got = adapter(case["inputs"], **named)
    except Exception as error:  # noqa: BLE001 - one broken case must not hide the others
        return Outcome(label, "failed", f"{type(error).__name__}: {error}")
    for key, expected in case["outputs"].items():
        if key not in got:
            return Outcome(label, "failed", f"no output {key!r}")
        difference = compare(got[key], expected, case.get("atol", 0.0), case.get("rtol", 0.0))
        if difference:
            return Outcome(label, "failed", f"{key}{difference}")
    return Outcome(label, "passed")


def compare(got: Any, expected: Any, atol: float, rtol: float) -> str:
    """Where and how two values differ; empty if they do not."""
    if hasattr(got, "tolist"):
        got = got.tolist()
    if isinstance(expected, dict):
        if not isinstance(got, dict) or set(got) < set(expected):
            return f": keys {sorted(expected)} expected, got {got!r}"
        pairs = [(f".{key}", got[key], value) for key, value in expected.items()]
    elif isinstance(expected, list):
        if not isinstance(got, (list, tuple)) or len(got) != len(expected):
            return f": {len(expected)} values expected, got {got!r:.200}"
        pairs = [(f"[{i}]", a, b) for i, (a, b) in enumerate(zip(got, expected, strict=True))]
    else:
        return _compare_one(got, expected, atol, rtol)
    for place, a, b in pairs:
        if difference := compare(a, b, atol, rtol):
            return place + difference
    return ""


def _compare_one(got: Any, expected: Any, atol: float, rtol: float) -> str:
    exact = isinstance(expected, (str, bool, type(None)))
    if exact or not isinstance(got, (int, float)):
        same = got == expected and type(got) is type(expected)
    elif math.isfinite(expected):
        same = abs(got - expected) <= atol + rtol * abs(expected)
    else:
        same = got == expected or (math.isnan(got) and math.isnan(expected))
    return "" if same else f": {expected!r} expected, got {got!r}"


def main(arguments: list[str]) -> int:
    """Check the files named on the command line."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    outcomes = [outcome for name in arguments for outcome in check_file(Path(name))]
    for outcome in outcomes:
        if outcome.status != "passed":
            print(f"{outcome.status}: {outcome.case}: {outcome.why}")
    number = {s: sum(o.status == s for o in outcomes) for s in ("passed", "failed", "skipped")}
    skipped = f", {number['skipped']} skipped" if number["skipped"] else ""
    print(f"{number['passed']} passed, {number['failed']} failed{skipped}")
    return 1 if number["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
