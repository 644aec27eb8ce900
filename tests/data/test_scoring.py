"""Scores of a whole data set are computed once, and an interrupted run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from trainplan import PlanError
from trainplan.data import length_scorer, score


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
    assert len(second.asked) == 3
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


def sums(rows):
    """What depends on the batch, so that other batches would give other scores."""
    return np.sin(np.asarray(rows)) * np.sum(rows) / 7


def fails_at_50(rows):
    if 50 in rows:
        raise ZeroDivisionError("fifty")
    return [float(row) for row in rows]


def dies_at_50(rows):
    if 50 in rows:
        os._exit(3)
    return [float(row) for row in rows]


def wrong_at_50(rows):
    return [0.0] if 50 in rows else [float(row) for row in rows]


def test_processes_give_the_same_bits_and_share_the_cache(tmp_path):
    data = list(range(103))
    alone = score(data, sums, batch_size=4, progress=False)
    shared = score(
        data, sums, batch_size=4, save_every=2, workers=2, cache=tmp_path, progress=False
    )
    assert shared.tobytes() == alone.tobytes()
    assert isinstance(shared, np.memmap)
    assert len(list(tmp_path.iterdir())) == 1
    texts = ["a b", "c", "d e f"] * 5
    scorer = length_scorer(tokenize=str.split)
    assert score(texts, scorer, workers=2, progress=False).tolist() == [2, 1, 3] * 5


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (fails_at_50, ZeroDivisionError, "fifty"),
        (wrong_at_50, PlanError, "one number per example"),
    ],
)
def test_an_error_in_a_process_is_raised_here_and_the_rest_is_kept(
    tmp_path, function, error, words
):
    data = list(range(100))
    options = {"batch_size": 5, "save_every": 2, "cache": tmp_path, "progress": False}
    with pytest.raises(error, match=words):
        score(data, function, workers=2, **options)
    # One process does only what is missing: the failed part, and what had not begun.
    asked = []

    def again(rows):
        asked.extend(rows)
        return [float(row) for row in rows]

    again.__module__, again.__qualname__ = function.__module__, function.__qualname__
    assert score(data, again, **options).tolist() == data
    assert set(range(50, 60)) <= set(asked)
    assert len(asked) < len(data)  # of the parts before, all but one had ended


def test_a_process_that_dies_is_named():
    with pytest.raises(PlanError, match="process that scored died"):
        score(list(range(60)), dies_at_50, batch_size=5, workers=2, progress=False)


def test_what_cannot_be_sent_to_a_process_is_named():
    with pytest.raises(PlanError, match="top level of a module"):
        score([1, 2], lambda rows: rows, workers=2, progress=False)


def test_an_unknown_engine_is_named():
    with pytest.raises(PlanError, match="engine: unknown"):
        score([1], len, engine="rays", progress=False)


SCRIPT = """
import os, sys, time
from pathlib import Path
from trainplan.data import score

def slow(rows):
    for row in rows:
        Path(os.environ["MARKS"], str(row)).touch()
    time.sleep(0.1)
    return [row * 2.0 for row in rows]

if __name__ == "__main__":
    score(list(range(200)), slow, batch_size=2, save_every=20, workers=2, cache=sys.argv[1],
          engine=sys.argv[2])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends an interrupt to a group of processes")
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_an_interrupt_loses_no_batch_that_was_begun(tmp_path, engine):
    if engine == "ray":
        pytest.importorskip("ray")
    script, marks, cache = tmp_path / "script.py", tmp_path / "marks", tmp_path / "cache"
    script.write_text(SCRIPT)
    marks.mkdir()
    run = subprocess.Popen(
        [sys.executable, script, cache, engine],
        env=os.environ | {"MARKS": str(marks)},
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while len(list(marks.iterdir())) < 12 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(30) != 0
    begun = {int(mark.name) for mark in marks.iterdir()}
    assert 12 <= len(begun) < 100
    asked = []

    def slow(rows):
        asked.extend(rows)
        return [row * 2.0 for row in rows]

    slow.__module__, slow.__qualname__ = "__main__", "slow"
    scores = score(list(range(200)), slow, batch_size=2, cache=cache, progress=False)
    assert scores.tolist() == [2.0 * i for i in range(200)]
    assert sorted([*begun, *asked]) == list(range(200))


def test_lengths_of_columns_and_tokens(tmp_path):
    rows = [{"a": "x y", "b": "z"}, {"a": "x", "b": "z z z"}]

    def tokenizer(text):
        return {"input_ids": text.split(), "attention_mask": [1]}

    for scorer, lengths in [
        (length_scorer("a"), [3, 1]),
        (length_scorer("b"), [1, 5]),
        (length_scorer("b", str.split), [1, 3]),
        (length_scorer("a", tokenizer), [2, 1]),
    ]:
        assert score(rows, scorer, cache=tmp_path, progress=False).tolist() == lengths


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_ray_gives_the_same_bits_and_raises_what_a_worker_raised(tmp_path):
    data = list(range(103))
    options = {"batch_size": 4, "save_every": 2, "progress": False}
    alone = score(data, sums, **options)
    shared = score(data, sums, workers=2, engine="ray", cache=tmp_path, **options)
    assert shared.tobytes() == alone.tobytes()
    with pytest.raises(ZeroDivisionError, match="fifty"):
        score(data, fails_at_50, workers=2, engine="ray", cache=tmp_path, **options)
    assert len(list(tmp_path.glob("*.done.json"))) == 1
    with pytest.raises(PlanError, match="one number per example"):
        score(data, wrong_at_50, workers=2, engine="ray", **options)
    with pytest.raises(PlanError, match="worker that scored died"):
        score(data, dies_at_50, workers=2, engine="ray", **options)
    with pytest.raises(PlanError, match="Give at most 2"):
        score(data, sums, workers=3, engine="ray", **options)
