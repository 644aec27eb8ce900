"""A Transformers trainer fine-tunes within the model's ability, and resumes exactly."""

from __future__ import annotations

import os
import warnings

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    import with_ability as example

    folder = tmp_path_factory.mktemp("ability")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return example, folder, example.fit_model(folder)


def test_the_trainer_sees_more_as_the_ability_grows(whole):
    example, _, model = whole
    first, last = (
        {x for batch in part for x in batch} for part in (model.seen[:4], model.seen[-15:])
    )
    assert len(model.seen) == example.STEPS
    assert len(first) == 16
    assert len(last) > 40


@pytest.mark.parametrize("stop", [2, 17])
def test_an_interrupted_run_goes_on_with_the_same_examples(whole, tmp_path, stop):
    example, folder, model = whole
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = example.fit_model(tmp_path, resume=folder / f"checkpoint-{stop}")
    assert again.seen == model.seen[stop:]
    assert torch.equal(again.layer.weight, model.layer.weight)
