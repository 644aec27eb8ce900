"""What is kept of an image is exactly its lowest frequencies."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import trainplan as tp
from trainplan import PlanError
from trainplan.data import LowFrequencyCrop, lanczos_resize, low_frequency_crop


def waves(size, number, seed):
    """A sum of waves below frequency ``number``, on a grid of any size."""
    random = np.random.default_rng(seed)
    found = np.zeros((size, size))
    x = np.arange(size) / size
    for _ in range(5):
        (i, j), phase = random.integers(-number + 1, number, 2), random.random()
        found += random.normal() * np.cos(2 * np.pi * (i * x[:, None] + j * x + phase))
    return torch.from_numpy(found)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 9), st.integers(0, 9), st.integers(0, 99))
def test_what_fits_on_the_small_grid_is_sampled_there(w, larger, seed):
    size = 2 * w + 1 + larger
    cropped = low_frequency_crop(waves(size, w, seed), 2 * w)
    torch.testing.assert_close(cropped, waves(2 * w, w, seed), atol=1e-10, rtol=0)
    torch.testing.assert_close(low_frequency_crop(waves(size, w, seed), 2 * w + 1), cropped)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 20), st.integers(2, 16), st.integers(0, 99))
def test_the_crop_is_linear_keeps_means_and_takes_the_centre_of_the_shifted_spectrum(size, b, seed):
    x, y = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed)).double()
    found = low_frequency_crop(x, b)
    both = low_frequency_crop(2 * x + y, b)
    torch.testing.assert_close(both, 2 * found + low_frequency_crop(y, b), atol=1e-10, rtol=0)
    torch.testing.assert_close(found.mean((1, 2)), x.mean((1, 2)), atol=1e-10, rtol=0)
    w = b // 2
    if 2 * w >= size:
        assert found is x
        return
    half = size // 2
    kept = np.fft.fftshift(np.fft.fft2(x.numpy()), axes=(1, 2))[:, half - w :, half - w :]
    kept = np.fft.ifftshift(kept[:, : 2 * w, : 2 * w], axes=(1, 2))
    other = np.fft.ifft2(kept).real * (2 * w / size) ** 2
    np.testing.assert_allclose(found.numpy(), other, atol=1e-10)


def test_lanczos_resizes_as_pil_does():
    image = pytest.importorskip("PIL.Image")
    x = torch.randn(2, 17, 17)
    for size in (2, 9, 16):
        for mine, plane in zip(lanczos_resize(x, size), x, strict=True):
            theirs = image.fromarray(plane.numpy(), mode="F").resize((size, size), image.LANCZOS)
            np.testing.assert_allclose(mine.numpy(), np.array(theirs), atol=2e-6)
    assert lanczos_resize(x, 17) is x


@pytest.mark.parametrize("method", ["fourier", "lanczos"])
def test_half_precision_is_computed_in_float32(method):
    x = torch.randn(1, 1, 12, 12)
    crop = LowFrequencyCrop(7, method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wide, narrow = crop(x), crop(x.bfloat16())
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(wide, crop(x))
    torch.testing.assert_close(narrow, crop(x.bfloat16().float()).bfloat16())


def test_a_scheduled_crop_follows_the_plan():
    stages = tp.data.bandwidth_stages(5, (8, 8, 8, 10, 12))
    plan = tp.Plan(20, steps_per_epoch=4, bandwidth=stages.bandwidth)
    crop = LowFrequencyCrop(plan["bandwidth"])
    sizes = [crop(torch.ones(1, 12, 12), step).shape[-1] for step in range(20)]
    assert sizes == [8] * 12 + [10] * 4 + [12] * 4
    assert not list(crop.parameters())
    assert "bandwidth" not in crop.state_dict()


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: low_frequency_crop(torch.ones(1, 8, 9), 4), "images"),
        (lambda: low_frequency_crop(torch.ones(8), 4), "images"),
        (lambda: low_frequency_crop(torch.ones(8, 8, dtype=torch.uint8), 4), "images"),
        (lambda: low_frequency_crop(torch.ones(8, 8), 1), "bandwidth"),
        (lambda: lanczos_resize(torch.ones(8, 8), 0), "size"),
        (lambda: LowFrequencyCrop(4, "lanczo"), "method"),
        (lambda: LowFrequencyCrop(0), "bandwidth"),
        (lambda: LowFrequencyCrop(tp.schedules.linear(8, end=12)), "bandwidth"),
        (lambda: LowFrequencyCrop(tp.schedules.constant(8))(torch.ones(9, 9)), "t"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
