"""Two frames take turns, four ways, and nothing is lost on the way back."""

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from trainplan import PlanError  # noqa: E402
from trainplan.models import (  # noqa: E402
    InterleavedScan,
    SelectiveScan,
    interleave,
    laplacian_distances,
    laplacian_loss,
)
from trainplan.models.interleaved_scan import (  # noqa: E402
    deinterleave,
    four_scans,
    linear_scan,
    merge_scans,
)
from trainplan.models.laplacian import laplacian_pyramid  # noqa: E402

sides = st.integers(1, 5)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), sides, sides, sides)
def test_scans_are_put_back_in_place(pairs, channels, height, width):
    x = torch.rand(2 * pairs, channels, height, width)
    assert torch.equal(deinterleave(interleave(x), height), x)
    torch.testing.assert_close(merge_scans(four_scans(x), height), 4 * x)


def test_the_four_scans_are_rows_columns_and_their_reverses():
    x = torch.tensor([[[[1, 2], [3, 4]]], [[[5, 6], [7, 8]]]])
    rows, columns = [1, 5, 2, 6, 3, 7, 4, 8], [1, 5, 3, 7, 2, 6, 4, 8]
    assert four_scans(x)[0, :, 0].tolist() == [rows, columns, rows[::-1], columns[::-1]]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40))
def test_a_scan_equals_its_recurrence(length):
    decay, drive = torch.rand(2, 3, length, dtype=torch.double).unbind(0)
    h, found = torch.zeros(3, dtype=torch.double), []
    for a, b in zip(decay.T, drive.T, strict=True):
        h = a * h + b
        found.append(h)
    torch.testing.assert_close(linear_scan(decay, drive), torch.stack(found, dim=1))


def test_a_selective_scan_equals_its_recurrence():
    torch.manual_seed(0)
    model = SelectiveScan(channels=20, states=3, kinds=2).double()
    x = torch.randn(2, 2, 20, 9, dtype=torch.double)
    found = torch.zeros_like(x)
    for k in range(2):
        h = torch.zeros(2, 20, 3, dtype=torch.double)
        for t in range(9):
            now = x[:, k, :, t]
            low, into, out = (now @ model.select[k].T).split([model.rank, 3, 3], dim=1)
            dt = torch.nn.functional.softplus(low @ model.step[k].T + model.step_bias[k])
            keep = torch.exp(-dt[:, :, None] * model.log_rate[k].exp())
            h = keep * h + (dt * now)[:, :, None] * into[:, None]
            found[:, k, :, t] = (h * out[:, None]).sum(2) + model.skip[k] * now
    torch.testing.assert_close(model(x), found)


def test_every_pixel_of_both_frames_reaches_every_other():
    torch.manual_seed(0)
    block = InterleavedScan(4, states=2)
    x = torch.randn(2, 4, 3, 4, requires_grad=True)
    block(x)[1, :, 0, 0].sum().backward()
    assert (x.grad.abs().sum(1) > 0).all()
    assert all(p.grad is not None for p in block.parameters())


def test_a_pyramid_keeps_all_but_the_last_image_and_ignores_constants():
    images = torch.rand(2, 3, 16, 32)
    bands = laplacian_pyramid(images, 2)
    assert [tuple(band.shape[2:]) for band in bands] == [(16, 32), (8, 16)]
    assert laplacian_loss(images, images + 0.3, 2).item() == pytest.approx(0, abs=1e-6)
    flipped = laplacian_distances(images, images.flip(0), 2)
    assert flipped.sum().item() == pytest.approx(laplacian_loss(images, images.flip(0), 2).item())
    # Written out for one channel and level.
    kernel = torch.tensor([1.0, 4, 6, 4, 1]).outer(torch.tensor([1.0, 4, 6, 4, 1])) / 256
    kernel = kernel[None, None]

    def blur(image):
        padded = torch.nn.functional.pad(image, (2, 2, 2, 2), mode="reflect")
        return torch.nn.functional.conv2d(padded, kernel)

    one = images[:, :1]
    spread = torch.zeros_like(one)
    spread[:, :, ::2, ::2] = blur(one)[:, :, ::2, ::2]
    torch.testing.assert_close(bands[0][:, :1], one - 4 * blur(spread))


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: interleave(torch.zeros(3, 1, 2, 2)), "x"),
        (lambda: laplacian_loss(torch.zeros(1, 1, 12, 16), torch.zeros(1, 1, 12, 16), 3), "images"),
        (lambda: laplacian_loss(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), 3), "images"),
        (lambda: laplacian_loss(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 16), 1), "b"),
        (lambda: InterleavedScan(0), "channels"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
