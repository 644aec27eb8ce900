"""Own tokens stand in contexts and never in targets; rounds, states and errors."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import trainplan as tp  # noqa: E402
from trainplan.data import (  # noqa: E402
    CorrectionBuilder,
    SelfTokenMixer,
    answer_example,
    continue_prompts,
    exposure_gap,
    own_tokens,
    teacher_forcing,
)
from trainplan.data.corrections import padded  # noqa: E402
from trainplan.data.free_running import Prefix, frozen  # noqa: E402
from trainplan.errors import PlanError  # noqa: E402

V, END = 7, 6


def bigram(seed=0):
    table = torch.randn(V, V, generator=torch.Generator().manual_seed(seed))
    return lambda ids: table[ids]


def batch(rows=6, length=5, seed=0):
    random = np.random.default_rng(seed)
    examples = [
        answer_example(random.integers(6, size=2), random.integers(6, size=n), END)
        for n in random.integers(1, length, size=rows)
    ]
    return padded(examples, pad=0)


class Tiny(torch.nn.Module):
    """A causal model with positions, so that a prefix matters; no cache."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.embed = torch.nn.Embedding(V, 8)
        self.drop = torch.nn.Dropout(0.5)
        self.rnn = torch.nn.GRU(8, 8, batch_first=True)
        self.head = torch.nn.Linear(8, V)

    def forward(self, ids):
        return self.head(self.drop(self.rnn(self.embed(ids))[0]))


# Contexts


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.sampled_from(["mixed", "teacher", "free"]), st.floats(0, 1))
def test_only_answers_change_and_labels_stay(seed, mode, share):
    true = batch(seed=seed)
    mixer = SelfTokenMixer(share, mode=mode, clean_fraction=0.0, eos=END, seed=seed)
    mixed = mixer.mix(bigram(seed), true, step=seed)
    assert torch.equal(mixed["labels"], true["labels"])
    changed = mixed["input_ids"] != true["input_ids"]
    may = (true["labels"] != -100) & (true["input_ids"] != END)
    assert not bool((changed & ~may).any())
    again = mixer.mix(bigram(seed), true, step=seed)
    assert torch.equal(mixed["input_ids"], again["input_ids"])


def test_each_mode_conditions_on_what_it_says():
    ids = torch.tensor([[0, 1, 2, 3, 4, 5]])
    answer, model = torch.arange(6)[None] > 1, Tiny().eval()
    u = torch.tensor([[1.0, 1.0, 0.1, 0.9, 0.1, 0.1]])

    def after(prefix):
        return model(torch.tensor([prefix]))[0, -1].argmax().item()

    with torch.no_grad():
        mixed, own = own_tokens(model, ids, answer, u, 0.5)
        for t in range(2, 6):
            assert own[0, t] == after(mixed[0, :t].tolist())
            assert mixed[0, t] == (own if u[0, t] < 0.5 else ids)[0, t]
        taught, own = own_tokens(model, ids, answer, u, 0.5, mode="teacher")
        assert own[0, 2:].tolist() == [after(ids[0, :t].tolist()) for t in range(2, 6)]
        assert taught[0, 3] == ids[0, 3]
        _, own = own_tokens(model, ids, answer, u, 0.5, mode="free")
        for t in range(2, 6):
            assert own[0, t] == after(own[0, :t].tolist())


def test_an_answer_that_has_ended_leaves_the_rest_true():
    after = torch.eye(V)[[1, END, 3, 4, 5, 0, 0]]  # 0, 1, end
    ids, answer = torch.tensor([[0, 4, 4, 4]]), torch.arange(4)[None] > 0
    mixed, _ = own_tokens(
        lambda ids: after[ids], ids, answer, torch.zeros(1, 4), 1.0, mode="free", eos=END
    )
    assert mixed.tolist() == [[0, 1, 4, 4]]


def test_a_cache_changes_nothing():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": V}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=END)
    model = transformers.GPT2LMHeadModel(config).eval()
    true = batch(rows=4, length=8)
    ids, answer = true["input_ids"], true["labels"] != -100
    u = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        cached, _ = own_tokens(model, ids, answer, u, 0.7, mask=true["attention_mask"])
        plain, _ = own_tokens(lambda ids: model(ids).logits, ids, answer, u, 0.7)
    assert Prefix(model)._cache
    assert torch.equal(cached, plain)
    assert not torch.equal(cached, ids)


