"""Effective rates, and the schedule that growing norms amount to."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import trainplan as tp
from trainplan.errors import PlanError
from trainplan.optim import (
    EffectiveLRMonitor,
    ImplicitScheduleRecorder,
    effective_lr,
    normalize_and_project,
)
from trainplan.optim.effective_rate import effective_rate, rate_power

MATRICES = ["0.weight", "2.weight"]


def network():
    torch.manual_seed(0)
    layers = [nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)]
    model = nn.Sequential(*layers).double()
    projector = normalize_and_project(model, torch.zeros(1, 6).double(), eps=0.0)
    return model, projector


def step(model, optimizer, t):
    random = torch.Generator().manual_seed(t)
    x = torch.randn(32, 6, generator=random, dtype=torch.float64)
    optimizer.zero_grad()
    mse_loss(model(x), x[:, :2] * x[:, 2:4]).backward()
    optimizer.step()


def test_a_projected_run_with_the_implicit_schedule_is_the_unprojected_run():
    free, _ = network()
    recorder = ImplicitScheduleRecorder(free, MATRICES)
    optimizer = torch.optim.SGD(free.parameters(), lr=0.1)
    recorder.attach(optimizer)
    for t in range(200):
        step(free, optimizer, t)
    assert recorder.multipliers("0.weight", power=2)[-1] < 0.9

    held, projector = network()
    groups = [{"params": [projector.weights[name]]} for name in MATRICES]
    optimizer = torch.optim.SGD([*groups, {"params": held[4].parameters()}], lr=0.1)
    projector.attach(optimizer)
    for t in range(200):
        for name, group in zip(MATRICES, optimizer.param_groups, strict=False):
            group["lr"] = 0.1 * recorder.multipliers(name, power=2)[t]
        step(held, optimizer, t)
    x = torch.randn(50, 6, dtype=torch.float64)
    assert (held(x) - free(x)).abs().max() < 1e-5
    assert all(math.isclose(r, 1, rel_tol=1e-9) for r in projector.ratios().values())


def test_gradient_steps_on_invariant_weights_only_lower_the_effective_rate():
    model, _ = network()
    monitor = EffectiveLRMonitor(model, MATRICES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    last = monitor.read(optimizer)
    assert last == pytest.approx(dict.fromkeys(MATRICES, 0.1))
    for t in range(20):
        step(model, optimizer, t)
        now = monitor.read(optimizer)
        assert all(now[name] < last[name] for name in MATRICES)
        last = now


def test_powers_by_optimizer():
    w = [nn.Parameter(torch.ones(2, 2))]
    assert rate_power(torch.optim.SGD(w, momentum=0.9)) == 2
    assert rate_power(tp.optim.SGDSaI(w, lr=0.1)) == 2
    assert rate_power(torch.optim.AdamW(w)) == rate_power(tp.optim.APOLLO(w)) == 1


def test_any_model_can_be_read_at_any_time():
    model = nn.Sequential(nn.Embedding(5, 4), nn.LSTM(4, 3))
    groups = [{"params": model[0].parameters(), "lr": 0.5}, {"params": model[1].parameters()}]
    optimizer = torch.optim.Adam(groups, lr=0.1)
    rates = effective_lr(model, optimizer)
    assert set(rates) == {"0.weight", "1.weight_ih_l0", "1.weight_hh_l0"}
    assert rates["0.weight"] == pytest.approx(0.5 / float(model[0].weight.detach().norm()))
    squared = effective_lr(model, optimizer, power=2)
    assert squared["0.weight"] == pytest.approx(0.5 / float(model[0].weight.detach().norm()) ** 2)
    frozen = torch.optim.Adam(model[1].parameters())
    assert "0.weight" not in effective_lr(model, frozen)


def test_what_has_no_norm_has_no_finite_rate():
    assert effective_rate(0.1, 0.0) == math.inf
    assert effective_rate(0.0, 0.0) == 0


def test_states_go_on_where_they_were():
    model, _ = network()
    monitor, recorder = EffectiveLRMonitor(model), ImplicitScheduleRecorder(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder.attach(optimizer)
    step(model, optimizer, 0)
    late, again = EffectiveLRMonitor(model), ImplicitScheduleRecorder(model)
    assert late.read(optimizer) != monitor.read(optimizer)
    late.load_state_dict(monitor.state_dict())
    again.load_state_dict(recorder.state_dict())
    assert late.read(optimizer) == monitor.read(optimizer)
    recorder.record()
    again.record()
    assert again.multipliers(power=1) == recorder.multipliers(power=1)
    recorder.detach()
    step(model, optimizer, 1)
    assert len(recorder.norms["0.weight"]) == 2
    with pytest.raises(PlanError, match="not a state"):
        EffectiveLRMonitor(model, MATRICES).load_state_dict(monitor.state_dict())
    with pytest.raises(PlanError, match="no such weight"):
        recorder.multipliers("0.wieght", power=1)


def test_one_multiplier_of_the_joint_norm():
    model, _ = network()
    recorder = ImplicitScheduleRecorder(model, MATRICES)
    with torch.no_grad():
        for name in MATRICES:
            model.get_parameter(name).mul_(4)
    recorder.record()
    assert recorder.multipliers(power=1) == pytest.approx([0.25])
