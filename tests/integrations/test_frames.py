"""Transformers' Trainer grows the table of a TimeSformer between stages, and goes on exactly."""

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import with_frames as example  # noqa: E402
from transformers import TimesformerModel, VivitConfig, VivitModel  # noqa: E402

from trainplan.data import resize_frames  # noqa: E402


@pytest.fixture(scope="module")
def seen():
    return []


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, seen):
    forward = TimesformerModel.forward

    def watched(self, pixel_values, **kwargs):
        seen.append(pixel_values.shape[1])
        return forward(self, pixel_values, **kwargs)

    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TimesformerModel, "forward", watched)
        return folder, example.fit(folder)


def test_clips_and_the_table_follow_the_stages(uninterrupted, seen):
    _, model = uninterrupted
    assert seen == [1] * 8 + [4] * 4
    table = model.timesformer.embeddings.time_embeddings
    assert table.shape[1] == model.config.num_frames == 4
    assert table[0, 1:].abs().sum(1).min() > 0


@pytest.mark.parametrize(("step", "workers"), [(5, 0), (8, 2), (10, 0)])
def test_resuming_changes_nothing(uninterrupted, tmp_path, step, workers):
    folder, whole = uninterrupted
    checkpoint = folder / f"checkpoint-{step}"
    resumed = example.fit(tmp_path, checkpoint, dataloader_num_workers=workers)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_tables_of_places_and_frames_grow_as_well():
    config = VivitConfig(
        image_size=8,
        num_frames=2,
        tubelet_size=[2, 4, 4],
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    model = VivitModel(config, add_pooling_layer=False)
    torch.nn.init.normal_(model.embeddings.position_embeddings)
    optimizer = torch.optim.AdamW(model.parameters())
    table = model.embeddings.position_embeddings
    for frames in (2, 4):
        if frames == 4:
            old = table
            more = {"prefix": 1, "per_frame": 4, "mode": "interp"}
            assert resize_frames(model, 2, optimizer, table="position_embeddings", **more)
            table = model.embeddings.position_embeddings
            assert torch.equal(table[:, :5], old)
            assert torch.equal(table[:, 5:], old[:, 1:])
            assert model.config.num_frames == 4
            assert optimizer.state[table]["exp_avg"].shape == table.shape
        model(torch.rand(1, frames, 3, 8, 8)).last_hidden_state.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
