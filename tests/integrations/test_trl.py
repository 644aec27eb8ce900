"""TRL's trainers follow a plan in the optimizer's knobs and in their own, also when resumed."""

import importlib.util
import os
import warnings
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
pytest.importorskip("datasets")
transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl")
pytest.importorskip("trl.trainer.grpo_trainer")

import trainplan as tp  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = load("with_trl")
STEPS = example.STEPS
PLANS = {"sft": example.sft_plan, "dpo": example.dpo_plan, "grpo": example.grpo_plan}


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums over two threads are not the same every time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    runs = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in PLANS:
            folder = tmp_path_factory.mktemp(kind)
            trainer = getattr(example, kind)(folder)
            trainer.train()
            runs[kind] = folder, trainer
    return runs


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def logged(trainer, name):
    return [row[name] for row in trainer.state.log_history if name in row]


@pytest.mark.parametrize("kind", PLANS)
def test_the_logged_values_are_the_plans(uninterrupted, kind):
    _, trainer = uninterrupted[kind]
    plan = PLANS[kind]
    assert logged(trainer, "learning_rate") == [plan.at(t)["lr"] for t in range(STEPS)]
    for name in set(plan) & {"weight_decay", "beta"}:
        assert logged(trainer, f"plan/{name}") == [plan.at(t)[name] for t in range(STEPS)]


@pytest.mark.parametrize("kind", PLANS)
@pytest.mark.parametrize("step", range(1, STEPS))
def test_resuming_at_any_step_changes_nothing(uninterrupted, tmp_path, kind, step):
    folder, trainer = uninterrupted[kind]
    resumed = getattr(example, kind)(tmp_path, save_strategy="no")
    resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
    assert same(resumed.model, trainer.model)
    for name in ("loss", "learning_rate", "reward", "plan/beta"):
        assert logged(resumed, name) == logged(trainer, name)


def test_supervised_tuning_equals_plain_pytorch(monkeypatch, tmp_path):
    monkeypatch.setattr(
        transformers.Trainer,
        "_get_train_sampler",
        lambda trainer, dataset=None: torch.utils.data.SequentialSampler(trainer.train_dataset),
    )
    # A large epsilon, or Adam would make much of how a gradient near zero is rounded.
    trainer = example.sft(tmp_path, 3, save_strategy="no", adam_epsilon=1e-3)
    trainer.train()
    model = example.model()
    names = set(trainer.get_decay_parameter_names(model))
    decayed = [p for n, p in model.named_parameters() if n in names]
    others = [p for n, p in model.named_parameters() if n not in names]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}], eps=1e-3, fused=True
    )
    tp.torch.attach(example.sft_plan, optimizer)
    loader = iter(trainer.get_train_dataloader())
    for _ in range(3):
        model(**next(loader), use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    for ours, plain in zip(trainer.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-7)


def test_rollouts_have_the_length_of_the_plan(uninterrupted):
    _, trainer = uninterrupted["grpo"]
    lengths = [int(example.grpo_plan.at(t)["max_completion_length"] + 0.5) for t in range(STEPS)]
    assert lengths == [2, 3, 4, 4, 5, 6, 7, 7]
    assert logged(trainer, "plan/max_completion_length") == lengths
    longest = logged(trainer, "completions/max_length")
    assert all(seen <= allowed for seen, allowed in zip(longest, lengths, strict=True))
    cut = logged(trainer, "completions/clipped_ratio")
    full = [i for i, share in enumerate(cut) if share > 0]
    assert len(full) > STEPS / 2
    assert [longest[i] for i in full] == [lengths[i] for i in full]


def test_rewards_are_weighted_by_the_plan(uninterrupted):
    _, trainer = uninterrupted["grpo"]
    words, short = (
        logged(trainer, f"rewards/{name}/mean") for name in ("speaks_of_w3", "is_short")
    )
    weights = [example.grpo_plan.at(t)["reward_weights"] for t in range(STEPS)]
    expected = [a * x + b * y for (a, b), x, y in zip(weights, words, short, strict=True)]
    assert logged(trainer, "reward") == pytest.approx(expected, rel=1e-5)
    assert weights[0][1] == 0
    assert weights[-1][1] > 0.4


def test_the_pull_to_the_reference_is_the_plans(uninterrupted, tmp_path):
    _, trainer = uninterrupted["dpo"]
    assert trainer.beta == example.dpo_plan.at(STEPS - 1)["beta"]
    fixed = example.dpo(tmp_path, plan=example.dpo_plan.replace(beta=0.1), save_strategy="no")
    fixed.train()
    # Rewards are beta times the same kind of log-ratio; equal at the first step, not later.
    assert logged(fixed, "loss")[0] == logged(trainer, "loss")[0]
    assert logged(fixed, "loss")[2] != logged(trainer, "loss")[2]


def test_clipping_and_label_smoothing_are_set(tmp_path):
    plan = example.grpo_plan.replace(horizon=2, epsilon_low=0.1, epsilon_high=0.3)
    trainer = example.grpo(tmp_path / "grpo", 2, plan, save_strategy="no")
    trainer.train()
    assert (trainer.epsilon_low, trainer.epsilon_high) == (0.1, 0.3)
    smoothed = tp.Plan(horizon=2, lr=0.01, label_smoothing=tp.schedules.linear(0.2, end=0.0))
    trainer = example.dpo(tmp_path / "dpo", 2, smoothed, save_strategy="no")
    trainer.train()
    assert trainer.label_smoothing == 0.1


def test_rloo_has_the_knobs_of_grpo(tmp_path):
    model = example.model()
    model.save_pretrained(tmp_path / "start")
    trainer = trl.RLOOTrainer(
        str(tmp_path / "start"),
        [example.speaks_of_w3, example.is_short],
        trl.RLOOConfig(
            str(tmp_path),
            beta=0.1,
            num_generations=2,
            **example.settings(3, save_strategy="no"),
        ),
        train_dataset=example.Dataset.from_dict({"prompt": ["w1 w2", "w7"] * 8}),
        processing_class=example.tokenizer(),
    )
    plan = example.grpo_plan.replace(horizon=3, epsilon_low=0.1, epsilon_high=0.3)
    tp.trl.attach(plan, trainer)
    trainer.train()
    last = plan.at(2)
    assert logged(trainer, "plan/max_completion_length") == [2, 4, 6]
    assert trainer.generation_config.max_new_tokens == 6
    assert trainer.reward_weights.tolist() == pytest.approx(list(last["reward_weights"]))
    assert (trainer.beta, trainer.epsilon_low) == (last["beta"], 0.1)


# What cannot change


@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        ("temperature", tp.schedules.linear(1.0, end=0.5), r"scored by another.*GRPOConfig"),
        ("num_generations", 4, "sampler"),
        ("reward_weights", (1.0, 1.0, 1.0), "takes 2 numbers"),
        ("reward_weights", 1.0, "takes 2 numbers"),
        ("beta", (0.1, 0.2), "takes one number"),
        ("loss_weights", (1.0,), "has no such knob"),
    ],
)
def test_a_knob_that_cannot_change_is_refused(tmp_path, knob, value, message):
    with pytest.raises(tp.PlanError, match=message):
        example.grpo(tmp_path, plan=tp.Plan(horizon=STEPS, lr=0.01, **{knob: value}))


