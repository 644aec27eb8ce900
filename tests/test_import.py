"""Importing the package costs next to nothing; a missing extra says how to install it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import trainplan as tp
from trainplan._extras import require

HEAVY = ("torch", "numpy", "scipy", "pydantic", "jax", "ruamel", "typer", "rich", "matplotlib")
EXTRAS = {
    "trainplan.torch": ("torch", "torch"),
    "trainplan.schedules.constant(1.0, 5).plot(10)": ("matplotlib", "plot"),
    "trainplan.optax.optimizer": ("optax", "jax"),
    "trainplan.lightning.PlanCallback": ("lightning", "lightning"),
    "trainplan.transformers.PlanCallback": ("transformers", "hf"),
}


def python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(Path(tp.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_nothing_heavy() -> None:
    code = "import json, sys, trainplan; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.split(".")[0] for name in json.loads(python(code))}
    assert loaded.isdisjoint(HEAVY)


def test_importing_takes_less_than_150_ms() -> None:
    code = (
        "import time; begin = time.perf_counter(); import trainplan; "
        "print(time.perf_counter() - begin)"
    )
    assert min(float(python(code)) for _ in range(5)) < 0.150


def test_plans_and_schedules_work_without_torch() -> None:
    code = (
        "import sys, trainplan as tp; "
        "plan = tp.Plan.from_yaml('horizon: 10\\nlr: {cosine: 0.1}'); "
        "tp.check(plan); plan.curve(); plan.to_yaml(); "
        "print('torch' in sys.modules, 'scipy' in sys.modules)"
    )
    assert python(code).split() == ["False", "False"]


@pytest.mark.parametrize("expression", EXTRAS)
def test_a_missing_extra_names_the_command_that_installs_it(expression: str) -> None:
    module, extra = EXTRAS[expression]
    if extra == "lightning":
        pytest.importorskip("torch", reason="which would be named first")
    code = f"""
import sys
sys.modules[{module!r}] = None  # as if it were not installed
import trainplan
try:
    {expression}
except ModuleNotFoundError as error:
    print(error)
"""
    assert f"pip install 'trainplan[{extra}]'" in python(code)


def test_errors_inside_an_installed_extra_are_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("import not_there_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as caught:
        require("half_installed", extra="lab")
    assert "pip install" not in str(caught.value)
    assert caught.value.name == "not_there_at_all"


def test_every_public_name_has_a_home() -> None:
    rooms, homes = tp._ROOMS, tp._HOME
    assert set(tp.__all__) == {*rooms, *homes, "__version__"}
    assert set(tp.__all__) <= set(dir(tp))
    for name, home in homes.items():
        assert getattr(tp, name) is getattr(importlib.import_module(home), name)
    for room in rooms.values():
        assert importlib.util.find_spec(room) is not None
    with pytest.raises(AttributeError, match="no attribute 'schedule'"):
        tp.schedule  # noqa: B018
