"""Estimates of other orders: exact where they can be, refused where they cannot be trusted."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from laws.order_tasks import (  # noqa: E402
    Point,
    Task,
    classify,
    examples,
    flat,
    network,
    quadratic_loss,
    quadratics,
    weights,
)
from trainplan.errors import PlanError  # noqa: E402
from trainplan.laws.order import OrderEstimator, OrderRecorder, order_cost, train_in_order  # noqa: E402

ASYMMETRIC = [2, 0, 4, 3, 1]
OPTIMIZERS = {
    "Adam": functools.partial(torch.optim.Adam, lr=0.05),
    "Adam, decay in the gradient": functools.partial(torch.optim.Adam, lr=0.05, weight_decay=0.1),
    "AdamW": functools.partial(torch.optim.AdamW, lr=0.05, weight_decay=0.1),
    "SGD": functools.partial(torch.optim.SGD, lr=0.1),
    "SGD, momentum": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.01),
    "RMSprop": functools.partial(torch.optim.RMSprop, lr=0.02),
    "NAdam": functools.partial(torch.optim.NAdam, lr=0.02),
}
if hasattr(torch.optim, "Adafactor"):  # since torch 2.5
    OPTIMIZERS["Adafactor"] = functools.partial(torch.optim.Adafactor, lr=0.02)


def point(optimizer="Adam", dtype=torch.float64):
    def build():
        model = Point(dtype)
        return model, OPTIMIZERS[optimizer](model.parameters())

    return build


def net(**options):
    def build():
        model = network()
        return model, torch.optim.Adam(model.parameters(), **({"lr": 0.02} | options))

    return build


def error(task, order, **options):
    estimate = task.estimator(**options).estimate(order)
    truth = task.truth(order)
    return float((flat(estimate.parameters) - truth).norm() / truth.norm())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_quadratic_losses_are_estimated_exactly_under_any_optimizer(optimizer, tmp_path):
    task = Task(tmp_path, point(optimizer), quadratic_loss, quadratics(5))
    assert error(task, ASYMMETRIC) < 1e-10
    assert error(task, ASYMMETRIC, terms=0) > 1e-4
    assert error(task, ASYMMETRIC, terms=2) < 1e-10


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_estimates_have_the_precision_of_the_model(dtype, least, tmp_path):
    task = Task(tmp_path, point(dtype=dtype), quadratic_loss, quadratics(5, dtype))
    estimate = task.estimator().estimate(ASYMMETRIC)
    assert all(v.dtype == dtype for v in estimate.parameters.values())
    assert error(task, ASYMMETRIC) < least


@settings(max_examples=10)
@given(order=st.permutations(range(6)))
def test_every_order_of_quadratic_batches_is_estimated_exactly(order, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    task = Task(folder, point(), quadratic_loss, quadratics(6))
    assert error(task, list(order)) < 1e-10


def test_a_schedule_belongs_to_the_step_and_groups_keep_their_own_rates(tmp_path):
    def build():
        model = Point()
        groups = [{"params": [model.b], "lr": 0.2}, {"params": [model.a]}]
        return model, torch.optim.Adam(groups, lr=0.05)

    class Falling(Task):
        def train(self, model, optimizer, order):
            scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.6)
            train_in_order(model, optimizer, self.loss, self.batches, order, scheduler=scheduler)

    task = Falling(tmp_path, build, quadratic_loss, quadratics(5))
    estimate = task.estimator().estimate(ASYMMETRIC).parameters
    assert list(estimate) == ["b", "a"]
    together = torch.cat([estimate["a"], estimate["b"]])
    assert torch.allclose(together, task.truth(ASYMMETRIC), rtol=0, atol=1e-10)


def test_a_run_may_begin_with_a_used_optimizer(tmp_path):
    def build():
        model, optimizer = point()()
        for _ in range(3):
            optimizer.zero_grad()
            model().square().sum().backward()
            optimizer.step()
        return model, optimizer

    task = Task(tmp_path, build, quadratic_loss, quadratics(5))
    assert error(task, ASYMMETRIC) < 1e-10


def test_several_passes_permute_each(tmp_path):
    task = Task(tmp_path, point(), quadratic_loss, quadratics(4), passes=2)
    order = [1, 0, 3, 2, 2, 3, 0, 1]
    assert error(task, order) < 1e-10
    once = task.estimator().estimate([1, 0, 3, 2]).parameters
    twice = task.estimator().estimate([1, 0, 3, 2] * 2).parameters
    assert torch.equal(flat(once), flat(twice))


def test_frozen_moments_are_not_exact_and_each_term_of_recursed_ones_helps(tmp_path):
    task = Task(tmp_path, net(), classify, examples(5))
    errors = [error(task, ASYMMETRIC, terms=terms) for terms in (0, 1, 2)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert error(task, ASYMMETRIC, moments="frozen") > 2 * errors[1]


@pytest.mark.parametrize("optimizer", ["SGD", "Adam, decay in the gradient", "AdamW"])
def test_frozen_moments_predict_the_first_change_of_order_well(optimizer, tmp_path):
    """After one step all moments are the run's own; only the expansion of the update is left."""
    task = Task(tmp_path, point(optimizer), quadratic_loss, quadratics(2))
    found = task.estimator(moments="frozen").estimate([1, 0], trajectory=True).trajectory
    model, optimizer = task.build()
    points = []
    optimizer.register_step_post_hook(lambda *_: points.append(weights(model)))
    task.train(model, optimizer, [1, 0])
    assert torch.allclose(found[1], points[0], rtol=0, atol=1e-12)


