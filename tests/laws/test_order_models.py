"""Estimates on real modules: attention, fused or custom operations, tied weights, transformers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from laws.order_tasks import Task, flat, weights  # noqa: E402
from trainplan.laws.order.curvature import exact_expansion  # noqa: E402

ORDER = [2, 0, 3, 1]
VOCABULARY, LENGTH = 11, 6


def tokens(n=4):
    generator = torch.Generator().manual_seed(2)
    batches = torch.randint(0, VOCABULARY, (n, 3, LENGTH), generator=generator)
    return [(batch + j) % VOCABULARY for j, batch in enumerate(batches)]


class Attention(nn.Module):
    """One layer of attention through torch's fused kernel, embedding tied to the output."""

    def __init__(self, norm=nn.LayerNorm):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 8)
        self.mix = nn.Linear(8, 24)
        self.norm = norm(8)
        self.out = nn.Linear(8, VOCABULARY, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x):
        q, k, v = self.mix(self.norm(self.embed(x))).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(
            q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1), is_causal=True
        )
        return self.out(self.embed(x) + mixed.squeeze(1))


def next_token(model, batch):
    logits = model(batch)
    logits = getattr(logits, "logits", logits)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())


def improvement(task, **options):
    """By which factor the first-order correction reduces the error of the weights."""
    truth = task.truth(ORDER)
    none, first = (
        (flat(task.estimator(terms=terms, **options).estimate(ORDER).parameters) - truth).norm()
        for terms in (0, 1)
    )
    assert first < (weights(task.model) - truth).norm() / 4
    return float(none / first)


def builder(model, lr=2e-3):
    def build():
        torch.manual_seed(0)
        made = model()
        return made, torch.optim.AdamW(made.parameters(), lr=lr)

    return build


# The keys' bias has no gradient but round-off, of which Adam makes full steps in float32.
@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 1.3), (torch.float64, 2.0)])
def test_attention_with_tied_weights(dtype, least, tmp_path):
    task = Task(tmp_path, builder(lambda: Attention().to(dtype)), next_token, tokens())
    assert improvement(task) > least
    assert torch.equal(flat(task.estimator().estimate(range(4)).parameters), weights(task.model))


class Doubled(torch.autograd.Function):
    """An operation of the old kind, which forward mode refuses."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g


class Custom(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.norm = nn.LayerNorm(size)

    def forward(self, x):
        return Doubled.apply(self.norm(x))


def test_operations_without_a_forward_mode_are_differentiated_twice_in_reverse(tmp_path):
    task = Task(tmp_path, builder(lambda: Attention(Custom).double()), next_token, tokens())
    assert improvement(task) > 2


@pytest.mark.parametrize("terms", [0, 1, 2])
def test_both_modes_give_the_same_derivatives(terms):
    def loss(x):
        return (x.sin() * x.roll(1)).sum() + x[0] ** 4

    generator = torch.Generator().manual_seed(0)
    x, d = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    forward = exact_expansion(loss, x, d, terms)
    reverse = exact_expansion(loss, x, d, terms, reverse=True)
    for a, b in zip(forward, reverse, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, atol=1e-12)
    for step in (1e-3,) if terms == 2 else ():
        moved = exact_expansion(loss, x + step * d, d, 0).gradient
        scaled = exact_expansion(loss, x, step * d, 2).total
        assert torch.allclose(moved, scaled, atol=1e-8)


@pytest.mark.parametrize("terms", [1, 2])
def test_derivatives_that_vanish_are_zero_in_reverse_too(terms):
    x, d = torch.ones(3), torch.ones(3)
    found = exact_expansion(lambda v: v.sum(), x, d, terms, reverse=True)
    assert [v.tolist() for v in found if v is not None] == [[1.0] * 3] + [[0.0] * 3] * terms


def test_a_transformer_of_hugging_face(tmp_path):
    transformers = pytest.importorskip("transformers")

    def build():
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=LENGTH,
            n_embd=8,
            n_layer=1,
            n_head=2,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
        model = transformers.GPT2LMHeadModel(config)
        return model, torch.optim.AdamW(model.parameters(), lr=2e-3)

    task = Task(tmp_path, build, next_token, tokens())
    assert improvement(task) > 2
