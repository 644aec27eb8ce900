"""The encoder reads in both directions, knows order, ignores padding, and learns."""

from __future__ import annotations

import pytest
import torch

from trainplan import PlanError
from trainplan.models import Encoder, masked_token_loss
from trainplan.models.encoder import rotations


def encoder(**changes):
    """A small one whose blocks do something from the beginning."""
    torch.manual_seed(0)
    model = Encoder(
        **{"vocabulary": 12, "context": 8, "width": 16, "layers": 2, "heads": 2} | changes
    )
    for parameter in model.blocks.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("place", [0, 3, 7])
def test_every_token_is_read_by_every_position(place):
    model = encoder()
    tokens = torch.arange(8)[None]
    changed = tokens.clone()
    changed[0, place] = 11
    difference = (model(tokens) - model(changed)).abs().amax(dim=-1)
    assert (difference > 1e-4).all()


def test_order_matters():
    model = encoder()
    there, back = torch.arange(8)[None], torch.arange(8)[None].flip(1)
    assert not torch.allclose(model(there), model(back).flip(1), atol=1e-3)


def test_scores_of_rotated_vectors_depend_on_distance_alone():
    turns = rotations(6, 8).to(torch.complex128)
    q, k = torch.randn(2, 4, dtype=torch.complex128)
    scores = ((q * turns)[:, None] * (k * turns)[None].conj()).sum(-1).real
    for distance in range(6):
        along = scores.diagonal(distance)
        assert torch.allclose(along, along[:1].expand_as(along), atol=1e-6)


def test_padding_changes_nothing():
    model = encoder()
    tokens = torch.tensor([[1, 2, 3, 4, 5]])
    padded = torch.tensor([[1, 2, 3, 4, 5, 9, 9]])
    visible = torch.tensor([[True] * 5 + [False] * 2])
    assert torch.allclose(model(tokens), model(padded, visible)[:, :5], atol=1e-5)


def test_untrained_blocks_pass_the_embedding_through():
    model = Encoder(vocabulary=12, context=8, width=16, layers=3, heads=2)
    tokens = torch.arange(8)[None]
    assert torch.allclose(model(tokens), model.norm(model.embedding(tokens)))


def test_the_loss_is_that_of_the_chosen_tokens():
    model = encoder()
    tokens = torch.arange(8)[None]
    chosen = tokens.remainder(3) == 0
    rows = model.logits(model(tokens)).log_softmax(dim=-1)[0]
    expected = -torch.stack([rows[t, t] for t in (0, 3, 6)]).mean()
    assert torch.allclose(masked_token_loss(model, tokens, tokens, chosen), expected, atol=1e-5)


def test_it_learns_to_fill_in_a_cycle():
    torch.manual_seed(0)
    model = Encoder(vocabulary=6, context=8, width=16, layers=1, heads=2)
    optimizer = torch.optim.AdamW(model.parameter_groups(0.0), lr=1e-2)
    for _ in range(150):
        tokens = (torch.randint(5, (16, 1)) + torch.arange(8)) % 5
        chosen = torch.rand(16, 8) < 0.3
        loss = masked_token_loss(model, tokens.masked_fill(chosen, 5), tokens, chosen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3  # guessing costs log 5 = 1.6


def test_each_parameter_is_in_one_group_and_tables_do_not_decay():
    model = encoder()
    decayed, kept = model.parameter_groups(0.1)
    both = [*decayed["params"], *kept["params"]]
    assert {id(p) for p in both} == {id(p) for p in model.parameters()}
    assert len(both) == len(list(model.parameters()))
    assert any(p is model.embedding.weight for p in kept["params"])
    assert all(p.ndim == 2 for p in decayed["params"])


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(PlanError, match="multiple of 6"):
        Encoder(vocabulary=5, context=4, width=16, layers=1, heads=3)
    with pytest.raises(PlanError, match="context of 8"):
        encoder()(torch.zeros(1, 9, dtype=torch.long))