def test_frozen_sgd_without_momentum_is_exact_on_quadratics(tmp_path):
    task = Task(tmp_path, point("SGD"), quadratic_loss, quadratics(5))
    assert error(task, ASYMMETRIC, moments="frozen") < 1e-10


EVERY = [
    {},
    {"terms": 0},
    {"terms": 2},
    {"moments": "frozen"},
    {"moments": "frozen", "terms": 2},
    {"curvature": "secant"},
    {"curvature": "secant", "terms": 2},
    {"curvature": "secant", "moments": "frozen"},
]


@pytest.mark.parametrize("options", EVERY, ids=str)
def test_the_reference_order_gives_the_recorded_weights_to_the_bit(options, tmp_path):
    task = Task(tmp_path, net(), classify, examples(5))
    estimate = task.estimator(**options).estimate(task.reference)
    assert torch.equal(flat(estimate.parameters), weights(task.model))
    assert estimate.drift == [0.0] * 6


def test_a_shared_beginning_is_the_recorded_one_with_or_without_kept_moments(tmp_path):
    with_moments = Task(tmp_path / "a", net(), classify, examples(5))
    without = Task(tmp_path / "b", net(), classify, examples(5), keep_moments=False)
    order = [0, 1, 2, 4, 3]
    found = [t.estimator().estimate(order, trajectory=True) for t in (with_moments, without)]
    assert torch.equal(found[0].trajectory[:4], found[1].trajectory[:4])
    assert torch.allclose(found[0].trajectory, found[1].trajectory, rtol=1e-12, atol=1e-14)
    assert found[0].drift[:4] == [0.0] * 4
    assert found[0].drift[4] > 0


def test_gauss_newton_is_the_hessian_where_the_outputs_are_linear(tmp_path):
    def build():
        torch.manual_seed(0)
        model = nn.Linear(3, 2).double()
        return model, torch.optim.Adam(model.parameters(), lr=0.05)

    task = Task(tmp_path, build, classify, examples(5))
    split = (lambda model, batch: model(batch[0]), lambda z, batch: classify(lambda _: z, batch))
    exact = task.estimator().estimate(ASYMMETRIC).parameters
    fisher = task.estimator(curvature="fisher", split=split).estimate(ASYMMETRIC).parameters
    assert torch.allclose(flat(fisher), flat(exact), rtol=1e-10)
    assert not torch.allclose(
        flat(fisher), flat(task.estimator(terms=0).estimate(ASYMMETRIC).parameters)
    )


def test_clipping_is_repeated(tmp_path):
    task = Task(tmp_path, point(), quadratic_loss, quadratics(5), max_norm=0.5)
    assert error(task, ASYMMETRIC) < 1e-9
    with pytest.raises(PlanError, match="repeating a recorded step"):
        Task(tmp_path / "sgd", point("SGD"), quadratic_loss, quadratics(5), max_norm=0.5).estimator(
            max_norm=None
        )


