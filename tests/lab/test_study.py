import json
import math

import numpy as np
import pytest

from trainplan import Plan, PlanError, schedules
from trainplan.lab import Claim, Study, Tuned, WorkloadSpec, run_study
from trainplan.lab.study_outcome import judge
from trainplan.lab.study_page import render

CALLS: list[tuple[str, int]] = []


def measure(arm: str, seed: int, gain: float = 0.0, noise: float = 0.01) -> dict[str, float]:
    CALLS.append((arm, seed))
    own = np.random.default_rng([seed, len(arm)]).normal()
    return {"loss": 2.0 + np.random.default_rng(seed).normal() - gain + noise * own, "seed": seed}


def study(**changes) -> Study:
    settings = {
        "paper": "rex",
        "claim": "mine is better",
        "arms": {"mine": {"gain": 0.1}, "theirs": {}},
        "measure": measure,
        "margin": 0.05,
        "seeds": range(12),
        "looks": (4, 12),
    }
    return Study(**{**settings, **changes})


def test_a_clear_advantage_is_reproduced_at_the_first_look():
    outcome = run_study(study())
    assert outcome.verdict == "reproduced"
    assert list(outcome.results) == [0, 1, 2, 3]
    assert outcome.claims[0].interval.estimate == pytest.approx(0.1, abs=0.02)


def test_a_missing_advantage_contradicts():
    outcome = run_study(study(arms={"mine": {}, "theirs": {}}))
    assert outcome.verdict == "contradicted"


def test_an_open_question_gets_more_seeds_and_then_stays_open():
    outcome = run_study(study(arms={"mine": {"gain": 0.05, "noise": 0.2}, "theirs": {}}))
    assert outcome.verdict == "inconclusive"
    assert len(outcome.results) == 12


def test_every_seed_is_reported():
    plain = run_study(study()).to_dict()
    assert plain["seeds"] == [0, 1, 2, 3]
    for seed in map(str, plain["seeds"]):
        assert set(plain["results"][seed]) == {"mine", "theirs"}
    assert len(plain["claims"][0]["advantages"]) == 4
    json.dumps(plain, allow_nan=False)


def test_arguments_are_tuned_on_other_seeds():
    CALLS.clear()
    outcome = run_study(study(arms={"mine": {"gain": Tuned(-1.0, 0.3, 0.1)}, "theirs": {}}))
    assert outcome.tuned == {"mine": {"gain": 0.3}}
    tuning = {seed for _, seed in CALLS if seed >= 1_000_000}
    assert len(tuning) == 2
    assert tuning.isdisjoint(outcome.results)
    assert len(outcome.tuning["mine"]) == 6
    assert outcome.claims[0].interval.estimate == pytest.approx(0.3, abs=0.02)


def test_a_diverged_try_is_not_chosen():
    def fragile(arm, seed, peak=1.0):
        return {"loss": math.nan if peak > 2 else 1 / peak}

    arms = {"mine": {"peak": Tuned(1.0, 2.0, 4.0)}, "theirs": {}}
    assert run_study(study(arms=arms, measure=fragile)).tuned["mine"] == {"peak": 2.0}


def test_a_run_that_diverged_is_reported_and_decides_nothing():
    def fragile(arm, seed):
        return {"loss": math.inf if seed == 2 and arm == "mine" else 1.0}

    outcome = run_study(study(arms=["mine", "theirs"], measure=fragile))
    assert outcome.verdict == "inconclusive"
    assert "diverged" in outcome.claims[0].figure
    json.dumps(outcome.to_dict(), allow_nan=False)
    render(outcome)


def test_an_exact_study_has_no_seeds_and_says_so():
    def closed_form(arm):
        return {"loss": {"mine": 0.5, "theirs": 0.6}[arm]}

    exact = study(arms=["mine", "theirs"], measure=closed_form, seeds=(), looks=())
    outcome = run_study(exact)
    assert outcome.verdict == "reproduced"
    assert outcome.to_dict()["exact"]
    assert outcome.to_dict()["seeds"] == []
    assert "exact" in outcome.summary.lower()
    assert (
        run_study(study(arms=["theirs", "mine"], measure=closed_form, seeds=(), looks=())).verdict
        == "contradicted"
    )
    with pytest.raises(PlanError, match="exact"):
        exact.staged(4)


def test_arms_may_be_measured_together():
    def together(seed):
        return {arm: measure(arm, seed, gain) for arm, gain in (("mine", 0.1), ("theirs", 0.0))}

    joint = study(arms=["mine", "theirs"], measure=None, measure_all=together)
    assert run_study(joint).results == run_study(study()).results


def test_plans_are_trained_on_a_workload_of_the_lab():
    plan = Plan(horizon=30, lr=schedules.constant(0.05))
    trained = Study(
        paper="rex",
        claim="a rate of zero learns nothing",
        arms={"some": plan, "none": plan.replace(lr=schedules.constant(0.0))},
        workload=WorkloadSpec("digits", {}),
        seeds=range(3),
    )
    outcome = run_study(trained)
    assert outcome.verdict == "reproduced"
    assert outcome.to_dict()["digests"]["plans"]["some"] == plan.digest


def test_quick_runs_are_marked_and_shorter():
    def timed(arm, seed, steps=100):
        return {"loss": 1 / steps if arm == "mine" else 1.0}

    outcome = run_study(
        study(arms=["mine", "theirs"], measure=timed, quick={"steps": 5}), quick=True
    )
    assert outcome.quick
    assert outcome.results[0]["mine"]["loss"] == 1 / 5
    assert len(outcome.results) == 2
    assert "no evidence" in outcome.summary


