"""Scores of a whole data set are computed once, and an interrupted run goes on."""

from __future__ import annotations

import numpy as np
import pytest

from trainplan import PlanError
from trainplan.data import score


class Scorer:
    """Counts what it was asked, and may break off."""

    __qualname__ = "Scorer"

    def __init__(self, fail_after=None):
        self.asked = []
        self.fail_after = fail_after

    def __call__(self, rows):
        if len(self.asked) == self.fail_after:
            raise KeyboardInterrupt
        self.asked.append(list(rows))
        return [row * 2.0 for row in rows]


def test_every_example_is_scored_once():
    scorer = Scorer()
    assert score(list(range(10)), scorer, batch_size=4, progress=False).tolist() == list(
        range(0, 20, 2)
    )
    assert [len(rows) for rows in scorer.asked] == [4, 4, 2]


def test_an_interrupted_run_goes_on_and_a_finished_one_is_kept(tmp_path):
    data = list(range(100))
    with pytest.raises(KeyboardInterrupt):
        score(data, Scorer(7), batch_size=10, cache=tmp_path, save_every=2, progress=False)
    second = Scorer()
    scores = score(data, second, batch_size=10, cache=tmp_path, save_every=2, progress=False)
    assert scores.tolist() == [2.0 * i for i in data]
    assert len(second.asked) == 4
    third = Scorer()
    again = score(data, third, cache=tmp_path, progress=False)
    assert third.asked == []
    assert isinstance(again, np.memmap)
    assert len(list(tmp_path.iterdir())) == 1


def test_other_data_or_another_key_is_scored_anew(tmp_path):
    scorer = Scorer()
    for data, key in [([1, 2], ""), ([1, 3], ""), ([1, 2], "other model")]:
        score(data, scorer, cache=tmp_path, key=key, progress=False)
    assert len(scorer.asked) == 3


def test_hugging_face_data_come_as_columns(tmp_path):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": ["a", "abc", "ab"]})

    def lengths(rows):
        return [len(text) for text in rows["text"]]

    assert score(data, lengths, batch_size=2, cache=tmp_path).tolist() == [1, 3, 2]


def test_a_language_models_loss_is_a_score():
    torch = pytest.importorskip("torch")
    from types import SimpleNamespace

    from trainplan.data import loss_scorer

    class Copies(torch.nn.Module):
        """Sure that each token follows itself."""

        def __init__(self):
            super().__init__()
            self.table = torch.nn.Parameter(torch.eye(5) * 50)

        def forward(self, input_ids):
            return SimpleNamespace(logits=self.table[input_ids])

    def collate(rows):
        ids = torch.tensor([row["ids"] for row in rows])
        return {"input_ids": ids, "labels": ids}

    data = [{"ids": [1, 1, 1]}, {"ids": [1, 2, 1]}, {"ids": [3, 3, 4]}]
    losses = score(data, loss_scorer(Copies(), collate), progress=False)
    assert losses == pytest.approx([0, 50, 25], abs=1e-3)


def test_a_function_must_return_one_number_per_example():
    with pytest.raises(PlanError, match="one number per example"):
        score([1, 2], lambda rows: [1.0], progress=False)
