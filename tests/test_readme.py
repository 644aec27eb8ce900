"""What the README shows must work as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import trainplan as tp

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"), ids=["attach", "sentence"])
def test_the_code_runs(code):
    pytest.importorskip("torch")
    names = {}
    exec(code, names)
    if "run" in names:
        assert names["run"].t == 1000
        assert names["run"].values["weight_decay"] == 0.1
    else:
        assert names["lr"].resolve(20_000)(16_000) == 3e-4


def test_a_complete_use_takes_less_than_ten_lines():
    lines = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(lines) < 10


def test_the_plan_file_says_what_it_seems_to_say():
    (text,) = blocks("yaml")
    plan = tp.Plan.from_yaml(text, "README.md")
    assert plan.horizon == 20_000
    assert plan.at(10_000) == {
        "lr": 3e-4,
        "weight_decay": 0.1,
        "betas": (0.9, 0.95),
        "mask_rate": pytest.approx(0.225),
    }
    assert tp.Plan.from_yaml(plan.to_yaml()) == plan
    assert [f.level for f in tp.check(plan)] == ["warning"]


def test_every_named_schedule_is_mentioned():
    for name in (*tp.schedules.NAMED, "refine"):
        assert f"`{name}`" in README


def test_every_picture_is_there():
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[1] / path).is_file()