def test_the_share_and_the_clean_fraction_are_kept():
    true = padded([answer_example([0], [1] * 400, END) for _ in range(10)], pad=0)
    after = torch.eye(V)[[2] * V]  # own tokens are never the true ones
    mixer = SelfTokenMixer(0.3, clean_fraction=0.5, eos=END)
    changed = mixer.mix(lambda ids: after[ids], true, 0)["input_ids"] != true["input_ids"]
    rows = changed[:, 1:-1].double().mean(1)
    assert int((rows == 0).sum()) == 5
    assert rows[rows > 0].mean().item() == pytest.approx(0.3, abs=0.04)


def test_drawn_tokens_follow_the_models_shares():
    scores = torch.log(torch.tensor([0.5, 0.25, 0.25]))
    true = padded([answer_example([0], [1] * 2000, 9)], pad=0)
    mixer = SelfTokenMixer(1.0, temperature=1.0, clean_fraction=0.0, mode="teacher", eos=9)
    mixed = mixer.mix(lambda ids: scores.expand(*ids.shape, 3), true, 0)["input_ids"][0, 1:-1]
    shares = torch.bincount(mixed, minlength=3) / len(mixed)
    assert torch.allclose(shares, scores.exp(), atol=0.05)


def test_a_model_is_left_as_it_was():
    model = Tiny().train()
    model.drop.eval()
    state = torch.get_rng_state()
    with frozen(model):
        assert not model.training
        assert not torch.is_grad_enabled()
    SelfTokenMixer(1.0, temperature=1.0, eos=END).mix(model, batch(), 0)
    assert model.training
    assert not model.drop.training
    assert torch.equal(state, torch.get_rng_state())


# Rounds


def test_a_round_is_mixed_with_one_model_and_a_resumed_one_is_the_same():
    batches = [batch(seed=k) for k in range(12)]
    share = tp.schedules.linear(0.0, end=1.0, duration=8)

    def run(updates, state=None):
        mixer, models = SelfTokenMixer(share, 4, clean_fraction=0.0, eos=END), {"seed": 0}
        if state is not None:
            mixer.load_state_dict(state)
        seen, source = [], iter(batches[2 * updates.start :])
        for step in updates:
            models["seed"] = step  # the model changes with every update
            table = bigram(step)
            stream = mixer.stream(source, table, lambda step=step: step, per_update=2)
            seen += [next(stream)["input_ids"], next(stream)["input_ids"]]
        return seen, mixer.state_dict()

    whole, _ = run(range(6))
    for k in range(4):  # the share of the first round is 0
        assert torch.equal(whole[k], batches[k]["input_ids"])
    fixed = SelfTokenMixer(0.5, 4, clean_fraction=0.0, eos=END)
    for k in range(8, 12):
        assert torch.equal(whole[k], fixed.mix(bigram(4), batches[k], 4)["input_ids"])
    for stop in range(1, 6):
        begun, state = run(range(stop))
        rest, _ = run(range(stop, 6), state)
        assert all(torch.equal(a, b) for a, b in zip(begun + rest, whole, strict=True))


def test_another_batch_than_the_saved_one_is_refused():
    mixer = SelfTokenMixer(1.0, 4, eos=END)
    next(mixer.stream([batch(seed=k) for k in range(4)], bigram(), lambda: 0))
    other = SelfTokenMixer(1.0, 4, eos=END)
    other.load_state_dict(mixer.state_dict())
    with pytest.raises(PlanError, match="not the one"):
        next(other.stream([batch(seed=9)], bigram(), lambda: 1))
    with pytest.raises(PlanError, match="not the state"):
        other.load_state_dict({"round": 1})


# Corrections


