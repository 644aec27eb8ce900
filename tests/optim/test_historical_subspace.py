"""Directions that are taken stay orthonormal, and how many are taken follows a rule."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan.optim import HistoricalSubspace
from trainplan.optim.historical_subspace import drift, kept_directions


@given(
    values=st.lists(st.floats(0.01, 10), min_size=1, max_size=8),
    threshold=st.floats(0, 1),
)
@settings(max_examples=40)
def test_what_is_kept_holds_less_than_the_threshold_and_one_more_does_not(values, threshold):
    found = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    kept = kept_directions(found, threshold)
    shares = found.square().cumsum(0) / found.square().sum()
    assert kept < len(found)
    assert kept == 0 or shares[kept - 1] < threshold + 1e-12
    assert shares[kept] >= threshold - 1e-12


@pytest.mark.parametrize("values", [[], [0.0, 0.0]])
def test_without_energy_nothing_is_kept(values):
    assert kept_directions(torch.tensor(values), 0.98) == 0


def test_projecting_twice_is_projecting_once():
    past = HistoricalSubspace()
    matrix = torch.randn(6, 4, dtype=torch.float64)
    assert past.project(matrix) is matrix
    vectors = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    assert past.extend(vectors, torch.tensor([3.0, 2.0, 1.0, 0.1, 0.1, 0.1]), 0.95) == 2
    once = past.project(matrix)
    assert torch.allclose(past.project(once), once)
    assert (vectors[:, :2].T @ once).abs().max() < 1e-14


def test_a_drift_is_mended_and_the_span_stays():
    past = HistoricalSubspace(torch.eye(5)[:, :2])
    past.extend(torch.eye(5)[:, 2:4] + 0.01, torch.tensor([1.0, 1.0]), 0.6)
    assert past.dimension == 3
    assert drift(past.basis) < 1e-6
    assert past.project(torch.eye(5)[:, :2]).abs().max() < 1e-6
