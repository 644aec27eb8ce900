"""Mixed predictions: their bands, what they refuse, how they choose, and the commands."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import trainplan as tp
from trainplan import laws
from trainplan.cli import app
from trainplan.laws.choosing import difference, trapezoid
from trainplan.laws.fitting import fit_law

PEAK, WARMUP, LONG = 1e-3, 100, 6000
TRUTH = laws.Concave(2.6, 1.0, 0.45, 0.25, 1.5, 35.0, 0.5, 0.75, 0.1, peak=PEAK)


def rates_of(schedule, steps=LONG):
    return schedule.resolve(steps)(np.arange(steps))


SCHEDULES = {
    "constant": tp.schedules.constant(PEAK, warmup=WARMUP),
    "cosine": tp.schedules.cosine(PEAK, warmup=WARMUP, end="10%"),
    "wsd": tp.schedules.wsd(PEAK, warmup=WARMUP, decay="25%", shape="linear", end="5%"),
    "linear": tp.schedules.linear(PEAK, warmup=WARMUP, end="3%"),
    "late": tp.schedules.wsd(PEAK, warmup=WARMUP, decay="5%", shape="linear", end="5%"),
}


def made(name, law=TRUTH, noise=5e-4, steps=LONG, seed=0):
    rates = rates_of(SCHEDULES[name], steps)
    at = np.arange(2 * WARMUP, steps, 50)
    wobble = np.random.default_rng(seed).normal(0, noise, at.size)
    return laws.Curve(name, at, law.predict(rates, at=at) * np.exp(wobble), rates, WARMUP)


@pytest.fixture(scope="module")
def predictor():
    return laws.fit("auto", [made("constant"), made("cosine", seed=1)])


@pytest.mark.parametrize("name", ["wsd", "linear", "late"])
def test_unseen_schedules_are_predicted_within_the_band(predictor, name):
    curve = made(name, noise=0.0)
    ahead = predictor.predict(curve.rates, at=curve.steps)
    inside = (ahead.low < curve.loss) & (curve.loss < ahead.high)
    assert inside.mean() > 0.8
    assert np.abs(ahead.loss - curve.loss).mean() < 0.01


def test_a_higher_level_gives_a_wider_band_around_the_same_loss(predictor):
    rates = rates_of(SCHEDULES["wsd"])
    narrow, wide = (predictor.predict(rates, level=x) for x in (0.5, 0.95))
    assert narrow.loss.tolist() == wide.loss.tolist()
    assert ((wide.high - wide.low) > 2.5 * (narrow.high - narrow.low)).all()
    with pytest.raises(tp.PlanError, match="level"):
        predictor.predict(rates, level=1.0)


def test_the_mixture_prefers_the_law_that_made_the_curves():
    law = laws.Annealing(2.6, 0.2, 0.5, 0.1, 0.999)
    curves = [made("constant", law, 1e-5), made("cosine", law, 1e-5)]
    held_out = dict(zip(laws.predictor.MIXED, laws.fit("auto", curves).held_out, strict=True))
    assert min(held_out, key=held_out.get) == "annealing"


def test_what_the_curves_leave_open_makes_a_band_wide(predictor):
    # A short decay at the end tells little of what a cosine would do.
    late = laws.fit("auto", [made("wsd")])
    rates = made("cosine").rates
    at = np.array([rates.size // 2])
    width = [
        (p.high - p.low)[0] / p.loss[0] for p in (x.predict(rates, at) for x in (late, predictor))
    ]
    assert width[0] > 2 * width[1]


@pytest.mark.parametrize(
    ("schedule", "steps", "reason"),
    [
        (tp.schedules.wsd(2 * PEAK, warmup=100), LONG, r"peak rate is 0\.002"),
        (SCHEDULES["wsd"], 5 * LONG, "more than 4 times"),
        (tp.schedules.cosine(PEAK, warmup=100, duration=3000).repeat(), LONG, "rises again"),
    ],
)
def test_what_the_curves_cannot_tell_is_refused_with_the_reason(predictor, schedule, steps, reason):
    with pytest.raises(laws.OutsideEvidenceError, match=reason):
        predictor.predict(rates_of(schedule, steps))
    ahead = predictor.predict(rates_of(schedule, steps), anyway=True)
    assert len(ahead.outside) == 1


def test_a_fit_without_a_decay_says_nothing_about_decays():
    alone = laws.fit("annealing", [made("constant")])
    with pytest.raises(laws.OutsideEvidenceError, match="no curve was measured under a falling"):
        alone.predict(rates_of(SCHEDULES["wsd"]))
    assert alone.predict(rates_of(SCHEDULES["constant"], 2 * LONG)).loss.size == 500


def test_a_predictor_is_written_and_read(predictor, tmp_path):
    predictor.save(tmp_path / "law.json")
    again = laws.Predictor.load(tmp_path / "law.json")
    rates = rates_of(SCHEDULES["wsd"])
    assert again == predictor
    assert again.predict(rates).high.tolist() == predictor.predict(rates).high.tolist()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_law_files_give_a_clear_error(data, tmp_path_factory):
    plain = laws.fit("power", [made("constant")]).to_dict()
    place = data.draw(st.sampled_from([*plain, "evidence.peak", "evidence.steps", "laws.0"]))
    value = data.draw(st.sampled_from([None, [], {}, "x", [1.0, 2.0], [{"law": "power"}]]))
    target, _, inner = place.partition(".")
    if inner == "peak":
        del plain["evidence"]["peak"]
    elif inner == "steps":
        plain["evidence"]["steps"] = value
    elif inner:
        plain["laws"][0] = value
    elif value == plain[target] or (target, value) == ("held_out", []):
        return
    else:
        plain[target] = value
    path = tmp_path_factory.mktemp("law") / "law.json"
    path.write_text(json.dumps(plain))
    with pytest.raises(tp.PlanError, match=r"law\.json"):
        laws.Predictor.load(path)


def test_plans_are_ranked_as_the_truth_ranks_them(predictor):
    names = ["wsd", "linear", "late", "constant"]
    plans = [tp.Plan(horizon=LONG, name=n, lr=SCHEDULES[n]) for n in names]
    ranked = laws.rank(predictor, plans)
    true = {n: float(TRUTH.predict(rates_of(SCHEDULES[n]), at=[LONG - 1])[0]) for n in names}
    assert [row.name for row in ranked] == sorted(names, key=true.__getitem__)
    assert ranked[0].behind.gain == 0
    assert not ranked[0].behind.expected
    assert ranked[-1].behind.expected
    assert ranked[-1].behind.gain == pytest.approx(
        max(true.values()) - min(true.values()), abs=0.01
    )
    assert all(row.low < row.loss < row.high for row in ranked)


def test_no_difference_is_expected_between_schedules_that_hardly_differ(predictor):
    a = rates_of(tp.schedules.wsd(PEAK, warmup=100, decay="25%", shape="linear", end="5%"))
    b = rates_of(tp.schedules.wsd(PEAK, warmup=100, decay="25.2%", shape="linear", end="5%"))
    assert not difference(predictor, a, b).expected
    assert "no difference to be expected" in str(difference(predictor, a, b))


def test_ranking_needs_plans_with_different_names(predictor):
    plan = tp.Plan(horizon=LONG, name="a", lr=SCHEDULES["wsd"])
    with pytest.raises(tp.PlanError, match="same name"):
        laws.rank(predictor, [plan, plan])
    with pytest.raises(tp.PlanError, match="nothing to rank"):
        laws.rank(predictor, [])


def test_the_optimum_is_at_least_as_good_as_every_usual_schedule(predictor):
    choice = laws.optimize(predictor, LONG)
    found = predictor.predict(choice.schedule.resolve(LONG), at=[LONG - 1]).loss[0]
    for name in SCHEDULES:
        other = predictor.predict(rates_of(SCHEDULES[name]), at=[LONG - 1]).loss[0]
        assert found <= other + 1e-4
    assert set(choice.gains) == {"cosine", "cosine to 0", "wsd", "linear"}
    assert choice.gains["cosine"].gain > 0
    assert choice.low < choice.loss < choice.high


def test_the_optimum_keeps_what_it_is_told(predictor):
    choice = laws.optimize(predictor, LONG, end=0.05, warmup=300)
    rates = choice.schedule.resolve(LONG)(np.arange(LONG + 1))
    assert rates[300] == PEAK
    assert rates[-1] == pytest.approx(0.05 * PEAK)
    with pytest.raises(laws.OutsideEvidenceError, match="peak rate"):
        laws.optimize(predictor, LONG, peak=2e-3)
    with pytest.raises(tp.PlanError, match="relative to the peak"):
        laws.optimize(predictor, LONG, end=1.5)
    with pytest.raises(tp.PlanError, match="warmup"):
        laws.optimize(predictor, LONG, warmup=LONG)


def test_a_trapezoid_is_warmup_constant_and_decay():
    schedule = trapezoid(PEAK, 1000, 100, 0.4, 2.0, 0.1)
    t = np.array([0, 50, 100, 599, 600, 800, 1000])
    expected = PEAK * np.array([0, 0.5, 1, 1, 1, 0.1 + 0.9 * 0.25, 0.1])
    np.testing.assert_allclose(schedule(t), expected, rtol=1e-12)
    assert tp.schedules.from_dict(schedule.to_dict()) == schedule


def test_the_multi_power_optimum_is_near_the_free_one():
    # Free drops at every step end within 1e-4 nats of a late decay with a power of about 1.5.
    law = laws.MultiPower(2.6514, 0.60115, 0.45296, 437.95, 2.1325, 0.59785, 0.65524)
    rates = rates_of(tp.schedules.cosine(3e-4, warmup=2160, end="10%"), 24_000)
    at = np.arange(3000, 24_000, 500)
    evidence = laws.evidence.Evidence.of([laws.Curve("c", at, law.predict(rates, at=at), rates)])
    alone = laws.Predictor((law,), (1.0,), evidence, 0.0)
    assert laws.optimize(alone, 24_000).loss < 2.7943


def write_logs(folder):
    for name in ("constant", "cosine"):
        curve = made(name)
        lines = [
            json.dumps({"step": int(s), "lr": float(curve.rates[s]), "loss": float(x)})
            for s, x in zip(curve.steps, curve.loss, strict=True)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def run(*arguments):
    return CliRunner().invoke(app, [str(x) for x in arguments], catch_exceptions=False)


def test_the_commands_go_from_logs_to_a_plan(tmp_path):
    write_logs(tmp_path)
    law = tmp_path / "law.json"
    result = run(
        "fit", tmp_path / "constant.jsonl", tmp_path / "cosine.jsonl", "--out", law,
        "--warmup", WARMUP,
    )  # fmt: skip
    assert result.exit_code == 0
    assert "concave" in result.output
    result = run("optimize", "--law", law, "--horizon", 8000, "--out", tmp_path / "best.yaml")
    assert result.exit_code == 0
    assert "predicted final loss" in result.output
    best = tp.Plan.load(tmp_path / "best.yaml")
    assert best.horizon == 8000
    tp.Plan(horizon=8000, lr=SCHEDULES["cosine"]).save(tmp_path / "cosine.yaml")
    page = tmp_path / "loss.html"
    result = run(
        "predict", "--law", law, tmp_path / "cosine.yaml", tmp_path / "best.yaml", "--html", page
    )
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines() if "best" in line.split()]
    assert lines[-1][0] == "best"
    assert "plotly" in page.read_text(encoding="utf-8").lower()


def test_the_commands_refuse_what_the_curves_cannot_tell(tmp_path):
    write_logs(tmp_path)
    law = tmp_path / "law.json"
    run(
        "fit",
        tmp_path / "constant.jsonl",
        tmp_path / "cosine.jsonl",
        "--out",
        law,
        "--law",
        "power",
    )
    tp.Plan(horizon=8000, lr=tp.schedules.wsd(5e-3, warmup=100)).save(tmp_path / "high.yaml")
    with pytest.raises(laws.OutsideEvidenceError, match="peak rate"):
        run("predict", "--law", law, tmp_path / "high.yaml")
    result = run("predict", "--law", law, tmp_path / "high.yaml", "--anyway")
    assert "cannot tell" in result.output


def test_fitting_one_law_by_name_uses_it_alone():
    alone = laws.fit("functional", [made("constant"), made("cosine")])
    same = fit_law("functional", [made("constant"), made("cosine")]).law
    assert alone.laws == (same,)
    assert alone.weights == (1.0,)
