"""TRL and PEFT run the stages: each from the last one's model, its own reference, and resumed."""

import os
import warnings

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("trl")
pytest.importorskip("peft")

import with_preferences as example  # noqa: E402

import trainplan as tp  # noqa: E402


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(example, "FACTORS", (8, 2))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(threads)


class Watch(transformers.TrainerCallback):
    """Notes rates and how far the reference is; may stop like a machine that fails."""

    def __init__(self, fail_at=None, end_at=None):
        self.seen, self.fail_at, self.end_at = [], fail_at, end_at

    def on_log(self, args, state, control, logs, **kwargs):
        if "plan/lr" in logs:
            self.seen.append((logs["plan/lr"], logs.get("rewards/margins")))
        if len(self.seen) == self.fail_at:
            raise KeyboardInterrupt
        control.should_training_stop = len(self.seen) == self.end_at


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(example, "FACTORS", (8, 2))
        folder, watch = tmp_path_factory.mktemp("whole"), Watch()
        return folder, watch, example.train(folder, [watch])


def test_every_stage_begins_at_its_own_reference_and_keeps_the_rates(whole):
    _, watch, model = whole
    schedule = tp.data.ProgressivePreferenceSchedule(
        {8: 24, 2: 24}, (8, 2), sft=8, batch_size=8, peak_lr=0.01, sft_lr=0.01
    )
    rates, margins = zip(*watch.seen, strict=True)
    assert list(rates) == [schedule.lr_at(t) for t in range(schedule.steps)]
    # With the original as the reference, the second stage would begin with some margin.
    assert [margin == 0 for margin in margins[:6]] == [True, False, False] * 2
    assert not same(model, example.model())
    assert not hasattr(model, "peft_config")


def test_a_run_that_broke_goes_on_as_if_it_had_not(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        example.train(tmp_path, [Watch(fail_at=3)])
    assert same(example.train(tmp_path), whole[2])


def test_a_stopped_stage_is_not_taken_for_a_finished_one(whole, tmp_path):
    assert example.train(tmp_path, [Watch(end_at=4)]) is None
    assert (tmp_path / "r8" / "model").exists()
    assert not (tmp_path / "r2" / "model").exists()
    assert same(example.train(tmp_path), whole[2])


def test_a_reference_that_stays_is_the_first_model(monkeypatch, tmp_path):
    stages = []
    run = tp.trl.train_stages

    def noted(schedule, model, make_trainer, folder):
        def make(stage):
            stages.append((stage.model, stage.reference))
            return make_trainer(stage)

        return run(schedule, model, make, folder)

    monkeypatch.setattr(tp.trl, "train_stages", noted)
    assert example.train(tmp_path, [Watch(end_at=4)], refresh_reference=False) is None
    (_, first), (second, kept) = stages
    assert same(kept, first)
    assert same(kept, example.model())
    merged = type(second).from_pretrained(tmp_path / "r8" / "model")
    assert not same(kept, merged)


def test_updates_do_not_vanish_when_they_are_merged(monkeypatch, tmp_path):
    half = example.model().bfloat16()
    monkeypatch.setattr(example, "model", lambda: half)
    assert example.train(tmp_path, [Watch(end_at=4)]) is None
    merged = type(half).from_pretrained(tmp_path / "r8" / "model")
    update = merged.model.layers[0].mlp.up_proj.weight - half.model.layers[0].mlp.up_proj.weight
    assert update.dtype == torch.float32
    assert (update.abs() < 2**-9 * merged.model.layers[0].mlp.up_proj.weight.abs()).any()
    assert (update != 0).all()


def test_other_epochs_than_the_schedules_are_refused(tmp_path):
    schedule = tp.data.ProgressivePreferenceSchedule({2: 8}, (2,), batch_size=8, epochs=2)
    arguments = transformers.TrainingArguments(str(tmp_path), num_train_epochs=1, use_cpu=True)
    trainer = transformers.Trainer(example.model(), arguments)
    with pytest.raises(tp.PlanError, match="num_train_epochs"):
        tp.trl.train_stages(schedule, example.model(), lambda stage: trainer, tmp_path)
