"""The monitor tells oscillation from convergence, and the threshold is where it begins."""

from __future__ import annotations

import json

import numpy as np
import pytest

from trainplan import PlanError
from trainplan.optim import (
    OscillationMonitor,
    oscillation_threshold,
    sharpness,
    strong_feature_multiplier,
)


def strong_feature(c, steps=600):
    """y f of the strong feature alone, step by step."""
    value = 0.5
    for _ in range(steps):
        value = value * (1 - 2 * c * (value - 1)) ** 2
        yield value


@pytest.mark.parametrize("width", [2, 8, 50])
def test_small_errors_grow_exactly_above_the_threshold(width):
    threshold = oscillation_threshold(width, 1.5)
    assert strong_feature_multiplier(threshold, width, 1.5) == pytest.approx(-1)
    rates = np.array([0.9, 1.1]) * threshold
    below, above = strong_feature_multiplier(rates, width, 1.5)
    assert abs(below) < 1 < abs(above)


def test_oscillation_is_seen_and_leaves_a_residual():
    steady, swinging = OscillationMonitor(200), OscillationMonitor(200)
    for calm, wild in zip(strong_feature(0.2), strong_feature(0.65), strict=True):
        steady.push({0: calm - 1})
        swinging.push({0: wild - 1})
    assert steady.amplitude < 1e-6
    assert steady.drift == pytest.approx(0, abs=1e-6)
    assert swinging.score > 0.9
    assert swinging.amplitude > 0.2
    assert swinging.drift < -0.02


def test_samples_are_told_apart():
    monitor = OscillationMonitor()
    for _ in range(5):
        monitor.push({"a": 1.0})
        monitor.push({"b": -1.0})
    assert monitor.score == 0.0
    assert monitor.amplitude == 1.0


def test_resuming_at_any_push_changes_nothing():
    residuals = [value - 1 for value in strong_feature(0.6, 60)]
    whole = OscillationMonitor(20)
    for i, residual in enumerate(residuals):
        whole.push({i % 3: residual})
    for stop in (0, 1, 19, 20, 45, 60):
        first, second = OscillationMonitor(20), OscillationMonitor(20)
        for i, residual in enumerate(residuals[:stop]):
            first.push({i % 3: residual})
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        for i, residual in enumerate(residuals[stop:], start=stop):
            second.push({i % 3: residual})
        assert second.state_dict() == whole.state_dict()
        assert (second.score, second.drift) == (whole.score, whole.drift)


def test_a_monitor_that_saw_nothing_says_so():
    monitor = OscillationMonitor()
    assert np.isnan([monitor.score, monitor.amplitude, monitor.drift]).all()


def test_sharpness_is_the_largest_eigenvalue_of_the_hessian():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    root = torch.randn(6, 6, dtype=torch.float64)
    hessian = root @ root.T
    parts = [torch.randn(2, dtype=torch.float64), torch.randn(4, dtype=torch.float64)]
    for part in parts:
        part.requires_grad_(True)

    def loss():
        w = torch.cat(parts)
        return 0.5 * w @ hessian @ w

    largest = torch.linalg.eigvalsh(hessian)[-1].item()
    assert sharpness(loss, parts, steps=200) == pytest.approx(largest, rel=1e-3)


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (lambda: OscillationMonitor(0), "window"),
        (lambda: OscillationMonitor().push({3: float("inf")}), "residuals[3]"),
        (lambda: OscillationMonitor(3).load_state_dict({"window": 4}), "window"),
        (lambda: oscillation_threshold(8, 0.0), "strong_norm"),
        (lambda: oscillation_threshold(0, 1.0), "width"),
        (lambda: sharpness(lambda: None, []), "parameters"),
    ],
)
def test_bad_input_is_named(call, place):
    pytest.importorskip("torch")
    with pytest.raises(PlanError) as caught:
        call()
    assert caught.value.place == place
