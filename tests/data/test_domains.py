"""Domains open from near to far, and what reads the curriculum goes on where it was."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import (
    BatchSampler,
    Curriculum,
    DomainCurriculum,
    Feedback,
    Mixture,
    domain_distances,
    near_to_far,
    stages_open,
)

NEAR = {"far": 0.9, "near": 0.1, "mid": 0.4}
SIZES = {"far": 40, "near": 20, "mid": 30}


def shifted(shifts, n=60, seed=0):
    """Source features, target features that are shifted by domain, and the domains."""
    random = np.random.default_rng(seed)
    target = [random.normal(size=(n, 3)) + shift for shift in shifts]
    return random.normal(size=(n, 3)), np.concatenate(target), np.repeat(range(len(shifts)), n)


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
@pytest.mark.parametrize("sigma", ["shared", "pair", 2.0])
def test_farther_domains_have_larger_distances(kernel, sigma):
    source, target, domains = shifted([2.0, 0.5, 1.2])
    found = domain_distances(source, target, domains, kernel=kernel, sigma=sigma)
    assert near_to_far(found) == [1, 2, 0]


def test_a_domain_more_changes_no_distance():
    source, target, domains = shifted([2.0, 0.5, 1.2])
    two = domains < 2
    all_of_them = domain_distances(source, target, domains, sigma=1.0, rows=30)
    some = domain_distances(source, target[two], domains[two], sigma=1.0, rows=30)
    assert some == {name: all_of_them[name] for name in (0, 1)}


def test_sets_of_one_size_are_compared():
    """Without that, the biased estimate of a small set seems far."""
    farther = {None: 0, 2000: 0}
    for seed in range(16):
        random = np.random.default_rng(seed)
        source, target = random.normal(size=(200, 2)), random.normal(size=(220, 2))
        for rows in farther:
            found = domain_distances(source, target, [0] * 200 + [1] * 20, rows=rows, sigma=1.0)
            farther[rows] += found[1] > found[0]
    assert farther[None] >= 14
    assert 3 <= farther[2000] <= 13


def test_equally_far_domains_open_by_name():
    assert near_to_far({2: 0.1 + 0.2, 1: 0.3, 0: 0.5}) == [1, 2, 0]


@given(st.integers(1, 12), st.integers(1, 60), st.data())
def test_stages_open_one_after_another_and_all_in_the_end(stages, epochs, data):
    final = data.draw(st.none() | st.integers(0, epochs))
    opened = stages_open(stages, epochs, final, np.arange(epochs + 5))
    assert (np.diff(opened) >= 0).all()
    assert (opened[epochs:] == stages).all()
    main = epochs - (max(1, epochs // 6) if final is None else final)
    assert (opened[main:] == stages).all()
    assert opened[0] == (1 if main else stages)
    if main >= stages:
        assert set(opened) == set(range(1, stages + 1))
        lengths = np.bincount(opened[:main])[1:]
        assert lengths.max() - lengths.min() <= 1


def test_small_domains_open_with_their_neighbour():
    sizes = {"far": 5, "near": 3, "mid": 30}
    assert DomainCurriculum(NEAR, 9, sizes=sizes, least=10).stages == [["near", "mid", "far"]]
    assert DomainCurriculum(NEAR, 9, sizes=sizes, least=4).stages == [["near", "mid"], ["far"]]
    assert DomainCurriculum(NEAR, 9, sizes=sizes, least=99).stages == [["near", "mid", "far"]]


@pytest.mark.parametrize("within", ["draw", "pass"])
def test_one_data_set_opens_by_a_column(within):
    domains = np.repeat(list(SIZES), list(SIZES.values()))
    curriculum = DomainCurriculum(NEAR, 12, steps_per_epoch=5)
    course = Curriculum(
        curriculum.difficulty(domains),
        curriculum.pacing(),
        10,
        steps=60,
        by="value",
        within=within,
    )
    for step in range(60):
        members = curriculum.members(step // 5, domains)
        assert set(domains[members]) == set(curriculum.active(step // 5))
        assert course.open_at(step) == len(members)
        assert set(course.examples(step, 0, 10)) <= set(members)


def test_a_mixture_reads_open_domains_by_size_beside_what_it_always_reads():
    curriculum = DomainCurriculum(NEAR, 12, sizes=SIZES, steps_per_epoch=10, always={"source": 0.5})
    mixture = Mixture({**SIZES, "source": 50}, curriculum.mixture(), 20, steps=120)
    cursors = np.stack([mixture.cursors(step) for step in range(0, 121, 10)])
    assert (np.diff(cursors, axis=0)[:, 3] == 100).all()  # half of every epoch
    for epoch, drawn in enumerate(np.diff(cursors[:, :3], axis=0)):
        open_now = [name in curriculum.active(epoch) for name in SIZES]
        share = np.where(open_now, list(SIZES.values()), 0)
        assert np.abs(drawn - 100 * share / share.sum()).max() < 2


def distances_at(step):
    """A model that finds the middle domain ever farther."""
    return {"far": 0.5, "mid": 0.3 + step / 100, "near": 0.0}


def listening():
    """A mixture that follows distances as they are reported."""
    curriculum = DomainCurriculum(NEAR, 12, sizes=SIZES, steps_per_epoch=4)
    source = Mixture(SIZES, Feedback(curriculum, 1), 8, steps=48)
    return curriculum, source, BatchSampler(source, ranks=1, rank=0)


def run(source, sampler, first, last):
    seen = []
    for step, batch in zip(range(first, last), sampler, strict=False):
        seen.append(list(batch))
        report = {"distance": distances_at(step)} if step % 4 == 1 else {}
        source.weights.observe(step, **report)
    return seen


def test_the_order_follows_the_current_model():
    curriculum, source, sampler = listening()
    whole = run(source, sampler, 0, 48)
    # Near stays first whatever is heard later; of the others the nearest comes next.
    changes = curriculum.changes()
    assert distances_at(4 * changes[1] - 3)["mid"] < 0.5
    assert curriculum.order == ["near", "mid", "far"]
    curriculum.update(changes[1], {"far": 0.1, "mid": 0.2})
    assert curriculum.order == ["near", "far", "mid"]
    with pytest.raises(PlanError, match="Give the distance of 'mid'"):
        curriculum.update(changes[1], {"far": 0.1})
    assert len(whole) == 48


@pytest.mark.parametrize("step", [3, 14, 41])
def test_a_run_that_reports_distances_resumes_exactly(step):
    _, source, sampler = listening()
    whole = run(source, sampler, 0, 48)
    _, source, sampler = listening()
    assert run(source, sampler, 0, step) == whole[:step]
    state = sampler.state_dict(step=step)
    _, source, sampler = listening()
    sampler.load_state_dict(state)
    assert run(source, sampler, step, 48) == whole[step:]


@settings(max_examples=20)
@given(st.permutations(range(6)), st.integers(0, 11))
def test_what_is_open_stays_open(order, epoch):
    distances = dict(enumerate([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    curriculum = DomainCurriculum(distances, 12)
    before = curriculum.active(epoch - 1) if epoch else []
    curriculum.update(epoch, dict(zip(order, distances.values(), strict=True)))
    assert curriculum.order[: len(before)] == before
    rest = [name for name in order if name not in before]
    assert curriculum.order[len(before) :] == rest
    again = DomainCurriculum(distances, 12)
    again.load_state_dict(curriculum.state_dict())
    assert again.order == curriculum.order


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: DomainCurriculum({}, 3), "distances"),
        (lambda: DomainCurriculum(NEAR, 0), "epochs"),
        (lambda: DomainCurriculum(NEAR, 3, final_epochs=4), "final_epochs"),
        (lambda: DomainCurriculum(NEAR, 3, sizes={"far": 3}), "sizes"),
        (lambda: DomainCurriculum(NEAR, 3, always={"x": 1.0}), "always"),
        (lambda: DomainCurriculum(NEAR, 3).mixture(), "sizes"),
        (lambda: DomainCurriculum(NEAR, 3).opened(-1), "epoch"),
        (lambda: DomainCurriculum(NEAR, 3).difficulty(["near", "sky"]), "order"),
        (lambda: DomainCurriculum({"a": float("nan")}, 3), "distances['a']"),
        (lambda: DomainCurriculum(NEAR, 3).load_state_dict({"stages": [["a"]]}), "state.stages"),
        (lambda: domain_distances([[0.0]], [[1.0]], [0, 1]), "domains"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
