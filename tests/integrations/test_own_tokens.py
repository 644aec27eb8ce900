"""Transformers' Trainer mixes own tokens in rounds, and a resumed run sees the same contexts."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import with_own_tokens as example  # noqa: E402

import trainplan as tp  # noqa: E402


def same(a, b):
    pairs = zip(a.model.parameters(), b.model.parameters(), strict=True)
    return all(torch.equal(p, q) for p, q in pairs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, example.fit(folder)


@pytest.mark.parametrize("at", [6, 8])
def test_a_resumed_run_is_the_run_that_was_never_interrupted(whole, tmp_path, at):
    folder, trainer = whole
    resumed = example.fit(tmp_path, resume=folder / f"checkpoint-{at}")
    assert same(trainer, resumed)


def test_a_share_of_nothing_is_plain_fine_tuning(whole, tmp_path, monkeypatch):
    nothing = example.fit(tmp_path / "nothing", share=0.0)
    assert not same(nothing, whole[1])
    monkeypatch.setattr(tp.transformers, "mix_own_tokens", lambda trainer, mixer: mixer)
    assert same(nothing, example.fit(tmp_path / "plain"))


def test_accumulated_batches_belong_to_one_update(tmp_path):
    seen = []
    mix = tp.data.SelfTokenMixer.mix

    def spy(mixer, model, batch, step):
        seen.append(step)
        return mix(mixer, model, batch, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tp.data.SelfTokenMixer, "mix", spy)
        example.fit(tmp_path, gradient_accumulation_steps=2)
    # Three updates of two batches in an epoch: its end cuts the rounds of four.
    assert seen == [0] * 6 + [3] * 2 + [4] * 4 + [6] * 4 + [8] * 2 + [9] * 6


def test_a_trainer_mixes_once(tmp_path):
    trainer = example.fit(tmp_path)
    with pytest.raises(tp.PlanError, match="already"):
        tp.transformers.mix_own_tokens(trainer, tp.data.SelfTokenMixer(0.5))
