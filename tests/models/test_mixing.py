"""Max-W mixing gives the strongest operation a coefficient of one and no gradient of its own."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from trainplan import PlanError  # noqa: E402
from trainplan.models import MixedOperation, max_w_coefficients, mix  # noqa: E402


def test_the_strongest_operation_has_the_coefficient_one():
    weights = torch.randn(7).softmax(0)
    coefficients = max_w_coefficients(weights)
    assert coefficients.max().item() == pytest.approx(1)
    assert coefficients.argmax() == weights.argmax()
    assert torch.allclose(coefficients - coefficients.min(), weights - weights.min())


def test_the_strongest_operation_gets_no_gradient_through_its_own_weight():
    weights = torch.tensor([0.2, 0.5, 0.3], requires_grad=True)
    own, *others = torch.eye(3)[[1, 0, 2]]
    (gradient,) = torch.autograd.grad(max_w_coefficients(weights) @ own, weights)
    assert gradient.tolist() == [0, 0, 0]
    for other in others:
        (gradient,) = torch.autograd.grad(max_w_coefficients(weights) @ other, weights)
        assert gradient[1] == -1  # the others push it down


def test_plain_mixing_is_the_weighted_sum():
    outputs = [torch.randn(2, 3) for _ in range(3)]
    weights = torch.tensor([0.1, 0.2, 0.7])
    expected = sum(w * o for w, o in zip(weights, outputs, strict=True))
    assert torch.allclose(mix(outputs, weights, "scalar"), expected)
    assert torch.allclose(mix(torch.stack(outputs), weights, "scalar"), expected)


@pytest.mark.parametrize("mode", ["scalar", "max_w"])
def test_a_mixed_operation_learns_which_operation_is_right(mode):
    torch.manual_seed(0)
    x = torch.linspace(-2, 2, 50)[:, None]
    mixed = MixedOperation([torch.nn.Tanh(), torch.nn.ReLU(), torch.nn.Identity()], mode)
    head = torch.nn.Linear(1, 1)
    optimizer = torch.optim.Adam([*mixed.parameters(), *head.parameters()], lr=0.05)
    for _ in range(400):
        loss = ((head(mixed(x)) - x.relu()) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert mixed.weights.argmax() == 1
    assert loss.item() < 0.02


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (lambda: mix([torch.ones(1)], torch.ones(1), "max"), "mode"),
        (lambda: mix([torch.ones(1)], torch.ones(2)), "weights"),
        (lambda: MixedOperation([]), "operations"),
        (lambda: MixedOperation([torch.nn.Identity()], "max"), "mode"),
    ],
)
def test_bad_input_is_named(call, place):
    with pytest.raises(PlanError) as caught:
        call()
    assert caught.value.place == place
