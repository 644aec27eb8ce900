"""An image is the clip of one frame, and tables of positions grow while training goes on."""

from copy import deepcopy

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.optim import SGD  # noqa: E402

from trainplan import PlanError  # noqa: E402
from trainplan.data import expand_temporal_embedding, resize_frames  # noqa: E402
from trainplan.models import (  # noqa: E402
    SpaceTimeBlock,
    SpaceTimeTransformer,
    cosine_similarities,
    recall_at,
    retrieval_loss,
)
from trainplan.models.space_time import DividedAttention  # noqa: E402


def model(frames=1, **options):
    torch.manual_seed(0)
    return SpaceTimeTransformer(8, 4, 1, frames, 16, 4, 2, **options)


def test_a_still_clip_is_nearly_its_image():
    torch.manual_seed(0)
    net = SpaceTimeTransformer(8, 4, 1, 4, 32, 4, 4, outputs=16)
    images = torch.rand(6, 1, 1, 8, 8)
    with torch.no_grad():
        image, clip = net(images), net(images.expand(-1, 4, -1, -1, -1))
    assert (cosine_similarities(image, clip).diagonal() > 0.98).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_divided_attention_is_full_attention_under_a_mask(frames, patches, over_time):
    torch.manual_seed(frames * 10 + patches)
    attention = DividedAttention(8, 2).double()
    x = torch.randn(2, 1 + frames * patches, 8, dtype=torch.double)
    group = torch.arange(frames * patches)
    group = group % patches if over_time else group // patches
    seen = torch.ones(len(x[0]), len(x[0]), dtype=torch.bool)
    seen[1:, 1:] = group[:, None] == group
    q, k, v = attention.qkv(x).view(2, -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
    scores = (q * 4**-0.5 @ k.transpose(2, 3)).masked_fill(~seen, -torch.inf).softmax(-1)
    expected = attention.proj((scores @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, frames, over_time=over_time), expected)


def test_attention_over_time_begins_with_nothing_and_learns():
    block = SpaceTimeBlock(8, 2)
    x = torch.randn(1, 7, 8)
    assert not block.timeattn(x, 2, over_time=True).any()
    block(x, 2).square().sum().backward()
    *_, values = block.timeattn.qkv.weight.grad.chunk(3)
    assert values.abs().sum() > 0


@given(st.integers(1, 6), st.integers(1, 8), st.sampled_from(["zeros", "interp", "bilinear"]))
@settings(max_examples=30, deadline=None)
def test_tables_keep_their_rows_or_stretch_them(old, new, mode):
    table = torch.arange(1.0, old + 1)[None, :, None].expand(1, old, 3)
    found = expand_temporal_embedding(table, new, mode)[0, :, 0].tolist()
    first = [float(k + 1) for k in range(min(old, new))]
    if new <= old:
        assert found == first
    elif mode == "zeros":
        assert found == first + [0.0] * (new - old)
    elif mode == "interp":
        assert found == [float(k * old // new + 1) for k in range(new)]
    else:
        assert found == sorted(found)
        assert found[0] >= 1
        assert found[-1] <= old


def steps(net, optimizer, clips, number):
    for _ in range(number):
        optimizer.zero_grad()
        net(clips).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("foreach", [False, True])
def test_training_goes_on_with_a_longer_table_and_its_state(foreach):
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, foreach=foreach)
    clips = torch.rand(2, 3, 1, 8, 8)
    steps(net, optimizer, clips[:, :1], 2)
    before, row = optimizer.state[net.time_embeddings], net.time_embeddings
    alive = net(clips[:, :1]).sum()  # an earlier graph must not change what later ones learn
    with torch.no_grad():
        image = net(clips[:, :1])
    assert resize_frames(net, 3, optimizer)
    assert not resize_frames(net, 3, optimizer)
    table = net.time_embeddings
    assert torch.equal(table[:, :1], row)
    assert not table[:, 1:].any()
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(optimizer.state[table][name][:, :1], before[name])
        assert not optimizer.state[table][name][:, 1:].any()
    with torch.no_grad():
        assert torch.equal(net(clips[:, :1]), image)
    # The same run, from a checkpoint into a model that was built with the long table.
    other = model(frames=3)
    other.load_state_dict(net.state_dict())
    again = torch.optim.AdamW(other.parameters(), lr=0.01, foreach=foreach)
    again.load_state_dict(deepcopy(optimizer.state_dict()))
    steps(net, optimizer, clips, 2)
    steps(other, again, clips, 2)
    assert alive.requires_grad
    assert table[:, 1:].any()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    resize_frames(net, 2, optimizer, state="reset")
    assert table not in optimizer.state
    steps(net, optimizer, clips[:, :2], 1)


def test_the_loss_is_the_sum_of_both_directions():
    similarities = torch.randn(4, 4)
    logits = similarities / 0.05
    both = -logits.log_softmax(1).diagonal().mean() - logits.log_softmax(0).diagonal().mean()
    torch.testing.assert_close(retrieval_loss(similarities), both)


def test_equal_captions_are_no_negatives():
    similarities = torch.randn(3, 3)
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    changed = similarities.clone()
    changed[0, 1] += 5
    assert retrieval_loss(similarities, same=same) == retrieval_loss(changed, same=same)
    assert retrieval_loss(similarities) != retrieval_loss(changed)


def test_recall_counts_ties_against():
    similarities = torch.tensor([[1.0, 1.0, 0.0], [0.2, 0.9, 0.8]])
    right = torch.tensor([0, 2])
    assert [recall_at(similarities, right, k) for k in (1, 2, 3)] == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: SpaceTimeTransformer(9, 4), "size"),
        (lambda: SpaceTimeBlock(9, 2), "dim"),
        (lambda: SpaceTimeBlock(8, 2, time_init="ones"), "time_init"),
        (lambda: model()(torch.zeros(1, 2, 1, 8, 8)), "frames"),
        (lambda: expand_temporal_embedding(torch.zeros(3), 2), "table"),
        (lambda: expand_temporal_embedding(torch.zeros(3, 1), 2, "cubic"), "mode"),
        (lambda: resize_frames(model(), 2, None, table="time_embedding"), "table"),
        (lambda: resize_frames(model(), 2, None, state="drop"), "state"),
        (lambda: resize_frames(model(), 2, None, per_frame=3, prefix=0), "per_frame"),
        (lambda: resize_frames(model(), 2, SGD(model().parameters())), "optimizer"),
        (lambda: retrieval_loss(torch.zeros(2, 3)), "similarities"),
        (lambda: retrieval_loss(torch.zeros(2, 2), 0.0), "temperature"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
