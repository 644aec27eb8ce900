"""Normalize-and-Project: norms are held, outputs stay, and the rate set is the rate that acts."""

import copy
import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss

import trainplan as tp
from trainplan.errors import PlanError
from trainplan.optim import NormProjector, normalize_and_project
from trainplan.optim.weight_norms import project, project_gain

OPTIMIZERS = {
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.05, momentum=0.9),
    "adam": lambda ps: torch.optim.Adam(ps, lr=0.01),
    "adamw fused": lambda ps: torch.optim.AdamW(ps, lr=0.01, fused=True),
    "rmsprop": lambda ps: torch.optim.RMSprop(ps, lr=0.01),
    "apollo": lambda ps: tp.optim.APOLLO(ps, lr=0.01, rank=2),
}


def treated(seed=0, dtype=torch.float32, **options):
    torch.manual_seed(seed)
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)]
    model = nn.Sequential(*layers).to(dtype)
    return model, normalize_and_project(model, torch.zeros(2, 6, dtype=dtype), **options)


def train(model, optimizer, steps, dtype=torch.float32):
    for step in steps:
        random = torch.Generator().manual_seed(step)
        x = torch.randn(16, 6, generator=random).to(dtype)
        optimizer.zero_grad()
        mse_loss(model(x), x[:, :3].abs()).backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_leaves_the_norms_as_they_were(name):
    model, projector = treated()
    optimizer = OPTIMIZERS[name](model.parameters())
    start = copy.deepcopy(model[0].weight)
    projector.attach(optimizer)
    train(model, optimizer, range(20))
    assert sorted(projector.weights) == ["0.weight", "2.weight"]
    assert all(math.isclose(r, 1, rel_tol=1e-5) for r in projector.ratios().values())
    assert not torch.allclose(model[0].weight, start, rtol=1e-2)


def test_norms_drift_without_and_between_projections():
    model, projector = treated(every=3)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    projector.attach(optimizer)
    train(model, optimizer, range(2))
    assert max(projector.ratios().values()) > 1.01
    train(model, optimizer, range(2, 3))
    assert all(math.isclose(r, 1, rel_tol=1e-5) for r in projector.ratios().values())
    projector.detach()
    train(model, optimizer, range(3, 30))
    assert min(projector.ratios().values()) > 1.01


def test_projection_does_not_change_what_the_network_computes():
    model, projector = treated(dtype=torch.float64, eps=0.0)
    x = torch.randn(5, 6, dtype=torch.float64)
    with torch.no_grad():
        before = model(x)
        model[0].weight.mul_(3)
        model[2].weight.mul_(0.2)
        torch.testing.assert_close(model(x), before)
        projector.project()
        torch.testing.assert_close(model(x), before)
    assert all(math.isclose(r, 1) for r in projector.ratios().values())


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.floats(1e-3, 1e3),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
def test_project_keeps_the_direction_and_sets_the_norm(rows, columns, norm, dtype):
    torch.manual_seed(rows * columns)
    w = torch.randn(rows, columns).to(dtype)
    before = w.double()
    project([w], [norm])
    rtol = 3 * torch.finfo(dtype).eps
    assert math.isclose(w.double().norm(), norm, rel_tol=max(rtol, 1e-6), abs_tol=1e-4)
    assert torch.cosine_similarity(w.double().flatten(), before.flatten(), 0) > 0.999


def test_what_has_no_direction_is_left_alone():
    zero, broken = torch.zeros(2, 2), torch.tensor([[math.inf, 1.0]])
    project([zero, broken], [1.0, 1.0])
    assert not zero.any()
    assert broken.tolist() == [[math.inf, 1.0]]
    gain = torch.zeros(3)
    project_gain(gain)
    assert not gain.any()


def test_gains_and_offsets_keep_their_joint_norm():
    model, projector = treated(scale="project")
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    projector.attach(optimizer)
    train(model, optimizer, range(20))
    norm = model[0].output_norm
    joint = torch.cat([norm.weight, norm.bias]).detach().norm()
    assert math.isclose(joint, math.sqrt(8), rel_tol=1e-5)
    assert norm.bias.abs().max() > 0.01
    assert len(projector.norms) == 2


def test_joint_projection_of_gains_scales_the_output_of_relu_only():
    gain, offset = torch.rand(4) + 0.5, torch.randn(4)
    x = torch.randn(7, 4)
    before = torch.relu(x * gain + offset)
    project_gain(gain, offset)
    after = torch.relu(x * gain + offset)
    torch.testing.assert_close(after / after.norm(), before / before.norm())


def test_decay_pulls_gains_to_one_and_offsets_to_zero():
    model, projector = treated(scale="decay", decay=0.1, every=2)
    norm = model[0].output_norm
    with torch.no_grad():
        norm.weight.fill_(3.0)
        norm.bias.fill_(-1.0)
    projector.step()
    assert norm.weight[0] == 3
    projector.step()
    torch.testing.assert_close(norm.weight.data, torch.full((8,), 1 + 2 * 0.81))
    torch.testing.assert_close(norm.bias.data, torch.full((8,), -0.81))


