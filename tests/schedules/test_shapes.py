"""A shape is what its equation says, exact at its ends, and keeps its digits near them."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import BETWEEN_ANY
from trainplan.errors import PlanError
from trainplan.schedules import Phase, register_shape, shapes
from trainplan.schedules.shapes import SHAPES, parse_shape

SHARES = np.linspace(0, 1, 101)

EQUATIONS: dict[str, tuple[object, Callable[[float], float]]] = {
    "linear": ("linear", lambda u: 1 - u),
    "cosine": ("cosine", lambda u: 0.5 * (1 + math.cos(math.pi * u))),
    "1-sqrt": ("1-sqrt", lambda u: 1 - math.sqrt(u)),
    "1-square": ("1-square", lambda u: 1 - u * u),
    "cubic": ({"polynomial": 3}, lambda u: (1 - u) ** 3),
    "root": ({"polynomial": 0.5}, lambda u: (1 - u) ** 0.5),
    "exponential": ({"exponential": {"ratio": 0.1}}, lambda u: (0.1**u - 0.1) / 0.9),
    "growing exponential": ({"exponential": {"ratio": 5}}, lambda u: (5**u - 5) / -4),
    "inverse": ({"inverse": {"ratio": 0.1}}, lambda u: (1 / (1 - u + u / 0.1) - 0.1) / 0.9),
    "inverse-sqrt": (
        "inverse-sqrt",
        lambda u: 1 - ((1 + 10 * u) ** -0.5 - 1) / (11**-0.5 - 1),
    ),
    "rex": ("rex", lambda u: (1 - u) / (0.5 + 0.5 * (1 - u))),
    "rex of d = 0.9": ({"rex": 0.9}, lambda u: (1 - u) / (0.1 + 0.9 * (1 - u))),
    "cosine-power": (
        "cosine-power",
        lambda u: (10 ** (0.5 * (1 + math.cos(math.pi * u))) - 1) / 9,
    ),
    "uba": (
        {"uba": 0.5},
        lambda u: 2 * (1 + math.cos(math.pi * u)) / (1 + 1.5 * (1 + math.cos(math.pi * u))),
    ),
    "arctan": (
        {"arctan": {"slope": 8, "centre": 0.3}},
        lambda u: (math.atan(5.6) - math.atan(8 * (u - 0.3))) / (math.atan(5.6) - math.atan(-2.4)),
    ),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_weight_of_the_start_follows_the_equation(name: str) -> None:
    written, equation = EQUATIONS[name]
    shape = parse_shape(written)
    ours = [shape(u) for u in SHARES]
    np.testing.assert_allclose(ours, [equation(u) for u in SHARES], rtol=1e-12, atol=1e-15)


def test_damped_cosine_runs_between_its_two_lines() -> None:
    start, end, n, gamma = 3.0, 0.3, 2, 0.2
    curve = Phase(start, end, 100, {"damped-cosine": {"cycles": n, "gamma": gamma}})
    for t in range(101):
        u = t / 100
        peak, valley = start * (1 - (1 - gamma) * u), start / 2 * (1 - u) + end * u
        wave = math.cos(math.pi * (2 * n - 1) * u)
        assert curve(t) == pytest.approx((peak + valley) / 2 + (peak - valley) / 2 * wave)


def test_damped_cosine_by_default_keeps_the_lines_from_crossing() -> None:
    default = Phase(1.0, 0.25, 100, "damped-cosine")
    meeting = Phase(1.0, 0.25, 100, {"damped-cosine": {"gamma": 0.25}})
    assert default(np.arange(101)).tolist() == meeting(np.arange(101)).tolist()


def test_plain_exponential_decay_multiplies_by_equal_factors() -> None:
    values = Phase(1.0, 1e-4, 4, "exponential")(np.arange(5))
    np.testing.assert_allclose(values, [1, 1e-1, 1e-2, 1e-3, 1e-4], rtol=1e-14)


def test_the_reciprocal_of_the_inverse_shape_is_a_straight_line() -> None:
    values = Phase(1.0, 0.1, 9, "inverse")(np.arange(10))
    np.testing.assert_allclose(1 / values, np.arange(1, 11), rtol=1e-14)


def test_a_half_life_halves_the_distance_for_ever() -> None:
    curve = Phase(1.0, 0.2, None, {"exponential": {"half_life": 10}})
    assert [curve(t) for t in (0, 10, 20)] == pytest.approx([1.0, 0.6, 0.4])
    assert curve(10_000) == pytest.approx(0.2)


def test_half_life_matches_exponential_decay_of_torch() -> None:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(()))], lr=0.1)
    theirs = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5 ** (1 / 7))
    ours = Phase(0.1, 0.0, None, {"exponential": {"half_life": 7}})
    for t in range(50):
        assert ours(t) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        theirs.step()


def test_the_step_shape_belongs_to_the_lower_value_at_its_milestones() -> None:
    curve = Phase(1.0, 0.0, 100, {"step": {"at": [0.5, 0.75], "factor": 0.1}})
    assert [curve(t) for t in (49, 50, 74, 75, 99, 100)] == pytest.approx(
        [1, 0.1, 0.1, 0.01, 0.01, 0.01]
    )


@pytest.mark.parametrize("name", sorted(set(SHAPES) - {"constant", "step"}))
def test_a_phase_is_exact_at_both_ends(name: str) -> None:
    for start, end in [(0.3, 0.1), (1e-3, 0.7), (0.1, 3.0)]:
        curve = Phase(start, end, 77, name)
        assert curve(0) == pytest.approx(start, rel=1e-15)
        assert curve(77) == end
        assert curve(10**9) == end


@pytest.mark.parametrize("name", sorted(set(SHAPES) - {"constant", "damped-cosine", "step"}))
@given(a=st.floats(0, 1), b=st.floats(0, 1))
def test_shapes_fall_all_the_way(name: str, a: float, b: float) -> None:
    shape = parse_shape(name).bind(1.0, 0.1)
    low, high = min(a, b), max(a, b)
    assert 0 <= shape(high) <= shape(low) <= 1


@pytest.mark.parametrize("name", sorted(set(SHAPES) - {"damped-cosine"}))
@given(u=st.floats(0, 1))
def test_the_two_weights_add_up(name: str, u: float) -> None:
    shape = parse_shape(name).bind(1.0, 0.1)
    assert shape.falls(u, 1 - u, math) + shape.rises(u, 1 - u, math) == pytest.approx(1)


EXACT: dict[str, tuple[object, Callable[[Decimal], Decimal]]] = {
    "linear": ("linear", lambda v: v),
    "1-sqrt": ("1-sqrt", lambda v: 1 - (1 - v).sqrt()),
    "1-square": ("1-square", lambda v: 1 - (1 - v) ** 2),
    "polynomial": ({"polynomial": 2}, lambda v: v**2),
    "exponential": (
        {"exponential": {"ratio": 0.125}},
        lambda v: (Decimal("0.125") ** (1 - v) - Decimal("0.125")) / Decimal("0.875"),
    ),
    "rex": ({"rex": 0.5}, lambda v: v / (Decimal("0.5") + v / 2)),
    "inverse": (
        {"inverse": {"ratio": 0.25}},
        lambda v: v / (v + 4 * (1 - v)),
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_decay_to_zero_keeps_its_digits_to_the_last_step(name: str) -> None:
    written, equation = EXACT[name]
    getcontext().prec = 60
    horizon = 10**12
    curve = Phase(1.0, 0.0, horizon, written)
    for left in (1, 7, 10**3, 10**9):
        true = float(equation(Decimal(left) / Decimal(horizon)))
        assert curve(horizon - left) == pytest.approx(true, rel=1e-14)


def test_functions_can_be_shapes_and_be_given_names() -> None:
    fifth = register_named("fifth-power", lambda u: (1 - u) ** 5)
    curve = Phase(2.0, 1.0, 10, "fifth-power")
    assert curve(5) == 1 + 0.5**5
    assert Phase(2.0, 1.0, 10, fifth)(5) == curve(5)
    assert Phase(2.0, 1.0, 10, fifth).plain() == curve.plain()


def register_named(name: str, function: Callable[[float], float]) -> Callable[[float], float]:
    register_shape(name, function)
    return function


def test_a_function_without_a_name_cannot_be_written() -> None:
    with pytest.raises(PlanError, match=r"register_shape"):
        Phase(1.0, 0.0, 10, lambda u: 1 - u).to_dict()


def test_built_in_names_cannot_be_taken() -> None:
    with pytest.raises(PlanError, match="taken by a built-in shape"):
        register_shape("cosine", lambda u: 1 - u)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_shapes_are_written_as_they_are_read(name: str) -> None:
    shape = parse_shape(name)
    assert parse_shape(shape.plain()) == shape
    assert parse_shape(eval(repr(shape), vars(shapes))) == shape


@pytest.mark.parametrize("name", BETWEEN_ANY)
def test_most_shapes_go_between_any_two_values(name: str) -> None:
    values = Phase(-1.0, 2.0, 50, name)(np.arange(51))
    assert np.isfinite(values).all()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("cosin", "Did you mean 'cosine'"),
        ({"rex": 1}, "0 <= d < 1"),
        ({"rex": "high"}, "d.*not a number"),
        ({"rex": {"b": 1}}, "unknown parameter"),
        ({"linear": 3}, "no parameters"),
        ({"polynomial": 0}, "power > 0"),
        ({"polynomial": math.nan}, "power.*not a finite number"),
        ({"cosine-power": 0.5}, "p >= 1"),
        ({"uba": -1}, "phi > 0"),
        ({"arctan": -10}, "1e-6 <= slope"),
        ({"arctan": {"centre": 2}}, "0 <= centre <= 1"),
        ({"damped-cosine": 1.5}, "not a whole number"),
        ({"damped-cosine": {"gamma": 2}}, "gamma"),
        ({"step": {"at": [0.5, 0.25]}}, "ascending"),
        ({"exponential": {"ratio": 0.1, "half_life": 3}}, "not both"),
        (3, "not a shape"),
        (None, "not a shape"),
        ({}, "not a shape"),
    ],
)
def test_wrong_shapes_are_refused_with_a_reason(written: object, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Phase(1.0, 0.5, 10, written)


@pytest.mark.parametrize("name", ["exponential", "inverse"])
def test_shapes_by_ratio_need_both_values_above_zero(name: str) -> None:
    with pytest.raises(PlanError, match="both values above zero"):
        Phase(1.0, 0.0, 10, name)
    assert Phase(1.0, 0.0, 10, {name: {"ratio": 0.1}})(10) == 0
