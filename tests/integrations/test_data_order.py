"""Real trainers see the computed order, and after an interruption the same examples as without."""

from __future__ import annotations

import os
import warnings

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
datasets = pytest.importorskip("datasets")
accelerate = pytest.importorskip("accelerate")

from torch.utils.data import DataLoader  # noqa: E402

import trainplan as tp  # noqa: E402

N = 50


@pytest.fixture(autouse=True)
def quiet():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(threads)


def orders():
    """Each kind of order, with the number of steps it runs."""
    hard = [(7 * i) % N for i in range(N)]
    return {
        "shuffle": (lambda: tp.data.Shuffle(N, 8, seed=1, epochs=3), 18),
        "curriculum": (
            lambda: tp.data.Curriculum(hard, tp.data.pacing("root", 0.2, "50%"), 8, steps=18),
            18,
        ),
        "mixture": (
            lambda: tp.data.Mixture(
                {"a": 20, "b": 30}, {"a": tp.schedules.linear(1.0, 0.2), "b": 0.5}, 8, steps=18
            ),
            18,
        ),
    }


def expected(kind):
    make, steps = orders()[kind]
    sampler = tp.data.BatchSampler(make(), ranks=1, rank=0)
    return [list(sampler.batch(i)) for i in range(steps)]


class Counting(torch.nn.Module):
    """Learns one number, and writes down the examples it is shown."""

    def __init__(self, seen):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = seen

    def forward(self, x, labels=None):
        self.seen.append(x.long().tolist())
        return {"loss": ((self.weight - x.float() / N) ** 2).mean(), "logits": x}


def trainer_of(folder, kind, seen, *, workers=0, accumulate=1, stop=None, **kwargs):
    make, steps = orders()[kind]
    size = 8 // accumulate
    epochs = {"num_train_epochs": 3} if kind == "shuffle" else {"max_steps": steps}
    args = transformers.TrainingArguments(
        folder,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulate,
        dataloader_num_workers=workers,
        save_steps=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **epochs | kwargs,
    )
    data = datasets.Dataset.from_dict({"x": list(range(N)), "labels": [0] * N})
    trainer = transformers.Trainer(Counting(seen), args, train_dataset=data)
    if stop is not None:
        trainer.add_callback(Stopping(stop))
    sampler = tp.transformers.order_data(trainer, make())
    return trainer, sampler


