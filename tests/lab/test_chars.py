import numpy as np
import pytest
import torch

from trainplan import Plan, PlanError, schedules
from trainplan.lab.chars import CONTEXT, CharModel
from trainplan.lab.domains import CharText, char_text


@pytest.fixture(scope="module")
def text() -> CharText:
    random = np.random.default_rng(0)
    parts = {name: random.integers(11, size=5000) for name in ("a", "b")}
    return CharText("abcdefghijk", parts, {k: v[:900] for k, v in parts.items()}, "made up")


def model(text: CharText, seed: int = 0) -> CharModel:
    return CharModel(text, seed, hidden=24, embedding=4, batch=8)


def test_its_gradients_are_those_of_automatic_differentiation(text):
    ours = model(text)
    inputs, targets = ours._draw(0, 1, {"a": 0.5, "b": 0.5})
    with torch.no_grad():
        ours._backward(inputs[0], targets[0])
    found = ours.weights.grad.clone()

    leaf = ours.weights.detach().clone().requires_grad_()
    embedding, w1, b1, w2, b2 = (
        part.view(shape)
        for part, shape in zip(
            torch.split(leaf, [int(np.prod(s)) for s in ours._shapes]), ours._shapes, strict=True
        )
    )
    hidden = torch.tanh(embedding[inputs[0].view(8, CONTEXT)].flatten(1) @ w1 + b1)
    labels = targets[0] - torch.arange(8) * 11
    loss = torch.nn.functional.cross_entropy(hidden @ w2 + b2, labels)
    loss.backward()
    torch.testing.assert_close(found, leaf.grad, rtol=1e-4, atol=1e-7)
    assert ours._backward.sizes()[0] == pytest.approx(loss.item(), rel=1e-5)
    assert ours._backward.sizes()[1] == pytest.approx(leaf.grad.norm().item(), rel=1e-4)


def test_a_plan_and_its_array_of_rates_train_the_same_model(text):
    plan = Plan(horizon=40, lr=schedules.cosine(0.01, warmup=5))
    by_plan, by_rates = model(text), model(text)
    by_plan.train(plan, "a")
    by_rates.train(plan["lr"](np.arange(40.0)), {"a": 1.0})
    assert torch.equal(by_plan.weights, by_rates.weights)
    assert by_plan.step == by_rates.step == 40


@pytest.mark.parametrize("cut", [1, 37, 499, 500, 510])
def test_going_back_to_a_snapshot_changes_nothing(text, cut):
    rates = np.linspace(0.01, 0.001, 520)
    straight, branched = model(text), model(text)
    straight.train(rates, {"a": 0.7, "b": 0.3})
    branched.train(rates[:cut], {"a": 0.7, "b": 0.3})
    trunk = branched.snapshot()
    branched.train([0.05] * 30, "b")
    branched.restore(trunk)
    branched.train(rates[cut:], {"a": 0.7, "b": 0.3})
    assert torch.equal(straight.weights, branched.weights)


def test_batches_depend_on_the_seed_and_the_step_alone(text):
    first, other = model(text), model(text, seed=1)
    assert torch.equal(
        first._draw(30, 40, {"a": 1.0})[0], model(text)._draw(0, 40, {"a": 1.0})[0][30:]
    )
    assert not torch.equal(first._draw(0, 40, {"a": 1.0})[0], other._draw(0, 40, {"a": 1.0})[0])


def test_a_share_may_be_a_function_of_the_step(text):
    switch = {"a": lambda t: (t < 10) * 1.0, "b": lambda t: (t >= 10) * 1.0}
    mixed = model(text)._draw(0, 20, switch)[0]
    assert torch.equal(mixed[:10], model(text)._draw(0, 20, {"a": 1.0})[0][:10])
    assert torch.equal(mixed[10:], model(text)._draw(0, 20, {"b": 1.0})[0][10:])


def test_what_is_recorded_does_not_change_training(text):
    watched, alone = model(text), model(text)
    record = watched.train([0.01] * 20, "a", record=True)
    alone.train([0.01] * 20, "a")
    assert torch.equal(watched.weights, alone.weights)
    assert record is not None
    assert record.losses.shape == record.grad_l2.shape == record.grad_l1.shape == (20,)
    assert record.losses[0] == pytest.approx(np.log(11), abs=0.7)


def test_a_diverged_model_has_an_infinite_loss(text):
    broken = model(text)
    broken.train([1e30] * 5, "a")
    assert broken.loss("a") == float("inf")


def test_shares_must_be_shares_of_known_domains(text):
    with pytest.raises(PlanError, match="sum to one"):
        model(text).train([0.01], {"a": 0.5, "b": 0.6})
    with pytest.raises(PlanError, match="no such domain"):
        model(text).train([0.01], "c")
    with pytest.raises(PlanError, match="no such domain"):
        char_text(("prosa",))


def test_domains_share_an_alphabet_of_frequent_characters():
    text = char_text(("prose", "code"))
    for part in (text.train, text.validation):
        for codes in part.values():
            assert codes.min() >= 0
            assert codes.max() < len(text.alphabet)
    assert all(n > 200_000 for n in map(len, text.train.values()))
    assert all(n > 20_000 for n in map(len, text.validation.values()))
