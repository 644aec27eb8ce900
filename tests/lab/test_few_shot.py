"""Episodes draw classes once, and nobody is tested on what was learned from."""

import numpy as np
import pytest

from trainplan import PlanError
from trainplan.lab import episodes, few_shot_accuracy


def test_episodes_are_drawn_fairly_and_again_alike():
    labels = np.repeat(np.arange(7), [6, 7, 8, 9, 10, 11, 12])
    first = list(episodes(labels, 3, 5, 200, seed=1))
    seen = np.zeros(7)
    for learn, test in first:
        classes, sizes = np.unique(labels[learn], return_counts=True)
        assert sizes.tolist() == [5, 5, 5]
        assert not set(learn) & set(test)
        assert set(learn) | set(test) == set(np.flatnonzero(np.isin(labels, classes)))
        seen[classes] += 1
    assert seen.min() > 60
    again = list(episodes(labels, 3, 5, 200, seed=1))
    assert all((a == b).all() for x, y in zip(first, again, strict=True) for a, b in zip(x, y))  # noqa: B905


def test_features_without_a_signal_are_at_chance():
    pytest.importorskip("sklearn")
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 20)
    noise = random.normal(size=(120, 4))
    chance = few_shot_accuracy(noise, labels, 4, 5, 30)
    assert chance.low < 0.25 < chance.high
    signal = noise + 4 * np.eye(6)[labels] @ random.normal(size=(6, 4))
    assert few_shot_accuracy(signal, labels, 4, 5, 10).low > 0.8


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: list(episodes([0, 0, 1, 1], 3, 1)), "ways"),
        (lambda: list(episodes([0, 0, 1, 1], 2, 2)), "shots"),
        (lambda: few_shot_accuracy(np.ones((3, 2)), [0, 0, 1, 1], 2, 1), "features"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
