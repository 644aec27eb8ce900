"""Transformers' Trainer trains a T5 in two passes, and a resumed run is the same run."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import with_numbers_as_tokens as example  # noqa: E402

from trainplan.data import TwoPassSampling  # noqa: E402
from trainplan.models import amount_loss  # noqa: E402


def same(a, b):
    pairs = zip(a.model.parameters(), b.model.parameters(), strict=True)
    return all(torch.equal(p, q) for p, q in pairs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, example.fit(folder)


def test_a_resumed_run_is_the_run_that_was_never_interrupted(whole, tmp_path):
    folder, trainer = whole
    assert same(trainer, example.fit(tmp_path, resume=folder / "checkpoint-7"))


def test_a_ratio_of_one_is_plain_teacher_forcing(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(example.NumberTrainer, "sampling", TwoPassSampling(1.0))
    taught = example.fit(tmp_path / "taught")
    assert not same(taught, whole[1])

    def plain(trainer, model, inputs, return_outputs=False, num_items_in_batch=None):
        ids = inputs["answer"]
        logits = model(input_ids=inputs["input_ids"], decoder_input_ids=ids[:, :-1]).logits
        loss = amount_loss(logits, ids[:, 1:], inputs["seconds"], example.values)
        return loss.total / len(ids)

    monkeypatch.setattr(example.NumberTrainer, "compute_loss", plain)
    assert same(taught, example.fit(tmp_path / "plain"))


def test_the_ratio_is_that_of_the_update(tmp_path, monkeypatch):
    seen = []
    inputs = TwoPassSampling.inputs

    def spy(sampling, first, ids, embedding, step):
        seen.append((step, round(sampling.ratio_at(step), 6)))
        return inputs(sampling, first, ids, embedding, step)

    monkeypatch.setattr(TwoPassSampling, "inputs", spy)
    example.fit(tmp_path, gradient_accumulation_steps=2)
    ratios = [round(0.05 ** (step / 9.6), 6) for step in range(12)]
    assert seen == [(step, ratios[step]) for step in range(12) for _ in range(2)]


def test_what_the_model_writes_are_numbers(whole):
    found = example.write(whole[1].model, example.features[:4])
    assert found.shape == (4,)
    assert (found >= 0).all()
