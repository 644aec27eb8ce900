"""TRL trains LoRA experts phase by phase, and Transformers the gate; both go on after a stop."""

import os
import warnings

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("trl")
pytest.importorskip("peft")
datasets = pytest.importorskip("datasets")

import with_phases as example  # noqa: E402

import trainplan as tp  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def small():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(example, "EXPERTS", ("cpp",))
        yield patch
    torch.set_num_threads(threads)


class Watch(transformers.TrainerCallback):
    """Notes rates, and whether the optimizer has a memory; may fail like a machine."""

    def __init__(self, fail_at=None):
        self.rates, self.fresh, self.fail_at = [], [], fail_at

    def on_step_begin(self, args, state, control, optimizer, **kwargs):
        self.fresh.append(not optimizer.state)

    def on_log(self, args, state, control, logs, **kwargs):
        if "plan/lr" in logs:
            self.rates.append(logs["plan/lr"])
        if len(self.rates) == self.fail_at:
            raise KeyboardInterrupt


def adapters(model):
    return {name: value for name, value in model.state_dict().items() if "lora" in name}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    watch = Watch()
    return watch, example.train_experts(tmp_path_factory.mktemp("whole"), [watch])


def test_rates_and_moments_are_those_of_the_phases(whole):
    watch, model = whole
    course = example.curriculum
    assert watch.rates == [course.lr_at(step) for step in range(course.steps)]
    begins = [step for step, fresh in enumerate(watch.fresh) if fresh]
    assert begins == course.starts
    assert not same(adapters(model), adapters(example.experts_of()))


def test_a_run_that_broke_goes_on_as_if_it_had_not(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        example.train_experts(tmp_path, [Watch(fail_at=8)])
    again = Watch()
    assert same(adapters(example.train_experts(tmp_path, [again])), adapters(whole[1]))
    assert len(again.fresh) == 5  # two phases had ended, and a step of the third
    ended = Watch()
    assert same(adapters(example.train_experts(tmp_path, [ended])), adapters(whole[1]))
    assert not ended.fresh


def test_the_gate_learns_alone_and_goes_on(small, tmp_path):
    small.setattr(example, "EXPERTS", ("cpp", "php"))
    model = example.experts_of()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    kept = {name: value.clone() for name, value in adapters(model).items()}

    torch.manual_seed(1)
    gated = example.train_gate(model, tmp_path, steps=4)
    weight = gated.gate.weight.detach().clone()
    assert same(adapters(model), kept)
    assert set(gated.state_dict()) == {"weight"}

    (tmp_path / "gate" / "checkpoint-4").rename(tmp_path / "last")
    resumed = example.train_gate(example_model(kept), tmp_path, steps=4)
    assert torch.equal(resumed.gate.weight, weight)
    small.setattr(example, "EXPERTS", ("cpp",))


def example_model(state):
    model = example.experts_of()
    model.load_state_dict(state, strict=False)
    return model


class Counting(torch.nn.Module):
    """Learns one number, and writes down the examples it is shown."""

    def __init__(self, seen):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = seen

    def forward(self, x, labels=None):
        self.seen.append(x.long().tolist())
        return {"loss": ((self.weight - x.float()) ** 2).mean(), "logits": x}


def test_one_trainer_runs_all_phases_and_goes_on(tmp_path):
    phases = [tp.data.Phase("a", 9e-3, 8, warmup=1), tp.data.Phase("b", 5e-3, 4, warmup=1)]
    data = datasets.Dataset.from_dict({"x": range(40), "labels": [0] * 40})
    seen = []

    def run(resume=None):
        seen.clear()
        course = tp.data.PhaseCurriculum(phases, {"a": 26, "b": 14})
        arguments = example.settings(tmp_path, 8) | {"max_steps": course.steps}
        trainer = transformers.Trainer(
            Counting(seen),
            transformers.TrainingArguments(**arguments),
            train_dataset=data,
            callbacks=[tp.transformers.PlanCallback(course.plan())],
        )
        tp.transformers.order_data(trainer, course)
        trainer.train(resume_from_checkpoint=resume)
        expected = [course.examples(t, 0, course.size(t)).tolist() for t in range(course.steps)]
        return trainer.model.weight.item(), expected

    weight, expected = run()
    assert seen == expected
    assert run(str(tmp_path / "checkpoint-4"))[0] == weight
    assert seen == expected[4:]
