"""SGD-SaI measures each tensor once, keeps what it measured, and is safe where that explodes."""

import functools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import trainplan as tp
from optim.optimizer_contract import OptimizerContract
from optim.training import Subject, difference, loss_of, net, same, saved, train, weights
from optim.update_contract import UpdateContract
from trainplan.errors import PlanError
from trainplan.optim import SGDSaI, gradient_snr, scaled_groups


def sai(model, **options):
    return SGDSaI(model.parameters(), **{"lr": 0.02, **options})


class TestSGDSaI(OptimizerContract):
    subject = Subject(
        make=sai,
        knobs={"momentum": tp.schedules.linear(0.9, end=0.5), "weight_decay": 0.05},
        trainer=lambda model: (SGDSaI, {"lr": 0.01}),
    )


class TestThePapersFormula(UpdateContract):
    subject = Subject(make=lambda m, **o: sai(m, normalize=True, lr=0.5, **o))


class TestRootOfTheSize(UpdateContract):
    subject = Subject(make=lambda m, **o: sai(m, scale="sqrt_numel", **o))


class TestWithoutMomentum(UpdateContract):
    subject = Subject(make=lambda m, **o: sai(m, momentum=0.0, **o))


@pytest.mark.parametrize("case", range(5))
def test_the_plain_path_has_the_reference_values_too(case):
    import golden
    from golden_adapters.sgd_sai import steps

    file = Path(__file__).parents[1] / "golden" / "sgd-sai.json"
    reference = json.loads(file.read_text(encoding="utf-8"))["cases"][case]
    plain = functools.partial(steps, foreach=False)
    assert golden.check_case(reference["name"], plain, reference).status == "passed"


@given(d=st.integers(2, 40), mean=st.floats(-2, 2), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_the_scale_is_the_root_of_the_size_and_the_mean(d, mean, seed):
    random = torch.Generator().manual_seed(seed)
    grad = torch.randn(d, generator=random, dtype=torch.float64) + mean
    ratio = (grad.mean() / grad.std()).item() ** 2
    assert gradient_snr(grad, 0.0) == pytest.approx((d - 1 + d * ratio) ** 0.5)
    assert gradient_snr(grad, 0.0) == pytest.approx(gradient_snr(1000 * grad, 0.0))


def test_the_papers_formula_at_the_largest_scale_times_the_rate_is_the_codes():
    model, other = net(torch.float64), net(torch.float64)
    one = sai(model, scale="sqrt_numel", weight_decay=0.0)
    train(model, one)
    two = sai(other, scale="sqrt_numel", weight_decay=0.0, normalize=True, lr=0.02 * one.largest)
    train(other, two)
    for a, b in zip(weights(model), weights(other), strict=True):
        assert torch.allclose(a, b)
    assert max(two.scales(other.named_parameters()).values()) == 1.0


def test_scales_are_measured_once_and_not_again_on_resume():
    model = net()
    optimizer = sai(model)
    train(model, optimizer, 1)
    first = optimizer.scales(model.named_parameters())
    train(model, optimizer, range(1, 5))
    other = sai(model)
    other.load_state_dict(saved(optimizer.state_dict()))
    train(model, other, range(5, 8))
    assert other.scales(model.named_parameters()) == first
    assert other.largest == optimizer.largest


def test_one_number_and_equal_numbers_do_not_explode():
    one, equal = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(4))
    one.grad, equal.grad = torch.ones(1), torch.ones(4)
    for mode, expected in (("default", (1.0, 20.0)), ("authors", (1e8, 2e8))):
        optimizer = SGDSaI([one, equal], mode=mode)
        optimizer.step()
        found = [optimizer.state[p]["scale"] for p in (one, equal)]
        assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("lr", -0.1),
        ("lr", float("nan")),
        ("momentum", 1.0),
        ("eps", -1.0),
        ("weight_decay", -0.1),
        ("scale", "root"),
        ("max_scale", 0.0),
        ("mode", "author"),
    ],
)
def test_what_cannot_be_meant_is_refused(setting, value):
    with pytest.raises(PlanError, match=setting):
        SGDSaI([nn.Parameter(torch.zeros(3))], **{setting: value})


def test_a_gradient_that_is_not_finite_is_not_measured():
    p = nn.Parameter(torch.zeros(3))
    p.grad = torch.full((3,), float("nan"))
    with pytest.raises(PlanError, match="finite"):
        SGDSaI([p]).step()


def test_without_momentum_there_is_no_buffer():
    model = net()
    optimizer = sai(model, momentum=0.0)
    train(model, optimizer, 2)
    assert all("momentum_buffer" not in state for state in optimizer.state.values())
    assert not same(weights(model), weights(net()))


@pytest.mark.parametrize("foreach", [None, False])
def test_no_old_buffer_comes_back_with_momentum(foreach):
    model, other = net(), net()
    optimizer = sai(model, foreach=foreach)
    train(model, optimizer, 3)
    optimizer.param_groups[0]["momentum"] = 0.0
    train(model, optimizer, range(3, 5))
    other.load_state_dict(model.state_dict())
    kept = optimizer.scales(model.named_parameters())
    optimizer.param_groups[0]["momentum"] = 0.9
    train(model, optimizer, range(5, 7))

    fresh = sai(other, foreach=foreach)
    for name, p in other.named_parameters():
        fresh.state[p] = {"scale": kept[name], "largest": optimizer.largest}
    train(other, fresh, range(5, 7))
    assert same(weights(model), weights(other))


def test_the_multipliers_of_any_other_optimizer():
    model, other = net(), net()
    loss_of(model, 0).backward()
    groups = scaled_groups(model.parameters(), 0.02)
    found = {id(p): group["lr"] / 0.02 for group in groups for p in group["params"]}
    sgd = torch.optim.SGD(groups, 0.02, momentum=0.9, dampening=0.9)
    ours = sai(other, weight_decay=0.0)
    train(model, sgd)
    train(other, ours)
    for p, scale in zip(
        model.parameters(), ours.scales(other.named_parameters()).values(), strict=True
    ):
        assert found[id(p)] == pytest.approx(scale)
    assert difference(weights(model), weights(other), weights(net())) < 1e-4


@pytest.mark.parametrize("scale", ["gsnr", "sqrt_numel"])
@pytest.mark.parametrize("normalize", [False, True])
def test_decay_is_the_same_for_all_groups(scale, normalize):
    model = net()
    loss_of(model, 0).backward()
    params = list(model.parameters())
    params[0].grad = None  # nothing is known of it: the root of its size
    params[1].grad.zero_()
    groups = scaled_groups(params, 0.1, weight_decay=0.3, scale=scale, normalize=normalize)
    assert sum(len(group["params"]) for group in groups) == len(params)
    assert all(g["lr"] * g["weight_decay"] == pytest.approx(0.03) for g in groups)
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}
    shape = (params[0].numel() / params[1].numel()) ** 0.5
    assert rates[id(params[0])] / rates[id(params[1])] == pytest.approx(shape)
    assert not normalize or max(rates.values()) == pytest.approx(0.1)
    with pytest.raises(PlanError, match="gsnr"):
        scaled_groups(params, 0.1, scale="gsn")


def test_a_scale_without_any_limit_is_refused():
    p = nn.Parameter(torch.zeros(3))
    p.grad = torch.ones(3)
    with pytest.raises(PlanError, match="finite"):
        SGDSaI([p], eps=0.0, max_scale=None).step()