def test_right_answers_become_plain_examples_and_lengths_are_bounded():
    after = torch.eye(V)[[1, 2, 3, 4, 5, END, 0]]
    prompts, answers = [[0], [0], [3, 4]], [[1], [1, 2, 3, 4, 5], [5]]
    builder = CorrectionBuilder([0], END, rac_fraction=1.0, keep_correct=0.0)
    own = builder.answer(lambda ids: after[ids], prompts, [1, 5, 1])
    assert own == [[1, 2], [1, 2, 3, 4, 5], [5]]
    made = builder.build(lambda ids: after[ids], prompts, answers)
    assert made[0]["input_ids"] == [0, 1, 2, 0, 1, END]
    assert made[1:] == [
        answer_example(p, a, END) for p, a in zip(prompts[1:], answers[1:], strict=True)
    ]
    kept = CorrectionBuilder([0], END, rac_fraction=1.0, keep_correct=1.0)
    assert len(kept.build(lambda ids: after[ids], prompts, answers)[1]["input_ids"]) == 13
    plain = CorrectionBuilder([0], END, rac_fraction=0.0)
    none = plain.build(lambda ids: after[ids], prompts, answers)
    assert none == [answer_example(p, a, END) for p, a in zip(prompts, answers, strict=True)]
    assert builder.second_prompt([1], [2]) == [1, 2, 0]


# Schedules and gaps


@given(st.sampled_from(["linear", "exponential", "inverse_sigmoid"]), st.floats(0.01, 0.99))
def test_teacher_forcing_falls_and_is_bounded(kind, decay):
    decay = decay if kind != "inverse_sigmoid" else 100 * decay
    share = teacher_forcing(kind, decay, initial=0.9, least=0.1)(np.arange(300))
    assert (np.diff(share) <= 1e-15).all()
    assert share.min() >= 0.1
    assert share.max() <= 0.9


def test_teacher_forcing_may_stay():
    assert teacher_forcing("linear", 0)(99) == 1.0
    assert teacher_forcing("exponential", 1, initial=0.5)(99) == 0.5


def test_without_an_error_of_the_model_there_is_no_gap():
    true = np.random.default_rng(0).dirichlet(np.ones(4), size=4)
    taught, free = exposure_gap(true, np.log(true), 0, 5)
    assert np.allclose([taught, free], 0, atol=1e-12)


def test_free_runs_end_together():
    after = torch.eye(V)[[1, 2, END, 3, 3, 3, 3]]
    rows = continue_prompts(lambda ids: after[ids], torch.tensor([[0], [2], [3]]), 4, eos=END)
    assert rows == [[1, 2, END], [END], [3, 3, 3, 3]]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SelfTokenMixer(1.5), "share"),
        (lambda: SelfTokenMixer(tp.schedules.linear(0.0, end=0.5)), "horizon"),
        (lambda: SelfTokenMixer(0.5, mode="both"), "mode"),
        (lambda: SelfTokenMixer(0.5, temperature=-1), "temperature"),
        (lambda: SelfTokenMixer(0.5, 0), "refresh_every"),
        (lambda: SelfTokenMixer(0.5).mix(bigram(), {"input_ids": torch.zeros(1, 1)}, 0), "labels"),
        (lambda: SelfTokenMixer(0.5, seed=-1), "seed"),
        (lambda: SelfTokenMixer(0.5).mix(lambda ids: 1, batch(), 0), "logits"),
        (lambda: own_tokens(bigram(), *[torch.ones(1, 2, dtype=int)] * 3, 0.5), "first token"),
        (lambda: teacher_forcing("linear"), "decay"),
        (lambda: teacher_forcing("exponential", 1.1), "decay"),
        (lambda: teacher_forcing("cosine"), "kind"),
        (lambda: teacher_forcing("linear", 0.1, initial=0.1, least=0.2), "least"),
        (lambda: CorrectionBuilder([], END), "instruction"),
        (lambda: CorrectionBuilder([1], END).build(bigram(), [[1]], []), "answers"),
        (lambda: answer_example([], [1], END), "prompt"),
        (lambda: exposure_gap([[1.0]], [[0.0], [1.0]], 0, 2), "reference"),
        (lambda: exposure_gap([[0.5]], [[0.0]], 0, 2), "reference"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, match):
    with pytest.raises(PlanError, match=match):
        make()