def test_more_seeds_can_be_asked_for_in_the_stages_of_the_study():
    assert study().staged(20) == (tuple(range(20)), (4, 12, 20))
    assert study().staged(3) == ((0, 1, 2), (3,))
    assert study().staged() == (tuple(range(12)), (4, 12))


def test_the_verdict_rests_on_deciding_claims_alone():
    good = Claim(text="good", arm="mine", than="theirs", metric="loss")
    bad = Claim(text="bad", arm="theirs", than="mine", metric="loss", decides=False)
    outcome = run_study(study(claims=[good, bad]))
    assert outcome.verdict == "reproduced"
    assert [found.verdict for found in outcome.claims] == ["reproduced", "contradicted"]


def test_a_claim_may_compare_with_a_number_another_metric_or_anything():
    results = {"a": {"x": 3.0, "y": 4.0}, "b": {"x": 5.0}}
    assert Claim(text="", arm="a", than=2.0, metric="x").advantage(results) == -1.0
    assert Claim(text="", arm="a", than="a", metric="x", than_metric="y").advantage(results) == 1.0
    higher = Claim(text="", arm="a", than="b", metric="x", direction="higher")
    assert higher.advantage(results) == -2.0
    assert Claim(text="", effect=lambda r: r["a"]["y"]).advantage(results) == 4.0
    with pytest.raises(PlanError, match="no such metric"):
        Claim(text="", arm="b", than="a", metric="y").advantage(results)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ["one"]}, "nothing to compare"),
        ({"measure_all": measure}, "exactly one way"),
        ({"measure": None}, "exactly one way"),
        ({"looks": (4, 8)}, "not the number of seeds"),
        ({"looks": (1, 12)}, "cannot look then"),
        ({"seeds": [1, 1]}, "each seed once"),
        ({"seeds": [0, 1_000_000], "looks": ()}, "used for tuning"),
        ({"seeds": (), "looks": (4,)}, "no looks"),
        ({"direction": "lowest"}, "Did you mean 'lower'"),
        ({"margin": math.nan}, "finite"),
        ({"claims": [Claim(text="", arm="mien", than="theirs", metric="loss")]}, "'mine'"),
        ({"claims": [Claim(text="", arm="mine", than=0.0, metric="x", decides=False)]}, "decides"),
        ({"arms": {"a": Plan(horizon=2, lr=0.1), "b": {}}}, "plans and workload"),
        ({"workload": "digits", "measure": None}, "plans and workload"),
    ],
)  # fmt: skip
def test_a_study_that_cannot_be_meant_is_refused(changes, message):
    with pytest.raises(PlanError, match=message):
        study(**changes)
    with pytest.raises(PlanError, match="nothing to choose"):
        Tuned(1.0)


def test_what_is_known_is_not_measured_again(tmp_path):
    cache = tmp_path / "measurements.jsonl"
    first = run_study(study(), cache=cache)
    CALLS.clear()
    again = run_study(study(), cache=cache)
    assert CALLS == []
    assert again.results == first.results
    assert again.cpu_seconds == pytest.approx(first.cpu_seconds, abs=0.001 * len(first.results) * 2)


def test_a_torn_line_is_measured_again(tmp_path):
    cache = tmp_path / "measurements.jsonl"
    first = run_study(study(), cache=cache)
    content = cache.read_bytes()
    cache.write_bytes(content[:-20])
    CALLS.clear()
    assert run_study(study(), cache=cache).results == first.results
    assert len(CALLS) == 1
    assert len(cache.read_bytes().splitlines()) == len(content.splitlines())


def test_other_arguments_are_another_measurement(tmp_path):
    cache = tmp_path / "measurements.jsonl"
    run_study(study(), cache=cache)
    other = run_study(study(arms={"mine": {"gain": 0.5}, "theirs": {}}), cache=cache)
    assert other.claims[0].interval.estimate == pytest.approx(0.5, abs=0.02)


def test_a_page_shows_what_an_arm_is_called_and_never_runs_it():
    name = "<script>alert(1)</script>"
    hostile = study(arms={name: {"gain": 0.1}, "theirs": {}}, claim=f"{name} wins")
    page = render(run_study(hostile))
    assert name not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page


def test_the_rule_is_applied_to_what_was_measured():
    results = [{"mine": {"loss": 1.0}, "theirs": {"loss": x}} for x in (1.3, 1.2, 1.25, 1.28)]
    outcome = judge(study(), results, (4, 12))[0]
    assert outcome.verdict == "reproduced"
    assert outcome.advantages == pytest.approx((0.3, 0.2, 0.25, 0.28))


def test_labels_name_what_is_compared():
    assert Claim(text="", arm="a", than="b", metric="x").label == "a against b"
    assert Claim(text="", arm="a", than="b", metric="x", than_metric="y").label == "a x against b y"


def test_claims_about_the_same_arms_keep_their_own_figures():
    both = [
        Claim(text=metric, arm="mine", than="theirs", metric=metric) for metric in ("loss", "other")
    ]
    measured = {"mine": {"loss": 1.0, "other": 3.0}, "theirs": {"loss": 2.0, "other": 9.0}}
    made = study(claims=both, seeds=(), looks=(), measure=lambda arm, **_: measured[arm])
    figures = run_study(made).figures
    assert figures["mine against theirs, loss"] == "+1.0000"
    assert figures["mine against theirs, other"] == "+6.0000"