class Stopping(transformers.TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def joined(seen, accumulate):
    return [
        [x for batch in seen[i : i + accumulate] for x in batch]
        for i in range(0, len(seen), accumulate)
    ]


@pytest.mark.parametrize("kind", ["shuffle", "curriculum", "mixture"])
@pytest.mark.parametrize(("stop", "before", "after"), [(4, (0, 1), (2, 2)), (13, (2, 4), (0, 1))])
def test_transformers_resumes_exactly_with_other_workers(tmp_path, kind, stop, before, after):
    seen = []
    workers, accumulate = before
    trainer, _ = trainer_of(tmp_path, kind, seen, workers=workers, accumulate=accumulate, stop=stop)
    trainer.train()
    first = joined(seen, accumulate)
    again = []
    workers, accumulate = after
    trainer, _ = trainer_of(tmp_path, kind, again, workers=workers, accumulate=accumulate)
    trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{stop}"))
    assert first == expected(kind)[:stop]
    assert first + joined(again, accumulate) == expected(kind)


def test_transformers_mistakes_are_named(tmp_path):
    data = datasets.Dataset.from_dict({"x": list(range(N)), "labels": [0] * N})
    args = transformers.TrainingArguments(
        tmp_path, per_device_train_batch_size=8, max_steps=30, report_to=[], use_cpu=True
    )
    trainer = transformers.Trainer(Counting([]), args, train_dataset=data)
    cases = [
        (tp.data.Shuffle(N, 16, epochs=1), "global_batch=8"),
        (tp.data.Shuffle(N + 1, 8, epochs=1), "50 training examples"),
        (tp.data.Shuffle(N, 8), "needs to know their length"),
        (tp.data.Curriculum(range(N), 0.5, 8, steps=20), "max_steps=20"),
    ]
    for source, words in cases:
        with pytest.raises(tp.PlanError, match=words):
            tp.transformers.order_data(trainer, source)
    stream = transformers.Trainer(Counting([]), args, train_dataset=data.to_iterable_dataset())
    with pytest.raises(tp.PlanError, match="Streams"):
        tp.transformers.order_data(stream, tp.data.Shuffle(N, 8, epochs=1))


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return N

    def __getitem__(self, i):
        return i


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("kind", ["shuffle", "curriculum", "mixture"])
def test_accelerate_shares_a_global_order_out(kind, ranks):
    parts = []
    for rank in range(ranks):
        sampler = tp.data.BatchSampler(orders()[kind][0](), ranks=ranks, rank="all")
        loader = DataLoader(Numbers(), batch_sampler=sampler, num_workers=2 * (ranks == 2))
        loader = accelerate.data_loader.prepare_data_loader(
            loader, num_processes=ranks, process_index=rank, put_on_device=False
        )
        parts.append([batch.tolist() for batch in loader])
    steps = len(parts[0])
    merged = [[x for part in parts for x in part[t]] for t in range(steps)]
    assert merged == expected(kind)[:steps]
    assert steps == (6 if kind == "shuffle" else 18)


@pytest.mark.parametrize("skip", [1, 5])
def test_accelerate_skips_without_computing(skip):
    sampler = tp.data.BatchSampler(orders()["shuffle"][0](), ranks=2, rank="all")
    loader = accelerate.data_loader.prepare_data_loader(
        DataLoader(Numbers(), batch_sampler=sampler),
        num_processes=2,
        process_index=1,
        put_on_device=False,
    )
    sampler.seek(epoch=1)
    rest = accelerate.skip_first_batches(loader, skip)
    assert [batch.tolist() for batch in rest] == [
        step[4:] for step in expected("shuffle")[6 + skip : 12]
    ]
    with pytest.raises(tp.PlanError, match="up to 1 batches"):
        sampler.state_dict()


def test_a_sharded_sampler_is_not_sharded_twice():
    sampler = tp.data.BatchSampler(orders()["shuffle"][0](), ranks=2, rank=0)
    loader = accelerate.data_loader.prepare_data_loader(
        DataLoader(Numbers(), batch_sampler=sampler),
        num_processes=2,
        process_index=0,
        put_on_device=False,
    )
    with pytest.raises(tp.PlanError, match="rank='all'"):
        next(iter(loader))


def recorded(trainer, seen):
    """Write down which example each row of a batch is, by its first token."""
    collate = trainer.data_collator

    def collate_and_note(rows):
        key = next(k for k in ("input_ids", "prompt_ids", "prompt_input_ids") if k in rows[0])
        seen.append([int(row[key][0]) * 24 + int(row[key][1]) for row in rows])
        return collate(rows)

    trainer.data_collator = collate_and_note


def trl_trainer(kind, folder, seen, stop=None):
    example = pytest.importorskip("with_trl")
    texts = [f"w{i // 24} w{i % 24}" for i in range(40)]
    common = example.settings(12, save_steps=4)
    if kind == "sft":
        trainer = example.SFTTrainer(
            example.model(),
            example.SFTConfig(str(folder), max_length=16, **common),
            train_dataset=datasets.Dataset.from_dict({"text": texts}),
            processing_class=example.tokenizer(),
        )
    else:
        rows = {"prompt": texts, "chosen": [" w3 w4"] * 40, "rejected": [" w5"] * 40}
        trainer = example.DPOTrainer(
            example.model(),
            example.model(),
            example.DPOConfig(str(folder), **common),
            train_dataset=datasets.Dataset.from_dict(rows),
            processing_class=example.tokenizer(),
        )
    recorded(trainer, seen)
    if stop is not None:
        trainer.add_callback(Stopping(stop))
    hard = [(7 * i) % 40 for i in range(40)]
    course = tp.data.Curriculum(hard, tp.data.pacing("linear", 0.2, "50%"), 4, steps=12)
    tp.trl.order_data(trainer, course)
    return trainer, course


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_trl_trainers_follow_a_curriculum_and_resume(tmp_path, kind):
    pytest.importorskip("trl")
    seen, again = [], []
    trainer, course = trl_trainer(kind, tmp_path, seen, stop=4)
    trainer.train()
    trainer, _ = trl_trainer(kind, tmp_path, again)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    sampler = tp.data.BatchSampler(course, ranks=1, rank=0)
    told = [list(sampler.batch(i)) for i in range(12)]
    # The first three tokens of the vocabulary are not words.
    numbers = [[3 * 24 + 3 + i for i in batch] for batch in told]
    # A loader of Accelerate reads one batch ahead of an interruption.
    assert seen[:4] + again[len(again) - 8 :] == numbers


PROMPTS = [f"w{i // 24} w{i % 24}" for i in range(40)]


def rollout_trainer(kind, folder, asked, order, steps=6, stop=None, hear=None, **options):
    """Writes down which prompts it generates for."""
    trl = pytest.importorskip("trl")
    example = pytest.importorskip("with_trl")

    def reward(prompts, completion_ids, trainer_state, **kwargs):
        asked.append([PROMPTS.index(prompt) for prompt in prompts])
        if hear is not None:
            hear(asked[-1], [(prompt % 5) / 4 for prompt in asked[-1]], trainer_state)
        return [float(len(ids)) for ids in completion_ids]

    sizes = {"num_generations": 2, "max_completion_length": 2, "beta": 0.0}
    trainer = getattr(trl, f"{kind}Trainer")(
        example.model(),
        reward,
        getattr(trl, f"{kind}Config")(str(folder), **sizes | example.settings(steps, **options)),
        train_dataset=datasets.Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=example.tokenizer(),
    )
    if stop is not None:
        trainer.add_callback(Stopping(stop))
    tp.trl.order_data(trainer, order)
    return trainer


def prompts_of(order, generations):
    return [
        [prompt for prompt in order.examples(g, 0, order.global_batch).tolist() for _ in range(2)]
        for g in generations
    ]


def rising(steps, size):
    hard = [(7 * i) % 40 for i in range(40)]
    return tp.data.Curriculum(hard, tp.data.pacing("linear", 0.2, "50%"), size, steps=steps)


@pytest.mark.parametrize("kind", ["GRPO", "RLOO"])
@pytest.mark.parametrize(
    ("accumulate", "reuse", "iterations", "stop"), [(2, 2, 1, 3), (1, 2, 1, 3), (2, 1, 2, 2)]
)
def test_rollouts_follow_a_curriculum_and_resume(
    tmp_path, kind, accumulate, reuse, iterations, stop
):
    options = {
        "gradient_accumulation_steps": accumulate,
        "steps_per_generation": reuse,
        "num_iterations": iterations,
    }
    generations = 6 * accumulate // (reuse * iterations)
    order = rising(generations, 4 * reuse // 2)
    asked, again = [], []
    rollout_trainer(kind, tmp_path, asked, order, stop=stop, **options).train()
    rollout_trainer(kind, tmp_path, again, order, **options).train(
        resume_from_checkpoint=str(tmp_path / f"checkpoint-{stop}")
    )
    begun, inside = divmod(stop * accumulate, reuse * iterations)
    assert asked == prompts_of(order, range(begun + (inside > 0)))
    # Inside a block, completions are made again from the block's prompts.
    assert again == prompts_of(order, range(begun, generations))


def test_rollouts_have_epochs_with_a_short_last_step(tmp_path):
    options = {"steps_per_generation": 1, "gradient_accumulation_steps": 4, "save_steps": 1}
    sizes = {"num_train_epochs": 2, "per_device_train_batch_size": 16}
    order = tp.data.Shuffle(40, 8, seed=3, epochs=2)
    asked, again = [], []
    rollout_trainer("GRPO", tmp_path, asked, order, -1, stop=3, **options, **sizes).train()
    trainer = rollout_trainer("GRPO", tmp_path, again, order, -1, **options, **sizes)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    # Five generations in an epoch: a step of four, and one of one.
    assert trainer.state.global_step == 4
    assert asked + again == prompts_of(order, range(10))


def test_mistakes_with_rollouts_are_named(tmp_path):
    with pytest.raises(tp.PlanError, match="Give global_batch=2"):
        rollout_trainer("GRPO", tmp_path, [], rising(6, 4))
    with pytest.raises(tp.PlanError, match="max_steps=3"):
        rollout_trainer("GRPO", tmp_path, [], rising(3, 2))
    with pytest.raises(tp.PlanError, match="tail='drop'"):
        rollout_trainer(
            "GRPO",
            tmp_path,
            [],
            tp.data.Shuffle(40, 3, epochs=3, tail="short"),
            per_device_train_batch_size=6,
        )


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_layout_is_that_of_trl(ranks):
    utils = pytest.importorskip("trl.trainer.utils")
    from trainplan.data.repeated import Repeated

    order = rising(5, 6)
    told = [i for step in range(5) for i in order.examples(step, 0, 6).tolist()]
    theirs = utils.RepeatSampler(
        told, mini_repeat_count=4, batch_size=6, repeat_count=3, shuffle=False
    )
    ours = tp.data.BatchSampler(Repeated(order, copies=4, uses=3), ranks=ranks, rank="all")
    assert [i for batch in ours for i in batch] == [told[place] for place in theirs]


class Sees:
    """A module of Lightning that writes down the examples it is shown."""

    def __new__(cls, seen):
        lightning = pytest.importorskip("lightning")

        class Module(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.zeros(()))

            def training_step(self, batch, index):
                seen.append(batch.tolist())
                return ((self.weight - batch.float()) ** 2).mean()

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.01)

        return Module()


@pytest.mark.parametrize("kind", ["shuffle", "curriculum", "mixture"])
@pytest.mark.parametrize(("stop", "workers"), [(4, 0), (9, 2)])
def test_lightning_resumes_exactly(tmp_path, kind, stop, workers):
    lightning = pytest.importorskip("lightning")
    loaders = pytest.importorskip("torchdata.stateful_dataloader")
    from lightning.pytorch.callbacks import ModelCheckpoint

    def fit(seen, steps, resume=None):
        sampler = tp.data.BatchSampler(orders()[kind][0](), ranks=1, rank=0)
        loader = loaders.StatefulDataLoader(Numbers(), batch_sampler=sampler, num_workers=workers)
        keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = lightning.Trainer(
            max_steps=steps,
            callbacks=[keep],
            logger=False,
            accelerator="cpu",
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Sees(seen), loader, ckpt_path=resume, weights_only=True)

    seen, again = [], []
    fit(seen, stop)
    fit(again, 18, resume=tmp_path / f"step={stop}.ckpt")
    assert seen + again == expected(kind)


def test_the_example_of_the_pages_resumes_exactly(tmp_path):
    import with_data_order as example

    whole = example.fit(tmp_path / "whole")
    again = example.fit(tmp_path / "again", resume=tmp_path / "whole" / "checkpoint-5")
    assert all(
        torch.equal(p, q) for p, q in zip(whole.parameters(), again.parameters(), strict=True)
    )


class Ability:
    """Opens more the better the mean reward."""

    def __init__(self):
        self.level = 0.3

    def value(self, t):
        return self.level

    def observe(self, t, **signals):
        self.level = min(1.0, self.level + 0.1 * signals["reward"].means.mean())

    def state_dict(self):
        return {"level": self.level}

    def load_state_dict(self, state):
        self.level = state["level"]


def rewarded(folder, asked, stop=None):
    """Each generation's rewards are heard, and open more prompts."""
    order = tp.data.Curriculum(
        range(40), tp.data.Feedback(Ability(), 1, keys=40), 2, steps=8, within="draw"
    )

    def hear(indices, rewards, state):
        order.pacing.observe(state.global_step, reward=(indices, rewards))

    rows = {"gradient_accumulation_steps": 2, "steps_per_generation": 2, "save_steps": 1}
    rows["per_device_train_batch_size"] = 2
    return rollout_trainer("GRPO", folder, asked, order, 8, stop, hear, **rows)


def test_prompts_follow_the_rewards_and_resume(tmp_path):
    whole, seen, again = [], [], []
    rewarded(tmp_path / "whole", whole).train()
    rewarded(tmp_path / "part", seen, 5).train()
    rewarded(tmp_path / "part", again).train(
        resume_from_checkpoint=str(tmp_path / "part" / "checkpoint-5")
    )
    assert seen + again == whole
    assert max(whole[0]) < 12 < max(prompt for batch in whole for prompt in batch)
    with pytest.raises(tp.PlanError, match="whole generations"):
        rollout_trainer(
            "GRPO",
            tmp_path,
            [],
            tp.data.Curriculum(range(40), tp.data.Feedback(Ability(), 1, keys=40), 4, steps=8),
            gradient_accumulation_steps=1,
            steps_per_generation=2,
        )


class Reports(transformers.TrainerCallback):
    """Rewards the examples of the step that has ended."""

    def __init__(self, source, seen):
        self.source = source
        self.seen = seen

    def on_step_end(self, args, state, control, **kwargs):
        examples = self.seen[-1]
        rewards = [(x % 5) / 4 for x in examples]
        self.source.pacing.observe(state.global_step - 1, reward=(examples, rewards))


def listening(folder, seen, stop=None):
    source = tp.data.Curriculum(
        range(N), tp.data.Feedback(Ability(), 1, keys=N), 8, steps=12, within="draw"
    )
    args = transformers.TrainingArguments(
        folder,
        per_device_train_batch_size=8,
        max_steps=12,
        save_steps=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    data = datasets.Dataset.from_dict({"x": list(range(N)), "labels": [0] * N})
    callbacks = [Reports(source, seen), *([Stopping(stop)] if stop else [])]
    trainer = transformers.Trainer(Counting(seen), args, train_dataset=data, callbacks=callbacks)
    tp.transformers.order_data(trainer, source)
    return trainer


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_an_order_that_listens_resumes_exactly_in_a_trainer(tmp_path, stop):
    whole, seen, again = [], [], []
    listening(tmp_path / "whole", whole).train()
    assert len(whole) == 12
    listening(tmp_path / "part", seen, stop).train()
    rest = listening(tmp_path / "part", again)
    rest.train(resume_from_checkpoint=str(tmp_path / "part" / f"checkpoint-{stop}"))
    assert seen + again == whole


def test_a_trainer_refuses_a_checkpoint_of_another_order(tmp_path):
    trainer, _ = trainer_of(tmp_path, "curriculum", [], stop=2)
    trainer.train()
    other, _ = trainer_of(tmp_path, "mixture", [])
    with pytest.raises(tp.PlanError, match="state is of another order"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
