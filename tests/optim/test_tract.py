"""TrAct: gradients of the first layer's weight, and nothing else, change."""

import copy
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import trainplan as tp
from trainplan.errors import PlanError
from trainplan.optim.tract import drive_lambda, precondition, tract_layer

LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (9, 6)),
    "linear, few rows": (lambda: nn.Linear(12, 4), (5, 12)),
    "linear, tokens": (lambda: nn.Linear(6, 4, bias=False), (2, 7, 6)),
    "conv1d": (lambda: nn.Conv1d(2, 4, 3, stride=2, padding="valid", dilation=2), (3, 2, 19)),
    "conv1d, one example": (lambda: nn.Conv1d(2, 4, 3), (2, 19)),
    "conv2d": (
        lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), groups=2),
        (2, 4, 7, 8),
    ),
    "conv2d, same": (
        lambda: nn.Conv2d(2, 4, (4, 3), padding="same", dilation=(1, 2)),
        (2, 2, 7, 8),
    ),
    "conv2d, circular": (
        lambda: nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"),
        (2, 2, 7, 8),
    ),
    "conv2d, reflect": (
        lambda: nn.Conv2d(2, 4, 3, padding=(2, 1), padding_mode="reflect"),
        (2, 2, 7, 8),
    ),
    "conv3d": (
        lambda: nn.Conv3d(2, 4, 2, stride=2, padding=1, groups=2, dilation=2),
        (2, 2, 5, 6, 7),
    ),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def made(name, dtype=torch.float64):
    torch.manual_seed(0)
    build, shape = LAYERS[name]
    return build().to(dtype), torch.randn(shape, dtype=dtype, requires_grad=True)


def loss(output):
    scale = torch.linspace(-1, 2, output.numel(), dtype=output.dtype)
    return (output.square() * scale.view_as(output)).sum()


def gradients(layer, x):
    x.grad = None
    layer.zero_grad()
    output = layer(x)
    loss(output).backward()
    return output.detach(), x.grad, getattr(layer.bias, "grad", None), layer.weight.grad.clone()


def rows_by_hand(layer, x):
    """Patches seen by each group, from the gradient of every output to the weight of one filter."""
    if isinstance(layer, nn.Linear):
        return x.detach().reshape(1, -1, x.shape[-1])
    found = []
    m = layer.out_channels // layer.groups
    for group in range(layer.groups):
        output = layer(x).movedim(-1 - len(layer.kernel_size), 0)[group * m].flatten()
        rows = [torch.autograd.grad(o, layer.weight, retain_graph=True)[0] for o in output]
        found.append(torch.stack([row[group * m].flatten() for row in rows]))
    return torch.stack(found)


@every_layer
def test_the_weights_gradient_is_preconditioned_and_nothing_else_changes(name):
    layer, x = made(name)
    rows = rows_by_hand(layer, x)
    plain = gradients(layer, x)
    new = tract_layer(layer, 0.3)
    found = gradients(new, x)
    for mine, other in zip(found[:3], plain[:3], strict=True):
        assert other is None or torch.equal(mine, other)
    eye = torch.eye(rows.shape[2], dtype=x.dtype)
    inverse = torch.linalg.inv(rows.mT @ rows / rows.shape[1] + 0.3 * eye)
    expected = plain[3].reshape(len(rows), -1, rows.shape[2]) @ inverse
    torch.testing.assert_close(found[3], expected.view_as(found[3]), atol=1e-9, rtol=1e-9)
    new.enabled = False
    assert torch.equal(gradients(new, x)[3], plain[3])


@every_layer
def test_gradcheck_of_input_and_bias(name):
    layer, x = made(name)
    layer = tract_layer(layer)
    inputs = [x] if layer.bias is None else [x, layer.bias]
    assert torch.autograd.gradcheck(lambda *_: layer(x), inputs)


@settings(max_examples=25, deadline=None)
@given(b=st.integers(1, 9), n=st.integers(1, 9), strength=st.floats(0.01, 10.0))
def test_the_step_minimizes_the_ridge_objective(b, n, strength):
    torch.manual_seed(b * 10 + n)
    x, g = torch.randn(b, n).double(), torch.randn(b, 3).double()
    step = (-precondition(g.T @ x, x, strength)).requires_grad_()
    objective = (step @ x.T + b * g.T).square().sum() + strength * b * step.square().sum()
    (slope,) = torch.autograd.grad(objective, step)
    assert slope.abs().max() < 1e-9 * b * (1 + x.abs().max() ** 2) * (1 + step.abs().max()) * 100


def test_a_small_lambda_moves_activations_along_their_gradient():
    torch.manual_seed(0)
    contrast = torch.linspace(0.2, 3, 6).double()[:, None]
    x, g = torch.randn(6, 20).double() * contrast + 2, torch.randn(6, 4).double()
    vanilla = g.T @ x

    def cosine(step):
        return torch.cosine_similarity((x @ step.T).flatten(), g.flatten(), 0)

    assert cosine(precondition(vanilla, x, 1e-4)) > 0.999 > 0.9 > cosine(vanilla)


def test_micro_batches_are_preconditioned_one_by_one():
    layer, x = made("linear")
    layer = tract_layer(layer)
    halves = [half.detach().requires_grad_() for half in (x[:4], x[4:])]
    alone = [gradients(layer, half)[3] for half in halves]
    layer.zero_grad()
    for half in halves:
        loss(layer(half)).backward()
    torch.testing.assert_close(layer.weight.grad, sum(alone))


