"""The leaky network forgets at the rate it says, and a run with a growing span can be resumed."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from optim.training import same
from trainplan import PlanError
from trainplan.models import (
    LeakyRNN,
    accuracies,
    autocovariance,
    fit_timescale,
    network_timescales,
    summed_loss,
)


def silent(model):
    """Nothing but the leak is left."""
    for part in (model.input, model.recurrent):
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)
    return model


@pytest.mark.parametrize("leak", ["inside", "outside"])
def test_without_input_units_decay_at_their_own_rate(leak):
    model = silent(LeakyRNN(hidden=5, heads=[2], leak=leak, tau=3.0))
    states = model.states(torch.zeros(6, 2, 1), torch.ones(2, 5))
    keep = 1 - 1 / model.time_constants()
    assert torch.allclose(states[6], keep**6 * torch.ones(2, 5))


def test_units_do_not_feed_themselves_and_time_constants_are_at_least_one():
    model = LeakyRNN(hidden=3, heads=[2])
    nn.init.eye_(model.recurrent.weight)
    before = model.states(torch.zeros(1, 1, 1), torch.ones(1, 3))
    nn.init.zeros_(model.recurrent.weight)
    assert torch.equal(before, model.states(torch.zeros(1, 1, 1), torch.ones(1, 3)))
    with torch.no_grad():
        model.tau.fill_(0.2)
    assert model.time_constants().tolist() == [1, 1, 1]
    model.states(torch.ones(4, 2, 1)).sum().backward()
    assert not model.tau.grad.any()  # and they stay there


def test_fixed_time_constants_are_fixed():
    model = LeakyRNN(hidden=4, heads=[2], train_tau=False)
    assert not model.tau.requires_grad
    assert "off_diagonal" not in model.state_dict()


def test_the_loss_is_a_sum_over_read_outs():
    torch.manual_seed(0)
    model = LeakyRNN(hidden=6, heads=[2, 3, 5])
    logits = model(torch.ones(7, 8, 1))
    labels = {n: torch.randint(2, (8,)) for n in logits}
    each = [nn.functional.cross_entropy(logits[n], labels[n]) for n in (2, 3, 5)]
    assert torch.allclose(summed_loss(logits, labels), sum(each))
    assert set(accuracies(logits, labels)) == {2, 3, 5}


@pytest.mark.parametrize("tau", [2.0, 8.0, 40.0])
def test_the_timescale_of_a_decaying_process_is_found(tau):
    decay = np.exp(-np.arange(31) / tau)
    assert fit_timescale(3 * decay).tau == pytest.approx(tau, rel=1e-3)
    both = fit_timescale(0.6 * decay + 0.4 * np.exp(-np.arange(31) / 0.7))
    assert both.exponentials == 2
    assert both.tau == pytest.approx(tau, rel=1e-2)


def test_the_timescale_of_a_leaky_unit_is_that_of_its_leak():
    model = silent(LeakyRNN(hidden=1, heads=[2], leak="outside", tau=5.0))
    nn.init.ones_(model.input.weight)
    (found,) = network_timescales(model, trials=4, steps=20_000, drop=200)
    expected = -1 / np.log(1 - 1 / model.time_constants().item())
    assert found.tau == pytest.approx(expected, rel=0.1)
    assert network_timescales(silent(model), trials=1, steps=600, drop=500) == [None]


def test_autocovariance_is_that_of_each_signal():
    random = np.random.default_rng(0)
    signals = random.normal(size=(3, 50, 2))
    both = autocovariance(signals, 5)
    assert np.allclose(both[:, 1], autocovariance(signals[:, :, 1], 5))
    assert both[0, 0] == pytest.approx(signals[:, :, 0].var(axis=1, ddof=1).mean())


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: LeakyRNN(leak="both"), "leak"),
        (lambda: LeakyRNN(hidden=3, heads=[2]).states(torch.zeros(4, 2)), "x"),
        (lambda: LeakyRNN(hidden=3, heads=[2])(torch.zeros(4, 2, 1), [3]), "heads"),
        (lambda: autocovariance([1.0, 2.0], 5), "lags"),
        (lambda: fit_timescale([0.0, 1, 1, 1, 1]), "covariance"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place


@pytest.mark.parametrize("step", [4, 5, 17])
def test_lightning_resumes_a_growing_span_bit_by_bit(tmp_path, step):
    example = pytest.importorskip("with_memory_span")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = example.fit(tmp_path, 24, threshold=0.5)
        resumed = example.fit(tmp_path / "again", 24, tmp_path / f"step={step}.ckpt", threshold=0.5)
    assert len(whole.curriculum.active) > 2  # it has grown on the way
    assert same(whole.state_dict(), resumed.state_dict())
    assert whole.curriculum.state_dict() == resumed.curriculum.state_dict()
