"""The arctangents are those of the formulas, and a head's group follows its own."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trainplan as tp
from trainplan import PlanError
from trainplan.data import ArctanRamp, consistency_weight, follow, head_rate


@settings(max_examples=30, deadline=None)
@given(
    st.floats(-1, 1),
    st.floats(-1, 1),
    st.floats(0.01, 1000).flatmap(lambda x: st.sampled_from([x, -x])),
    st.floats(0, 1),
)
def test_ramps_follow_the_formula(middle, amplitude, slope, centre):
    ramp = ArctanRamp(middle, amplitude, slope, centre).resolve(100)
    t = np.arange(130)
    r = np.minimum(t / 100, 1)
    expected = amplitude * np.arctan(slope * (r - centre)) / (math.pi / 2) + middle
    np.testing.assert_allclose(ramp(t), expected, atol=1e-11)
    np.testing.assert_allclose([ramp(x) for x in t], expected, atol=1e-11)


def test_plans_hold_ramps_and_hold_them_within_epochs():
    weight = consistency_weight("200 epochs").sample(every="1 epoch")
    plan = tp.Plan(201 * 7, steps_per_epoch=7, lr=0.01, weight=weight, head_lr=head_rate())
    again = tp.Plan.from_yaml(plan.to_yaml())
    assert again.digest == plan.digest
    t = np.arange(201 * 7)
    epochs = consistency_weight(200)(t // 7)
    np.testing.assert_allclose(again["weight"](t), epochs, rtol=1e-12)
    rates = plan["head_lr"](t)
    assert (np.diff(rates) < 0).all()
    assert rates[0] / rates[-1] > 250


def test_a_group_follows_its_own_knob_and_goes_on_after_loading():
    torch = pytest.importorskip("torch")
    plan = tp.Plan(20, lr=tp.schedules.linear(0.01), head_lr=head_rate())

    def start():
        torch.manual_seed(0)
        body, head = torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)
        groups = [{"params": body.parameters()}, {"params": head.parameters(), "lr": 0.5}]
        optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)
        run = tp.torch.attach(plan, optimizer)
        return torch.nn.Sequential(body, head), optimizer, run, follow(run, 1, "head_lr")

    def train(model, optimizer, steps):
        used = []
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
            used.append([group["lr"] for group in optimizer.param_groups])
        return used

    model, optimizer, run, _ = start()
    used = train(model, optimizer, 8)
    state = {"run": run.state_dict(), "optimizer": optimizer.state_dict(), "model": {}}
    state["model"] = {name: x.clone() for name, x in model.state_dict().items()}
    used += train(model, optimizer, 12)
    t = np.arange(20)
    assert used == np.stack([plan["lr"](t), plan["head_lr"](t)], axis=1).tolist()

    again, optimizer, run, handle = start()
    again.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    run.load_state_dict(state["run"])
    assert train(again, optimizer, 12) == used[8:]
    handle.remove()
    train(again, optimizer, 1)
    assert optimizer.param_groups[1]["lr"] == 0.0


def test_what_cannot_be_meant_is_refused():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(()))], lr=0.1)
    run = tp.torch.attach(tp.Plan(20, lr=0.1, head_lr=head_rate()), optimizer)
    for make, place in {
        lambda: ArctanRamp(0.05, 0.05, 0.0): "slope",
        lambda: ArctanRamp(0.05, 0.05, 10, 2): "centre",
        lambda: ArctanRamp("low", 0.05, 10): "middle",
        lambda: head_rate("long"): "duration",
        lambda: follow(run, 1, "head_lr"): "group",
        lambda: follow(run, 0, "head"): "knob",
    }.items():
        with pytest.raises(PlanError) as error:
            make()
        assert error.value.place == place
