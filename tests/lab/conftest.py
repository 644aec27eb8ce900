"""Small experiments for the tests of the lab."""

from __future__ import annotations

import pytest

import trainplan as tp
from trainplan.lab.experiment import Arm
from trainplan.lab.workload import WorkloadSpec

TINY_TEXT = {
    "width": 16,
    "layers": 1,
    "heads": 2,
    "context": 16,
    "batch_size": 2,
    "validation_sequences": 8,
}


@pytest.fixture
def tiny_text():
    return WorkloadSpec("text", TINY_TEXT)


@pytest.fixture
def noisy():
    """A workload of the user's own, with dropout and a state of its own."""
    return WorkloadSpec("lab.lab_workloads:build")


@pytest.fixture
def arms():
    """Three arms that begin alike and then part, one after the other."""
    s = tp.schedules
    return (
        Arm("constant", tp.Plan(horizon=40, lr=s.constant(0.02))),
        Arm(
            "late", tp.Plan(horizon=40, lr=s.wsd(0.02, warmup=0, decay=12, shape="linear", end=0.0))
        ),
        Arm(
            "early",
            tp.Plan(horizon=40, lr=s.wsd(0.02, warmup=0, decay=25, shape="linear", end=0.0)),
        ),
    )
