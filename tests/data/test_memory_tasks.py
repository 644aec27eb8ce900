"""Labels depend on the last N bits alone, and batches on their number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import HorizonCurriculum, MemoryStream, MemoryTask, delayed_match, parity
from trainplan.data.memory_tasks import TASKS, length_range


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 1), min_size=3, max_size=40), st.integers(1, 3))
def test_labels_depend_on_the_last_n_bits_alone(bits, n):
    column = np.asarray(bits)[:, None]
    longer = np.concatenate([1 - column, column])
    for label in TASKS.values():
        assert label(column, n) == label(longer, n) == label(column[-n:], n)
    flipped = column.copy()
    flipped[-n] ^= 1
    assert parity(flipped, n) != parity(column, n)
    if n > 1:
        assert delayed_match(flipped, n) != delayed_match(column, n)


@pytest.mark.parametrize("kind", TASKS)
def test_batches_are_functions_of_their_number(kind):
    task = MemoryTask(kind, batch_size=16, seed=3)
    spans = [2, 3, 7]
    lengths = set()
    for step in range(40):
        bits, labels = task.batch(step, spans)
        again, _ = MemoryTask(kind, batch_size=16, seed=3).batch(step, spans)
        assert (bits == again).all()
        low, high = length_range(7)
        assert low <= len(bits) < high
        assert set(np.unique(bits)) <= {0, 1}
        assert all((labels[n] == TASKS[kind](bits[:, :, 0], n)).all() for n in spans)
        lengths.add(len(bits))
    assert len(lengths) > 10
    assert not np.array_equal(task.batch(0, [2])[0], MemoryTask(kind, 16, 4).batch(0, [2])[0])


def test_parity_draws_a_share_for_each_sequence_and_matching_does_not():
    spread = {}
    for kind in TASKS:
        shares = MemoryTask(kind, 4000).batch(0, [50])[0].mean(axis=(0, 2))
        spread[kind] = shares.std()
    assert spread["parity"] > 0.25 > 0.1 > spread["delayed-match"]


def test_a_stream_follows_the_curriculum():
    torch = pytest.importorskip("torch")
    curriculum = HorizonCurriculum()
    stream = MemoryStream(MemoryTask(batch_size=4), curriculum, 5)
    spans = []
    for bits, labels in torch.utils.data.DataLoader(stream, batch_size=None):
        assert bits.dtype == torch.float32
        spans.append(list(labels))
        curriculum.update(dict.fromkeys(curriculum.active, 1.0))
    assert spans == [list(range(2, k + 3)) for k in range(5)]


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: MemoryTask("sum"), "kind"),
        (lambda: MemoryTask(batch_size=0), "batch_size"),
        (lambda: MemoryTask().batch(0, []), "horizons"),
        (lambda: MemoryTask().batch(-1, [2]), "step"),
        (lambda: parity([[1], [0]], 3), "bits"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place


def test_curricula_advance_only_above_the_threshold_of_mean_and_newest():
    curriculum = HorizonCurriculum(start=[2, 3])
    assert not curriculum.update({2: 1.0, 3: 0.98})  # strictly above
    assert not curriculum.update({2: 0.5, 3: 1.0})
    assert curriculum.update({2: 0.99, 3: 0.99, 4: 0.0})
    assert curriculum.active == [2, 3, 4]


@given(st.lists(st.booleans(), max_size=20), st.integers(1, 3))
def test_modes_differ_in_what_they_keep(passed, add):
    kinds = {mode: HorizonCurriculum(mode, add=add, forget=1) for mode in ("cumulative", "single")}
    sliding = HorizonCurriculum("sliding", [2, 3, 4], forget=2)
    for good in passed:
        for curriculum in (*kinds.values(), sliding):
            curriculum.update(dict.fromkeys(curriculum.active, float(good)))
    wins = sum(passed)
    assert kinds["cumulative"].active == list(range(2, 3 + wins * add))
    assert kinds["single"].active == [2 + wins * add]
    assert sliding.active == list(range(2 + 2 * wins, 5 + 2 * wins))


def test_the_largest_span_is_mastered_in_the_end():
    curriculum = HorizonCurriculum(most=3)
    assert curriculum.update({2: 1.0})
    assert not curriculum.update({2: 1.0, 3: 1.0})
    assert curriculum.solved
    fixed = HorizonCurriculum("fixed", [9])
    assert not fixed.update({9: 1.0})
    assert fixed.solved


def test_a_curriculum_goes_on_from_its_state():
    first, again = HorizonCurriculum("sliding", [2, 3]), HorizonCurriculum("sliding", [5, 6])
    first.update({2: 1.0, 3: 1.0})
    again.load_state_dict(first.state_dict())
    assert again.active == [3, 4]
    assert again.state_dict() == first.state_dict()


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: HorizonCurriculum("growing"), "mode"),
        (lambda: HorizonCurriculum("single", [2, 3]), "start"),
        (lambda: HorizonCurriculum(start=[]), "start"),
        (lambda: HorizonCurriculum("sliding", [2], forget=2), "forget"),
        (lambda: HorizonCurriculum().update({3: 1.0}), "accuracies"),
        (lambda: HorizonCurriculum().load_state_dict({}), "state"),
    ],
)
def test_curricula_that_cannot_be_meant_are_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
