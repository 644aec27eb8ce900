"""The table of gradients, the secants read from it, and what a projection destroys."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from laws.order_tasks import (  # noqa: E402
    Point,
    Task,
    classify,
    examples,
    flat,
    network,
    quadratic_loss,
    quadratics,
)
from trainplan.errors import PlanError  # noqa: E402
from trainplan.laws.order import Projection, ProjectionWarning, projection_error  # noqa: E402
from trainplan.laws.order.table import secant  # noqa: E402

ORDER = [2, 0, 4, 3, 1]


def point():
    model = Point()
    return model, torch.optim.Adam(model.parameters(), lr=0.05)


def net():
    model = network()
    return model, torch.optim.Adam(model.parameters(), lr=0.02)


@pytest.mark.parametrize("terms", [1, 2])
def test_secants_are_exact_for_quadratics_whose_parameters_do_not_interact(terms, tmp_path):
    task = Task(tmp_path, point, quadratic_loss, quadratics(5, diagonal=True))
    found = flat(task.estimator(curvature="secant", terms=terms).estimate(ORDER).parameters)
    assert torch.allclose(found, task.truth(ORDER), rtol=0, atol=1e-6)
    none = flat(task.estimator(curvature="secant", terms=0).estimate(ORDER).parameters)
    assert (none - task.truth(ORDER)).norm() > 1e-3


def test_without_curvature_the_table_gives_what_computing_gradients_gives(tmp_path):
    task = Task(tmp_path, net, classify, examples(5))
    lazily = task.estimator(terms=0).estimate(ORDER).parameters
    tabled = task.estimator(curvature="secant", terms=0).estimate(ORDER).parameters
    assert torch.equal(flat(lazily), flat(tabled))


def test_secants_are_guarded_where_a_weight_stood_still_and_cut():
    zero, one = torch.zeros(3), torch.tensor([1.0, 1.0, -8.0])
    theta = torch.tensor([0.0, 1e-13, 1.0])
    assert secant(one, zero, theta, zero).tolist() == [0.0, 0.0, -8.0]
    assert secant(one, zero, theta, zero, h_max=2.0).tolist() == [0.0, 0.0, -2.0]


def test_an_interrupted_table_goes_on_and_computes_nothing_twice(tmp_path):
    task = Task(tmp_path, net, classify, examples(5))
    calls = 0
    limit = 12

    def counted(model, batch):
        nonlocal calls
        calls += 1
        if calls > limit:
            raise KeyboardInterrupt
        return classify(model, batch)

    options = {"curvature": "secant", "verify": False}
    whole = task.estimator(**options, table_folder=tmp_path / "whole").estimate(ORDER)
    task.loss = counted
    with pytest.raises(KeyboardInterrupt):
        task.estimator(**options).prepare()
    assert json.loads((tmp_path / "table" / "table.json").read_text())["rows"] == 2
    calls, limit = 0, 15
    resumed = task.estimator(**options).estimate(ORDER)
    assert calls == 15
    assert torch.equal(flat(resumed.parameters), flat(whole.parameters))
    calls, limit = 0, 0
    task.estimator(**options).estimate(ORDER[::-1])
    assert calls == 0


def test_a_table_that_is_too_large_is_refused_before_anything_is_computed(tmp_path):
    task = Task(tmp_path, net, classify, examples(5))
    estimator = task.estimator(curvature="secant", max_bytes=100)
    with pytest.raises(PlanError, match=r"would take 5\.2 kB, and 100 B are allowed.*hvp"):
        estimator.estimate(ORDER)
    assert not (tmp_path / "table" / "gradients.bin").exists()


def test_a_folder_holds_one_table(tmp_path):
    task = Task(tmp_path, net, classify, examples(5))
    task.estimator(curvature="secant").prepare()
    with pytest.warns(ProjectionWarning):
        other = task.estimator(curvature="secant", projection=4)
    with pytest.raises(PlanError, match="another table"):
        other.prepare()


@settings(max_examples=20)
@given(
    size=st.integers(1, 40), k=st.integers(1, 12), seed=st.integers(0, 5), width=st.integers(1, 50)
)
def test_a_projection_is_the_same_matrix_however_it_is_cut(size, k, seed, width):
    P = Projection(size, k, seed, torch.float64)
    P._width = width
    matrix = torch.stack([P.project(e) for e in torch.eye(size, dtype=torch.float64)]).T
    u = torch.linspace(-1, 1, size, dtype=torch.float64)
    y = P.project(u)
    assert torch.allclose(matrix @ u, y, atol=1e-12)
    assert torch.allclose(matrix.T @ y, P.reconstruct(y), atol=1e-12)


def test_the_damage_of_a_projection_is_the_stated_one():
    u = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    damages = [Projection(400, 25, seed, torch.float64).damage(u) for seed in range(60)]
    squared = sum(d["relative error"] ** 2 for d in damages) / 60
    assert squared**0.5 == pytest.approx(projection_error(400, 25), rel=0.05)
    assert projection_error(400, 25) == pytest.approx(4.0, rel=0.01)
    signs = sum(d["signs kept"] for d in damages) / 60
    assert 0.5 < signs < 0.65


def test_the_damage_is_said_aloud_measured_and_felt(tmp_path):
    task = Task(tmp_path, net, classify, examples(5))
    with pytest.warns(ProjectionWarning, match=r"26 values are stored as 6.*2\.1 times"):
        estimator = task.estimator(curvature="secant", terms=0, projection=6)
    assert "2.1 times its own norm" in str(estimator.cost())
    estimate = flat(estimator.estimate(ORDER).parameters)
    whole = flat(task.estimator(terms=0).estimate(ORDER).parameters)
    truth = task.truth(ORDER)
    assert (estimate - truth).norm() > 1.5 * (whole - truth).norm()
    damage = estimator.table.damage()
    assert damage["relative error"] > 1
    assert damage["signs kept"] < 0.9
    exact = task.estimator(curvature="secant", table_folder=tmp_path / "b").table.damage()
    assert exact == {"relative error": 0.0, "signs kept": 1.0, "cosine": 1.0}


def test_a_table_needs_numbers_that_numpy_knows(tmp_path):
    def build():
        model = network(torch.bfloat16)
        return model, torch.optim.SGD(model.parameters(), lr=0.02)

    task = Task(tmp_path, build, classify, examples(3, torch.bfloat16))
    with pytest.raises(PlanError, match="float32"):
        task.estimator(curvature="secant")
    assert task.estimator().estimate([2, 0, 1]).stopped_at is None