def test_parameters_names_and_hooks_are_those_of_the_plain_layer():
    plain = nn.Conv2d(1, 4, 3)
    seen = []
    plain.register_forward_hook(lambda *_: seen.append(1))
    new = tract_layer(plain)
    assert new.weight is plain.weight
    assert new.bias is plain.bias
    new(torch.zeros(1, 1, 5, 5))
    assert seen == [1]
    other = nn.Conv2d(1, 4, 3)
    other.load_state_dict(new.state_dict())
    new.load_state_dict(nn.Conv2d(1, 4, 3).state_dict())
    assert torch.equal(other.state_dict()["weight"], other.weight)
    assert not torch.equal(other.weight, new.weight)
    assert torch.equal(plain.weight, new.weight)
    moved = copy.deepcopy(new).to(torch.bfloat16)
    moved.lambda_ = 0.3
    assert (moved.lambda_, new.lambda_) == (0.3, 0.1)


@pytest.mark.parametrize(("name", "whole"), list(product(["linear", "conv2d"], [True, False])))
def test_half_precision_keeps_the_inverse_in_float32(name, whole):
    layer, x = made(name, torch.float32)
    expected = gradients(tract_layer(layer), x)[3]
    layer = tract_layer(layer.bfloat16() if whole else layer)
    x = x.detach().to(torch.bfloat16 if whole else torch.float32).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not whole):
        found = gradients(layer, x)[3]
    assert found.dtype == layer.weight.dtype
    assert (found.float() - expected).norm() < 0.05 * expected.norm()


def test_an_overflow_is_left_to_the_gradient_scaler():
    layer = tract_layer(nn.Linear(3, 2))
    layer(torch.full((4, 3), float("inf"))).sum().backward()
    assert not layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("name", ["linear", "conv2d"])
def test_a_compiled_layer_follows_lambda_without_a_new_compilation(name):
    layer, x = made(name, torch.float32)
    layer = tract_layer(layer)
    from torch._dynamo.testing import CompileCounterWithBackend

    count = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, backend=count, fullgraph=True)
    frames = []
    for strength in (0.1, 0.1, 0.5, 2.0):  # the second call may find gradients where none were
        layer.lambda_ = strength
        expected = gradients(layer, x)[3]
        layer.zero_grad()
        loss(compiled(x)).backward()
        torch.testing.assert_close(layer.weight.grad, expected)
        frames.append(count.frame_count)
    assert frames[3] == frames[1] <= 2


def test_with_sync_the_moment_is_that_of_all_ranks(monkeypatch):
    dist = torch.distributed
    torch.manual_seed(0)
    mine, others, grad = torch.randn(4, 3), torch.randn(6, 3), torch.randn(2, 3)

    def all_reduce(tensor):
        tensor += others.mT @ others if tensor.ndim else len(others)

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    whole = torch.cat([mine, others])
    found = precondition(grad, mine, 0.1, sync=True)
    torch.testing.assert_close(found, precondition(grad, whole, 0.1))


def train(steps, state=None):
    torch.manual_seed(0)
    layer = tract_layer(nn.Linear(3, 2), 0.5)
    optimizer = torch.optim.Adam(layer.parameters())
    drive_lambda(layer, optimizer)
    plan = tp.Plan(horizon=8, lr=0.1, tract_lambda=tp.schedules.linear(0.05, 0.2))
    run = tp.torch.attach(plan, optimizer)
    first = 0
    if state is not None:
        layer.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        run.load_state_dict(state["run"])
        first = run.clock.steps
    used = []
    for t in range(first, steps):
        random = torch.Generator().manual_seed(t)
        used.append(layer.lambda_)
        optimizer.zero_grad()
        layer(torch.randn(7, 3, generator=random)).square().sum().backward()
        optimizer.step()
    kept = {"model": layer, "optimizer": optimizer, "run": run}
    return (
        layer.weight.detach().clone(),
        used,
        {k: copy.deepcopy(v.state_dict()) for k, v in kept.items()},
    )


def test_a_plan_drives_lambda_and_resuming_changes_nothing():
    weight, used, _ = train(8)
    assert used[0] == 0.5
    assert used[1:] == pytest.approx([0.05 + 0.15 * t / 8 for t in range(7)])
    for stop in (0, 1, 5):
        again, rest, _ = train(8, train(stop)[2])
        assert rest == used[stop:]
        assert torch.equal(again, weight)


def test_a_vision_transformer_in_the_trainer_resumes(tmp_path):
    pytest.importorskip("transformers")
    import with_tract

    whole = with_tract.fit(tmp_path)
    again = with_tract.fit(tmp_path / "again", resume=tmp_path / "checkpoint-4")
    mine, other = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(mine[name], other[name]) for name in mine)
    assert whole.state.global_step == 8
    assert whole.model.embeddings.projection.lambda_ == pytest.approx(0.05 + 0.15 * 7 / 8)


@pytest.mark.parametrize("value", [0, -0.1, float("nan"), float("inf"), True, "0.1"])
def test_lambda_must_be_positive(value):
    with pytest.raises(PlanError, match=r"lambda_.*positive.*enabled"):
        tract_layer(nn.Linear(2, 2), value)
    layer = tract_layer(nn.Linear(2, 2))
    with pytest.raises(PlanError, match="lambda_"):
        layer.lambda_ = value


class Scaled(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        (Scaled(2, 2), "Give one of Linear"),
        (nn.Embedding(4, 2), "rescale each token"),
        (nn.ConvTranspose2d(1, 1, 2), "ConvTranspose2d"),
        (tract_layer(nn.Linear(2, 2)), "already"),
    ],
)
def test_other_layers_are_refused(layer, match):
    with pytest.raises(PlanError, match=match):
        tract_layer(layer)


def test_a_plain_layer_has_no_lambda_to_drive():
    layer = nn.Linear(2, 2)
    with pytest.raises(PlanError, match="tract_layer"):
        drive_lambda(layer, torch.optim.SGD(layer.parameters()))