def test_dropout_must_belong_to_the_batch(tmp_path):
    def build():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2)).double()
        return model, torch.optim.SGD(model.parameters(), lr=0.01)

    task = Task(tmp_path, build, classify, examples(5), noise_seed=3)
    assert error(task, ASYMMETRIC) < error(task, ASYMMETRIC, terms=0) / 2
    with pytest.raises(PlanError, match="batch_noise"):
        task.estimator(noise_seed=None)
    with pytest.raises(PlanError, match="repeating a recorded step"):
        task.estimator(noise_seed=4)


def test_an_estimate_that_runs_away_is_stopped_and_says_where(tmp_path):
    """The true path is bounded, but a Taylor expansion of exp is not believed far away."""

    def build():
        model = Point()
        return model, torch.optim.SGD(model.parameters(), lr=0.3)

    def steep(model, batch):
        return (model() * batch).cosh().sum()

    batches = [torch.full((6,), size, dtype=torch.float64) for size in (0.1, 3.0, 0.2, 3.0, 2.0)]
    task = Task(tmp_path, build, steep, batches)
    estimate = task.estimator(verify=False).estimate([1, 3, 4, 0, 2])
    assert estimate.stopped_at is not None
    assert estimate.drift[-1] > 10
    assert len(estimate.drift) == estimate.stopped_at + 1
    assert flat(estimate.parameters).isnan().all()
    assert task.estimator(verify=False).score([1, 3, 4, 0, 2], lambda model: 1.0) != 1.0


@pytest.mark.parametrize("options", [{}, {"moments": "frozen"}, {"terms": 2}], ids=str)
def test_an_interrupted_estimate_goes_on_bit_by_bit(options, tmp_path):
    task = Task(tmp_path / "run", net(), classify, examples(6))
    order = [3, 1, 0, 5, 4, 2]
    whole = task.estimator(**options).estimate(order, trajectory=True)
    file = tmp_path / "estimate.pt"
    calls = 0

    def interrupted(model, batch):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return classify(model, batch)

    model, optimizer = task.build()
    arguments = (task.folder, model, optimizer, interrupted, task.batches)
    broken = OrderEstimator(*arguments, verify=False, show=False, **options)
    with pytest.raises(KeyboardInterrupt):
        broken.estimate(order, trajectory=True, checkpoint=file)
    saved = torch.load(file, weights_only=True)
    assert 0 < saved["t"] < 6
    resumed = task.estimator(**options).estimate(order, trajectory=True, checkpoint=file)
    assert torch.equal(resumed.trajectory, whole.trajectory)
    assert resumed.drift == whole.drift
    again = task.estimator(**options).estimate(order, trajectory=True, checkpoint=file)
    assert torch.equal(again.trajectory, whole.trajectory)
    with pytest.raises(PlanError, match="another estimate"):
        task.estimator(**options).estimate(order[::-1], trajectory=True, checkpoint=file)


def test_the_model_and_the_optimizer_are_left_alone(tmp_path):
    task = Task(tmp_path, net(), classify, examples(5))
    model, optimizer = task.build()
    before = weights(model).clone()
    estimator = OrderEstimator(tmp_path, model, optimizer, classify, task.batches, show=False)
    score = estimator.score(ASYMMETRIC, lambda m: float(classify(m, task.batches[0]).detach()))
    assert score > 0
    assert torch.equal(weights(model), before)
    assert not optimizer.state


