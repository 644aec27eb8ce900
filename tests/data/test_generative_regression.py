"""Numbers come back from their tokens, and own predictions never show the answer."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from trainplan.data import (  # noqa: E402
    QuantileVocabulary,
    TwoPassSampling,
    mix_decoder_inputs,
    quantile_amounts,
    teacher_forcing,
    xauc,
)
from trainplan.data.generative_regression import END, PAD, START  # noqa: E402
from trainplan.errors import PlanError  # noqa: E402
from trainplan.models import TokenRegressor, amount_loss, windowed_amounts  # noqa: E402

whole = st.lists(st.integers(0, 5000), min_size=1, max_size=40)


def lognormal(number=500, seed=0):
    return np.random.default_rng(seed).lognormal(6.0, 1.0, number).round()


# The coding


@settings(max_examples=50, deadline=None)
@given(whole, whole)
def test_every_number_comes_back_also_one_that_was_not_seen(seen, new):
    vocabulary = QuantileVocabulary.fit(seen)
    values = np.array(seen + new)
    ids = vocabulary.encode(values)
    assert vocabulary.decode(ids).tolist() == values.tolist()
    assert (ids[:, 0] == START).all()
    assert ((ids == END).sum(1) == 1).all()
    for row in ids:
        end = row.tolist().index(END)
        assert (np.diff(row[1:end]) >= 0).all()  # amounts do not grow
        assert (row[end + 1 :] == PAD).all()


@settings(max_examples=30, deadline=None)
@given(whole, st.sets(st.integers(2, 3000), min_size=1, max_size=12))
def test_a_number_is_what_subtracting_the_largest_amount_again_and_again_gives(values, amounts):
    vocabulary = QuantileVocabulary([*amounts, 1])
    for value, row in zip(values, vocabulary.encode(values), strict=True):
        rest, tokens = value, []
        while rest:
            tokens.append(max(a for a in vocabulary.amounts.tolist() if a <= rest))
            rest -= tokens[-1]
        assert vocabulary.values[row[row > END]].tolist() == tokens


def test_few_tokens_write_heavy_tailed_values():
    values = lognormal()
    ids = QuantileVocabulary.fit(values).encode(values)
    assert (ids > END).sum(1).mean() <= 8


def test_an_amount_is_the_quantile_of_what_the_amounts_before_left_over():
    values = lognormal(50)
    rests = values.copy()
    for amount in quantile_amounts(values, start=1.0, end=1.0, decay=1.0):
        assert amount == int(rests.max())
        rests[rests >= rests.max()] -= rests.max()


def test_seconds_are_rounded_to_units_and_not_cut():
    vocabulary = QuantileVocabulary.fit([0.3, 1.1, 2.0019999], unit=0.001)
    written = vocabulary.decode(vocabulary.encode([0.3, 1.1, 2.0019999]))
    assert written.tolist() == pytest.approx([0.3, 1.1, 2.002], abs=1e-12)


def test_a_vocabulary_is_restored_from_its_state():
    made = QuantileVocabulary.fit(lognormal() / 1000, unit=0.001)
    other = QuantileVocabulary([1])
    other.load_state_dict(made.state_dict())
    assert len(other) == len(made)
    assert np.array_equal(other.encode([0.5, 9.0]), made.encode([0.5, 9.0]))
    with pytest.raises(PlanError, match="state"):
        other.load_state_dict({"amounts": [1]})


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (lambda: QuantileVocabulary.fit([1.0, -2.0]), "values"),
        (lambda: QuantileVocabulary.fit([1.0, np.nan]), "values"),
        (lambda: QuantileVocabulary.fit([1.0], unit=0.0), "unit"),
        (lambda: QuantileVocabulary([1]).encode([1e300]), "too many units"),
        (lambda: QuantileVocabulary([3, 0]), "amounts"),
        (lambda: QuantileVocabulary([2.5, 1]), "amounts"),
        (lambda: QuantileVocabulary([]), "amounts"),
        (lambda: QuantileVocabulary([5, 3]).encode([7]), "values"),
        (lambda: QuantileVocabulary([1]).decode([[1, 4, 2]]), "ids"),
        (lambda: quantile_amounts([1, 2], start=1.5), "start"),
        (lambda: quantile_amounts([1, 2], decay=0.0), "decay"),
        (lambda: xauc([1.0, 2.0], [1.0]), "predictions"),
        (lambda: xauc([1.0], [1.0]), "number of values"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(call, place):
    with pytest.raises(PlanError, match=place):
        call()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=15))
def test_xauc_counts_the_pairs_in_order(pairs):
    right = sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for i, a in enumerate(pairs) for b in pairs[:i])
    expected = right / (len(pairs) * (len(pairs) - 1) / 2)
    assert xauc([a for a, _ in pairs], [b for _, b in pairs]) == pytest.approx(expected)


# The two passes


@pytest.fixture
def passes():
    random = torch.Generator().manual_seed(0)
    first = torch.randn(3, 5, 7, generator=random, dtype=torch.float64)
    ids = torch.randint(3, 7, (3, 5), generator=random)
    table = torch.randn(7, 4, generator=random, dtype=torch.float64)
    return first, ids, table, torch.rand(3, 4, generator=random, dtype=torch.float64)


def test_a_place_takes_the_prediction_of_the_place_before(passes):
    first, ids, table, u = passes
    hard = mix_decoder_inputs(first, ids, 0.0, u)
    assert torch.equal(hard[:, 0], ids[:, 0])
    assert torch.equal(hard[:, 1:], first[:, :-1].argmax(-1))
    soft = mix_decoder_inputs(first, ids, 0.0, u, table)
    assert torch.equal(soft[:, 1:], torch.softmax(first[:, :-1], -1) @ table)
    assert torch.equal(mix_decoder_inputs(first, ids, 0.0, u, table, mixup=False), table[hard])


def test_the_ratio_is_that_of_true_tokens(passes):
    first, ids, table, u = passes
    assert torch.equal(mix_decoder_inputs(first, ids, 1.0, u), ids)
    mixed = mix_decoder_inputs(first, ids, 0.6, u)
    own = u > 0.6
    assert torch.equal(mixed[:, 1:][~own], ids[:, 1:][~own])
    assert torch.equal(mixed[:, 1:][own], first[:, :-1].argmax(-1)[own])
    soft = mix_decoder_inputs(first, ids, 0.6, u, table)
    assert torch.equal(soft[:, 1:][~own], table[ids[:, 1:]][~own])
    # A number that equals the ratio leaves the token true; one row of numbers serves all rows.
    same = mix_decoder_inputs(first, ids, 0.5, torch.full((1, 4), 0.5))
    assert torch.equal(same, ids)


@pytest.mark.parametrize("mixup", [True, False])
def test_gradients_reach_the_first_pass_through_means_alone(passes, mixup):
    _, ids, table, _ = passes
    grades = []

    def decode(inputs):
        scores = inputs @ table.T
        grades.append(scores.requires_grad)
        return scores

    weights = table.clone().requires_grad_()
    sampling = TwoPassSampling(0.0, mixup=mixup)
    sampling(decode, ids, weights, 3).sum().backward()
    assert grades == [mixup, True]


def test_draws_belong_to_the_update_and_the_batch_and_are_the_same_again(passes):
    first, ids, table, _ = passes

    def drawn(step, seed=0, ids=ids):
        return TwoPassSampling(0.5, seed=seed).inputs(first, ids, table, step)

    assert torch.equal(drawn(4), drawn(4))
    assert not torch.equal(drawn(4), drawn(5))
    assert not torch.equal(drawn(4), drawn(4, seed=1))
    other = ids.flip(0)
    assert not torch.equal(drawn(4) == table[ids], drawn(4, ids=other) == table[other])


def test_the_share_of_true_inputs_follows_the_schedule():
    ids = torch.zeros(200, 50, dtype=torch.long)
    first = torch.eye(2)[1].expand(200, 50, 2)
    sampling = TwoPassSampling(teacher_forcing().resolve(100))
    for step in (0, 40, 80):
        true = (sampling.inputs(first, ids, torch.eye(2), step)[:, 1:, 0] == 1).float().mean()
        assert true.item() == pytest.approx(0.05 ** (step / 80), abs=0.02)


def test_places_outside_of_the_answer_stay_true(passes):
    first, ids, table, _ = passes
    answer = torch.zeros_like(ids, dtype=torch.bool)
    answer[:, 3:] = True
    mixed = TwoPassSampling(0.0).inputs(first, ids, table, 0, answer)
    assert torch.equal(mixed[:, :3], table[ids[:, :3]])
    assert not torch.isclose(mixed[:, 3:], table[ids[:, 3:]]).all(-1).any()


def test_one_pass_is_enough_while_every_token_is_true(passes):
    _, ids, table, _ = passes
    calls = []
    TwoPassSampling(1.0)(lambda read: calls.append(1) or read, ids, table, 0)
    assert calls == [1]


def test_schedules_without_a_horizon_and_shapes_that_do_not_fit_are_refused(passes):
    first, ids, _, u = passes
    with pytest.raises(PlanError, match="horizon"):
        TwoPassSampling(teacher_forcing())
    with pytest.raises(PlanError, match="ratio"):
        TwoPassSampling(1.5)
    with pytest.raises(PlanError, match="fit together"):
        mix_decoder_inputs(first, ids[:, 1:], 0.5, u)


# Amounts, loss and network


@pytest.mark.parametrize("window", [0, 1, 4, 40])
def test_amounts_are_those_of_a_plain_loop(window):
    logits = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(1)).double()
    values = torch.tensor([0, 0, 0, 700, 420, 260, 110, 40, 1]).double()
    found = windowed_amounts(logits, values, window)
    for b, t in np.ndindex(2, 3):
        shares = torch.softmax(logits[b, t], 0)
        best = int(shares.argmax())
        near = range(max(0, best - window // 2), min(9, best + window // 2 + 1))
        assert found[b, t].item() == pytest.approx(
            sum((shares[j] * values[j]).item() for j in near)
        )


def test_padding_adds_nothing_to_the_loss():
    logits = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(2))
    targets, values = torch.tensor([[3, 4, 2], [5, 2, 0]]), torch.tensor([0.0, 0, 0, 3, 2, 1])
    amounts = torch.tensor([5.0, 1.0])
    short = amount_loss(logits[:, :3], targets, amounts, values)
    padded = torch.nn.functional.pad(targets, (0, 1))
    assert amount_loss(logits, padded, amounts, values).total.item() == pytest.approx(
        short.total.item(), rel=1e-6
    )
    labels = padded.masked_fill(padded == PAD, -100)
    again = amount_loss(logits, labels, amounts, values, ignored=-100)
    assert again.total.item() == pytest.approx(short.total.item(), rel=1e-6)
    with pytest.raises(PlanError, match="values"):
        windowed_amounts(logits, values[1:])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TokenRegressor(
        torch.nn.Linear(2, 8), 6, width=8, layers=1, heads=2, hidden=16, dropout=0.1
    ).eval()


def test_the_decoder_does_not_see_what_comes_later(model):
    memory, inputs = torch.randn(2, 8), torch.randn(2, 5, 8)
    changed = inputs.clone()
    changed[:, 3:] += 1
    before, after = model.decode(inputs, memory), model.decode(changed, memory)
    assert torch.allclose(before[:, :3], after[:, :3], atol=1e-6)
    assert not torch.allclose(before[:, 3:], after[:, 3:], atol=1e-3)


@pytest.mark.parametrize("mixup", [True, False])
def test_a_trained_decoder_writes_the_numbers_on_its_own(model, mixup):
    vocabulary = QuantileVocabulary([4, 2, 1])
    x = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    y = torch.tensor([0.0, 1, 6, 7])
    values = torch.from_numpy(vocabulary.values).float()
    ids = torch.from_numpy(vocabulary.encode(y.numpy()))
    sampling = TwoPassSampling(teacher_forcing().resolve(80), mixup=mixup)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for step in range(80):
        optimizer.zero_grad()
        memory = model.features(x)
        logits = sampling(
            lambda read, memory=memory: model.decode(read, memory),
            ids[:, :-1],
            model.embedding.weight,
            step,
        )
        amount_loss(logits, ids[:, 1:], y, values).total.backward()
        optimizer.step()
    found = model.predict(x, values, mixup=mixup)
    assert found.tolist() == pytest.approx(y.tolist(), abs=0.3)
    # With one token at most, only the largest amount of each is written.
    first = model.predict(x, values, most=1, mixup=mixup)
    assert first.tolist() == pytest.approx([0, 1, 4, 4], abs=0.3)


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(PlanError, match="width"):
        TokenRegressor(torch.nn.Identity(), 6, width=9, heads=2)