def test_a_plan_drives_the_effective_rate_apart_from_the_others():
    model, projector = treated()
    optimizer = torch.optim.AdamW(projector.param_groups(effective_lr=1.0), lr=1.0)
    projector.attach(optimizer)
    effective, lr = tp.schedules.linear(0.1), tp.schedules.constant(0.01)
    tp.torch.attach(tp.Plan(horizon=10, lr=lr, effective_lr=effective), optimizer)
    used = []
    optimizer.register_step_post_hook(
        lambda *_: used.append([group["lr"] for group in optimizer.param_groups])
    )
    train(model, optimizer, range(4))
    assert [rates[1] for rates in used] == [0.01] * 4
    assert [rates[0] for rates in used] == pytest.approx([0.1, 0.09, 0.08, 0.07])
    rates = tp.optim.effective_lr(model, optimizer, initial=projector.initial)
    assert rates["0.weight"] == pytest.approx(0.07, rel=1e-4)
    assert optimizer.param_groups[0]["weight_decay"] == 0


def test_the_first_step_of_a_plan_has_the_effective_rate_too():
    model, projector = treated()
    optimizer = torch.optim.SGD(projector.param_groups(effective_lr=1.0), lr=1.0)
    projector.attach(optimizer)
    plan = tp.Plan(horizon=10, lr=tp.schedules.constant(0.5), effective_lr=tp.schedules.constant(0))
    tp.torch.attach(plan, optimizer)
    before, head = copy.deepcopy(model[0].weight), copy.deepcopy(model[4].weight)
    train(model, optimizer, [0])
    torch.testing.assert_close(model[0].weight, before)
    assert not torch.equal(model[4].weight, head)


@pytest.mark.parametrize("every", [1, 3])
def test_resuming_gives_the_same_bits(every):
    def build():
        model, projector = treated(every=every, scale="project")
        groups = projector.param_groups(effective_lr=0.01)
        optimizer = torch.optim.AdamW(groups, lr=0.02)
        projector.attach(optimizer)
        knobs = {"lr": tp.schedules.cosine(0.02), "effective_lr": tp.schedules.linear(0.03)}
        return model, projector, optimizer, tp.torch.attach(tp.Plan(horizon=8, **knobs), optimizer)

    model, projector, optimizer, run = build()
    train(model, optimizer, range(4))
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), run.state_dict()], file)
    train(model, optimizer, range(4, 8))
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again, other, optimizer, run = build()
    with torch.no_grad():
        again[0].weight.mul_(7)  # a process of its own need not begin with the same weights
    other._set(other.norms_now())
    for thing, state in zip((again, optimizer, run), saved, strict=True):
        thing.load_state_dict(state)
    train(again, optimizer, range(4, 8))
    assert other.state_dict() == projector.state_dict()
    for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_pretrained_run_may_begin_late_and_others_may_not():
    model, projector = treated()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    train(model, optimizer, range(3))
    with pytest.raises(PlanError, match="has made steps"):
        projector.attach(optimizer)
    state = optimizer.state_dict()
    fresh = torch.optim.Adam(model.parameters(), 0.01)
    projector.attach(fresh)
    with pytest.raises(PlanError, match="no initial norms"):
        fresh.load_state_dict(state)
    projector.detach()
    late = NormProjector(model, ["0.weight"], pretrained=True)
    late.attach(fresh)
    with torch.no_grad():
        model[0].weight.mul_(2)
    fresh.load_state_dict(state)
    assert late.ratios() == {"0.weight": 1.0}
    with pytest.raises(PlanError, match="another NormProjector"):
        projector.attach(fresh)


def test_a_fused_step_that_overflowed_is_not_counted():
    model, projector = treated(every=2)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, fused=True)
    projector.attach(optimizer)
    optimizer.found_inf, optimizer.grad_scale = torch.ones(()), torch.ones(())
    train(model, optimizer, [0])
    assert projector.steps == 0
    del optimizer.found_inf, optimizer.grad_scale
    train(model, optimizer, [1])
    assert projector.steps == 1


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"weights": ["0.wieght"]}, "weights"),
        ({"weights": []}, "weights"),
        ({"weights": lambda name, p: False}, "weights"),
        ({"weights": ["4.bias"]}, "weights"),
        ({"weights": ["0.weight"], "every": 0}, "every"),
        ({"weights": ["0.weight"], "scale": "both"}, "scale"),
        ({"weights": ["0.weight"], "decay": 2}, "decay"),
        ({"weights": ["0.weight"], "norms": ["1"]}, "norms"),
    ],
)
def test_bad_input_names_its_place(options, place):
    model, _ = treated()
    nn.init.zeros_(model[4].bias)
    with pytest.raises(PlanError) as caught:
        NormProjector(model, **options)
    assert caught.value.place == place


def test_a_state_of_other_weights_is_refused():
    model, projector = treated()
    with pytest.raises(PlanError, match="other weights"):
        NormProjector(model, ["0.weight"]).load_state_dict(projector.state_dict())
    with pytest.raises(PlanError, match="not the state"):
        projector.load_state_dict({})