def test_an_order_uses_each_batch_once(tmp_path):
    task = Task(tmp_path, point(), quadratic_loss, quadratics(5))
    estimator = task.estimator()
    for wrong in ([0, 1, 2, 3], [0, 1, 2, 3, 3], [1, 2, 3, 4, 5], [-1, 0, 1, 2, 3]):
        with pytest.raises(PlanError, match="order"):
            estimator.estimate(wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curvature": "hessian"}, "curvature"),
        ({"moments": "froze"}, "frozen"),
        ({"terms": 3}, "terms"),
        ({"terms": 2, "curvature": "fisher", "split": (None, None)}, "no second term"),
        ({"curvature": "fisher"}, "split"),
        ({"projection": 3}, "only a table is projected"),
        ({"moments": "frozen", "max_norm": 1.0}, "max_norm"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message, tmp_path):
    task = Task(tmp_path, point(), quadratic_loss, quadratics(3))
    with pytest.raises(PlanError, match=message):
        task.estimator(**options)


def test_frozen_moments_need_an_optimizer_they_know_and_moments(tmp_path):
    task = Task(tmp_path / "a", point("RMSprop"), quadratic_loss, quadratics(3))
    with pytest.raises(PlanError, match="RMSprop"):
        task.estimator(moments="frozen")
    task = Task(tmp_path / "b", point(), quadratic_loss, quadratics(3), keep_moments=False)
    with pytest.raises(PlanError, match="did not keep the moments"):
        task.estimator(moments="frozen")
    task = Task(tmp_path / "c", net(amsgrad=True), classify, examples(3))
    with pytest.raises(PlanError, match="AMSGrad"):
        task.estimator(moments="frozen")


def test_another_model_loss_or_data_is_refused(tmp_path):
    task = Task(tmp_path, net(), classify, examples(5))
    model, optimizer = task.build()
    bigger = nn.Linear(3, 2).double()
    other = torch.optim.Adam(bigger.parameters())
    with pytest.raises(PlanError, match="other parameters"):
        OrderEstimator(tmp_path, bigger, other, classify, task.batches)
    with pytest.raises(PlanError, match="the model lacks"):
        OrderEstimator(tmp_path, model, other, classify, task.batches)
    with pytest.raises(PlanError, match="repeating a recorded step"):
        OrderEstimator(tmp_path, model, optimizer, classify, task.batches[::-1])
    with pytest.raises(PlanError, match="one number per batch"):
        OrderEstimator(tmp_path, model, optimizer, lambda m, b: m(b[0]), task.batches)
    with pytest.raises(PlanError, match="order"):
        OrderEstimator(tmp_path, model, optimizer, classify, task.batches[:4])
    with pytest.raises(PlanError, match="no recorded run"):
        OrderEstimator(tmp_path / "nowhere", model, optimizer, classify, task.batches)


def test_mixed_precision_of_weights_is_refused(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(PlanError, match="one floating dtype"):
        OrderRecorder(tmp_path, model, optimizer)


def test_the_cost_is_stated_beforehand_and_met(tmp_path):
    task = Task(tmp_path, net(), classify, examples(5))
    estimator = task.estimator(curvature="secant")
    cost = estimator.cost()
    size = sum(p.numel() for p in task.model.parameters())
    assert cost == order_cost(size, 5, curvature="secant", value_bytes=8)
    assert cost.table_bytes == 5 * 5 * size * 8
    assert not (tmp_path / "table").exists()
    estimator.prepare()
    assert (tmp_path / "table" / "gradients.bin").stat().st_size == cost.table_bytes
    on_disk = sum(f.stat().st_size for f in tmp_path.glob("*.pt"))
    assert cost.run_bytes < on_disk < cost.run_bytes + 16 * 6000  # headers of small files
    assert cost.pays_from == 5
    assert order_cost(size, 5).pays_from == float("inf")
    assert "25 gradients to compute" in str(cost)


def test_the_published_storage_is_of_one_byte_per_value():
    """13.1 TB for 200M parameters and 256 batches; 410 GB after a projection to a 32nd."""
    whole = order_cost(200_000_000, 256, curvature="secant", value_bytes=1)
    small = order_cost(200_000_000, 256, curvature="secant", value_bytes=1, projection=6_250_000)
    assert whole.table_bytes == pytest.approx(13.1e12, rel=0.01)
    assert small.table_bytes == pytest.approx(410e9, rel=0.01)


def test_the_room_of_laws_does_not_load_torch():
    code = "import trainplan.laws, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_torch_the_command_that_installs_it_is_named():
    code = """
import sys
sys.modules["torch"] = None  # as if it were not installed
import trainplan.laws
try:
    trainplan.laws.order
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'trainplan[torch]'" in done.stdout
