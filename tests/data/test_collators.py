"""The collator masks at the rate of the step that uses a batch, in any trainer."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from trainplan import PlanError  # noqa: E402
from trainplan import schedules as s  # noqa: E402
from trainplan.data import WholeWordCollator, mask_rate  # noqa: E402

IGNORED = -100


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Sentences(torch.utils.data.Dataset):
    """Forty sentences of twenty words with one or three tokens each."""

    def __len__(self):
        return 40

    def __getitem__(self, i):
        random = np.random.default_rng(i)
        ids = random.integers(2, 50, size=40).tolist()
        words = [None, *np.repeat(np.arange(20), [1, 3] * 10).tolist()]
        return {"input_ids": [1, *ids], "word_ids": words}


def collator(rate=0.15, **settings):
    return WholeWordCollator(mask_token=50, pad_token=0, vocabulary=50, rate=rate, **settings)


def masked_share(batch):
    return float((batch["labels"] != IGNORED).float().sum() / (batch["attention_mask"].sum()))


def test_a_fixed_rate_masks_in_the_call_and_the_same_each_time():
    data = Sentences()
    collate = collator(0.5)
    batch, again = collate([data[0], data[1]]), collate([data[0], data[1]])
    assert (batch["input_ids"] == again["input_ids"]).all()
    assert masked_share(batch) == pytest.approx(0.5, abs=0.02)
    hidden = batch["labels"] != IGNORED
    original = torch.tensor([data[0]["input_ids"], data[1]["input_ids"]])
    assert (batch["labels"][hidden] == original[hidden]).all()
    assert (batch["input_ids"][~hidden] == original[~hidden]).all()


def test_padding_and_special_tokens_are_never_masked():
    batch = collator(1.0, multiple_of=8)(
        [
            {"input_ids": [1, 5, 6], "word_ids": [None, 0, 1]},
            {"input_ids": [1, 5], "word_ids": [-1, 0]},
        ]
    )
    assert batch["input_ids"].shape == (2, 8)
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 2]
    assert (batch["labels"] != IGNORED).sum(dim=1).tolist() == [2, 1]
    assert batch["labels"][0, 0] == IGNORED


@pytest.mark.parametrize("workers", [0, 2])
def test_the_rate_is_that_of_the_step_with_any_number_of_workers(workers):
    rate = s.linear(0.6, 0.1, duration=10)
    collate = collator(rate)
    loader = torch.utils.data.DataLoader(
        Sentences(), batch_size=4, collate_fn=collate, num_workers=workers
    )
    done = []
    for batch in collate.stream(loader, lambda: len(done)):
        assert masked_share(batch) == pytest.approx(rate(len(done)), abs=0.03)
        done.append(batch)
    assert len(done) == 10


def test_masks_depend_on_seed_step_and_batch_and_on_nothing_else():
    padded = collator(s.constant(0.3))([Sentences()[0]])
    first = collator(s.constant(0.3)).mask(padded, 7)["labels"]
    assert (first == collator(s.constant(0.3)).mask(padded, 7)["labels"]).all()
    assert (first != collator(s.constant(0.3)).mask(padded, 8)["labels"]).any()
    assert (first != collator(s.constant(0.3), seed=1).mask(padded, 7)["labels"]).any()


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (lambda: collator(mask_rate()), "rate"),
        (lambda: collator()([{"input_ids": [1]}]), "examples[0]['word_ids']"),
        (lambda: collator()([{"input_ids": [1], "word_ids": [0, 1]}]), "examples[0]['word_ids']"),
        (lambda: collator().mask(collator()([Sentences()[0]]), 0), "batch"),
    ],
)
def test_bad_input_is_named(call, place):
    with pytest.raises(PlanError) as caught:
        call()
    assert caught.value.place == place


def model():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=51, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    return transformers.BertForMaskedLM(config)


def trained(path, workers=0, stop=None, resume=None):
    """Train eight steps of two micro-batches, or a part of them; masked shares and weights."""
    transformers = pytest.importorskip("transformers")
    rate = s.linear(0.6, 0.1, duration=8)
    collate = collator(rate)
    arguments = transformers.TrainingArguments(
        output_dir=str(path), max_steps=8, per_device_train_batch_size=2,
        gradient_accumulation_steps=2, save_steps=4, report_to=[], disable_tqdm=True,
        remove_unused_columns=False, dataloader_num_workers=workers, use_cpu=True,
    )  # fmt: skip
    network, seen, evaluated = model(), [], []
    trainer = transformers.Trainer(
        network, arguments, data_collator=collate, train_dataset=Sentences(),
        eval_dataset=Sentences(),
    )  # fmt: skip
    collate.attach(trainer, evaluation_rate=0.2)
    loss = trainer.compute_loss

    def noting(module, batch, *args, **kwargs):
        where = seen if module.training else evaluated
        where.append((trainer.state.global_step, masked_share(batch)))
        return loss(module, batch, *args, **kwargs)

    trainer.compute_loss = noting
    if stop:

        class Stop(transformers.TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                control.should_training_stop = state.global_step == stop

        trainer.add_callback(Stop())  # fmt: skip
    trainer.train(resume_from_checkpoint=resume)
    if not stop:
        trainer.evaluate()
    return seen, evaluated, network.state_dict()


def test_a_trainer_masks_by_its_step_and_evaluates_at_one_rate(tmp_path):
    seen, evaluated, weights = trained(tmp_path / "a")
    rate = s.linear(0.6, 0.1, duration=8)
    assert [step for step, _ in seen] == [t for t in range(8) for _ in range(2)]
    assert all(share == pytest.approx(rate(step), abs=0.03) for step, share in seen)
    assert all(share == pytest.approx(0.2, abs=0.03) for _, share in evaluated)
    with_workers, _, same = trained(tmp_path / "b", workers=2)
    assert with_workers == seen
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_a_resumed_trainer_goes_on_as_if_it_had_not_stopped(tmp_path):
    seen, _, weights = trained(tmp_path / "a")
    trained(tmp_path / "b", stop=4)
    rest, _, same = trained(tmp_path / "b", resume=str(tmp_path / "b" / "checkpoint-4"))
    assert rest == seen[8:]
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_a_trainer_that_would_drop_the_words_is_refused(tmp_path):
    transformers = pytest.importorskip("transformers")
    collate = collator(s.constant(0.3))
    arguments = transformers.TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    trainer = transformers.Trainer(model(), arguments, data_collator=collate)
    with pytest.raises(PlanError, match="remove_unused_columns=False"):
        collate.attach(trainer)
    with pytest.raises(PlanError, match="another collator"):
        collator().attach(trainer)