def test_a_pull_to_no_reference_model_is_refused(tmp_path):
    with pytest.raises(tp.PlanError, match="no reference model"):
        example.grpo(tmp_path, beta=0.0)


def test_knobs_of_trl_without_its_trainer_are_pointed_out(tmp_path):
    plan = example.sft_plan.replace(beta=0.1)
    args = trl.DPOConfig(str(tmp_path), **example.settings(2))
    (finding,) = tp.transformers.check(plan, args)
    assert finding.place == "beta"
    assert "trainplan.trl.attach" in finding.remedy


# Blocks of updates that share completions


@pytest.mark.parametrize(
    ("options", "multiple"),
    [
        ({"save_steps": 3, "steps_per_generation": 2}, 2),
        ({"save_steps": 4, "steps_per_generation": 2}, None),
        ({"save_steps": 2, "steps_per_generation": 4, "gradient_accumulation_steps": 2}, None),
        ({"save_steps": 1, "steps_per_generation": 4, "gradient_accumulation_steps": 2}, 2),
        ({"save_steps": 2, "steps_per_generation": 1, "num_iterations": 3}, 3),
        ({"save_strategy": "no", "steps_per_generation": 2}, None),
    ],
)
def test_checkpoints_inside_a_block_are_pointed_out(tmp_path, options, multiple):
    args = trl.GRPOConfig(str(tmp_path), num_generations=2, **example.settings(4, **options))
    remedies = [finding.remedy for finding in tp.trl.check(args)]
    assert remedies == ([] if multiple is None else [f"Make save_steps a multiple of {multiple}"])


def test_resuming_between_blocks_changes_nothing_and_inside_one_it_does(tmp_path):
    options = {"steps_per_generation": 2, "learning_rate": 0.01}
    whole = example.grpo(tmp_path, **options)
    whole.train()
    assert logged(whole, "completions/max_length")[0] <= 2

    def resumed(step):
        trainer = example.grpo(tmp_path / str(step), save_strategy="no", **options)
        trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        return trainer

    assert same(resumed(4).model, whole.model)
    assert not same(resumed(3).model, whole.model)
