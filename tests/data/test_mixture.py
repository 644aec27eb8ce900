"""Mixtures are normalised, change exactly at a boundary, and branches share their trunk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import Stage, branch_cost, mixture_at, mixture_tokens, normalised

WEIGHTS = st.dictionaries(st.text(min_size=1), st.floats(0, 1e6), min_size=1).filter(
    lambda weights: sum(weights.values()) > 1e-6
)


@given(WEIGHTS, st.floats(0, 1e13))
def test_the_tokens_of_all_sources_make_the_stage(weights, tokens):
    drawn = mixture_tokens(weights, tokens)
    assert sum(drawn.values()) == pytest.approx(tokens)
    assert list(drawn) == list(weights)


@given(WEIGHTS, st.floats(1e-3, 1e3))
def test_only_the_ratio_of_weights_matters(weights, factor):
    scaled = {name: weight * factor for name, weight in weights.items()}
    assert normalised(scaled) == pytest.approx(normalised(weights))


def test_the_mixture_changes_exactly_when_the_decay_begins():
    stages = [Stage(200e9, {"web": 9, "qa": 1}), Stage(20e9, {"web": 0.7, "cot": 0.3})]
    assert mixture_at(stages, 200e9 - 1) == {"web": 0.9, "qa": 0.1}
    assert mixture_at(stages, 200e9) == pytest.approx({"web": 0.7, "cot": 0.3})
    assert mixture_at(stages, 10e12) == mixture_at(stages, 200e9)


def test_a_stage_cannot_be_changed_from_outside():
    weights = {"web": 1.0}
    stage = Stage(10, weights)
    weights["web"] = 0.0
    assert stage.weights["web"] == 1.0
    with pytest.raises(TypeError):
        stage.weights["web"] = 2.0


@given(st.floats(0, 1e12), st.lists(st.floats(0, 1e12), min_size=1, max_size=9))
def test_a_shared_trunk_saves_all_trunks_but_one(stable, decays):
    shared, separate = branch_cost(stable, decays)
    assert separate - shared == pytest.approx((len(decays) - 1) * stable, abs=1e-3, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (lambda: normalised({"a": -1, "b": 2}), "weights.a"),
        (lambda: normalised({"a": 0}), "weights"),
        (lambda: normalised({}), "weights"),
        (lambda: normalised({"a": float("inf")}), "weights.a"),
        (lambda: mixture_tokens({"a": 1}, -1), "tokens"),
        (lambda: mixture_at([], 0), "stages"),
        (lambda: Stage(-1, {"a": 1}), "length"),
        (lambda: branch_cost(1, [-1]), "decays[0]"),
        (lambda: branch_cost(1, []), "the number of decays"),
    ],
)
def test_bad_input_is_named(call, place):
    with pytest.raises(PlanError) as caught:
        call()
    assert caught.value.place == place
