"""Old tasks come back by their age, exactly or by chance, and a run resumes by its step."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import AgeSchedule, BatchSampler, Joined, Mixture, Rehearsal
from trainplan.data.age_schedule import largest_remainder

SIZES = {"a": 50, "b": 40, "c": 60, "d": 30}
POWER = AgeSchedule("power")


def whole(source):
    return np.concatenate([source.examples(t, 0, source.global_batch) for t in range(source.steps)])


def tasks_of(source, examples):
    return np.searchsorted(np.cumsum(source.sizes), examples, side="right")


@given(st.sampled_from(["power", "exponential"]), st.floats(0, 4), st.integers(1, 30))
def test_weights_fall_with_age_and_add_up(kind, b, phase):
    weights = AgeSchedule(kind, b).weights(phase)
    assert weights.sum() == pytest.approx(1)
    assert (np.diff(weights) >= 0).all()


@given(st.integers(1, 20))
def test_limits_of_the_exponent_are_the_other_kinds(phase):
    uniform, none = AgeSchedule("uniform"), AgeSchedule("none")
    assert np.allclose(AgeSchedule("power", 0).weights(phase), uniform.weights(phase))
    assert np.allclose(AgeSchedule("power", 400).weights(phase), none.weights(phase))
    only_last = AgeSchedule("power", 400).rehearsal(10, phase + 1, 1.0)
    assert only_last.tolist() == [0] * (phase - 1) + [10]


@given(st.integers(0, 500), st.lists(st.floats(0.01, 1), min_size=1, max_size=12))
def test_largest_remainders_add_up_and_are_less_than_one_away(n, shares):
    exact = np.asarray(shares) / sum(shares)
    found = largest_remainder(n, exact)
    assert found.sum() == n
    assert (np.abs(found - n * exact) < 1 + 1e-6).all()


def test_a_function_of_the_users_is_a_schedule():
    schedule = AgeSchedule(lambda ages: np.where(ages <= 2, 1.0, 0.0))
    assert schedule.weights(4).tolist() == [0, 0, 0.5, 0.5]


@pytest.mark.parametrize("ratio", [None, 0.5])
@pytest.mark.parametrize("sampling", ["quota", "iid"])
@pytest.mark.parametrize("age", ["introduced", "last_seen"])
def test_every_phase_shows_what_its_table_says(ratio, sampling, age):
    stream = Rehearsal(SIZES, POWER, 60, 6, 3, ratio=ratio, sampling=sampling, age=age)
    examples = whole(stream)
    edges = [0, *np.cumsum(stream.table.sum(1))]
    assert edges[-1] == len(examples)
    for k, (begin, end) in enumerate(itertools.pairwise(edges)):
        counts = np.bincount(tasks_of(stream, examples[begin:end]), minlength=4)
        assert counts.tolist() == stream.table[k].tolist()
        assert not counts[k + 1 :].any()
    assert stream.table[0].tolist() == [60, 0, 0, 0]
    if ratio is None:
        assert (stream.table.sum(1) == 60).all()
    else:
        assert np.diagonal(stream.table).tolist() == [60] * 4
        assert stream.seen().tolist() == [0, 30, 30, 30]


def test_examples_of_a_task_repeat_only_after_all_were_shown():
    stream = Rehearsal(SIZES, POWER, 60, 10)
    examples = whole(stream)
    for k, size in enumerate(stream.sizes):
        counts = np.bincount(examples[tasks_of(stream, examples) == k] - sum(stream.sizes[:k]))
        assert counts.max() - counts.min() <= 1 or counts.sum() < size


def test_old_examples_can_come_after_the_new_ones():
    stream = Rehearsal(SIZES, POWER, 40, 10, ratio=0.5, placement="after")
    second = tasks_of(stream, whole(stream)[40:100])
    assert second.tolist() == [1] * 40 + [0] * 20


def test_age_since_last_seen_brings_back_what_was_starved():
    steep = AgeSchedule("power", 3.0)
    born = Rehearsal(dict.fromkeys("abcdefgh", 20), steep, 20, 5)
    seen = Rehearsal(dict.fromkeys("abcdefgh", 20), steep, 20, 5, age="last_seen")
    assert born.table[:, 0][2:].tolist() != seen.table[:, 0][2:].tolist()
    assert seen.table[2:, 0].sum() > born.table[2:, 0].sum()


def test_drawn_tasks_have_the_right_shares_on_average():
    stream = Rehearsal(dict.fromkeys("abc", 10), POWER, 60_000, 100, sampling="iid")
    assert np.abs(stream.table[2] / 60_000 - POWER.weights(3)).max() < 0.01


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**70), st.integers(1, 13), st.integers(1, 40), st.data())
def test_any_part_of_a_step_is_the_same_part_of_the_stream(seed, batch, per_phase, data):
    stream = Rehearsal(SIZES, AgeSchedule("exponential"), max(batch, per_phase), batch, seed)
    step = data.draw(st.integers(0, stream.steps - 1))
    first = data.draw(st.integers(0, batch))
    again = Rehearsal(SIZES, AgeSchedule("exponential"), max(batch, per_phase), batch, seed)
    part = again.examples(step, first, batch)
    assert part.tolist() == whole(stream)[step * batch + first : (step + 1) * batch].tolist()


def test_phases_and_their_ends_are_counted_in_steps():
    stream = Rehearsal(SIZES, POWER, 25, 10)  # the third step holds two phases
    assert stream.boundaries() == [3, 5, 8, 10]
    assert [stream.phase(t) for t in range(10)] == [1, 1, 1, 2, 2, 3, 3, 3, 4, 4]


@pytest.mark.parametrize("step", [1, 7, 15])
def test_a_torch_loader_resumes_bit_by_bit(step):
    torch = pytest.importorskip("torch")
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    data = Joined(
        {name: torch.arange(size) + 1000 * k for k, (name, size) in enumerate(SIZES.items())}
    )

    def loader():
        return stateful(data, batch_sampler=BatchSampler(Rehearsal(SIZES, POWER, 40, 8, seed=2)))

    whole_run = loader()
    batches, state = [], None
    for t, batch in enumerate(whole_run):
        batches.append(batch.tolist())
        if t + 1 == step:
            state = whole_run.state_dict()
    again = loader()
    again.load_state_dict(state)
    assert [batch.tolist() for batch in again] == batches[step:]
    assert len(batches) == 20


def test_weights_go_to_hugging_faces_interleaved_datasets():
    datasets = pytest.importorskip("datasets")
    parts = [
        datasets.Dataset.from_dict({"x": list(range(100 * k, 100 * k + 90))}) for k in range(3)
    ]
    mixed = datasets.interleave_datasets(
        parts, probabilities=POWER.weights(3).tolist(), seed=1, stopping_strategy="first_exhausted"
    )
    counts = np.bincount(np.asarray(mixed["x"]) // 100, minlength=3)
    assert counts.argmax() == 2
    assert counts[0] > 0


def test_stages_make_a_mixture_of_it():
    mixture = Mixture(SIZES, POWER.stages(list(SIZES), 10), 12, steps=40)
    assert mixture.counts(5).tolist() == [12, 0, 0, 0]
    shown = mixture.cursors(20) - mixture.cursors(10)
    assert shown.tolist() == [40, 80, 0, 0]


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: AgeSchedule("powr"), "kind"),
        (lambda: AgeSchedule(b=-1), "b"),
        (lambda: POWER.at([0, 1]), "ages"),
        (lambda: POWER.weights(0), "phase"),
        (lambda: AgeSchedule(lambda a: -a).weights(2), "kind"),
        (lambda: AgeSchedule(lambda a: 0 * a).weights(2), "kind"),
        (lambda: POWER.rehearsal(10, 2, -0.5), "ratio"),
        (lambda: Rehearsal({}, POWER, 10, 2), "sizes"),
        (lambda: Rehearsal(SIZES, POWER, 10, 2, sampling="all"), "sampling"),
        (lambda: Rehearsal(SIZES, POWER, 10, 2, placement="after"), "placement"),
        (lambda: Rehearsal(SIZES, POWER, 10, 2).examples(99, 0, 2), "step"),
        (lambda: Rehearsal(SIZES, POWER, 10, 2).load({}, 0), "state.source.table"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
