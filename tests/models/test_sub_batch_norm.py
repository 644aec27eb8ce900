"""Normalisation over parts of a batch is ordinary normalisation of each part."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.optim.swa_utils import update_bn  # noqa: E402

from trainplan import PlanError  # noqa: E402
from trainplan.models import (  # noqa: E402
    SubBatchNorm1d,
    SubBatchNorm2d,
    SubBatchNorm3d,
    split_batch_norms,
)

KINDS = [
    (SubBatchNorm1d, nn.BatchNorm1d, (12, 3)),
    (SubBatchNorm1d, nn.BatchNorm1d, (12, 3, 5)),
    (SubBatchNorm2d, nn.BatchNorm2d, (12, 3, 4, 5)),
    (SubBatchNorm3d, nn.BatchNorm3d, (12, 3, 2, 4, 5)),
]


@pytest.mark.parametrize(("kind", "plain", "shape"), KINDS)
@pytest.mark.parametrize("splits", [1, 2, 3])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_each_part_is_normalised_as_a_batch_of_its_own(kind, plain, shape, splits, momentum):
    torch.manual_seed(0)
    layer = kind(3, splits, momentum=momentum)
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2)
        layer.bias.normal_()
    ordinary = [plain(3, momentum=momentum) for _ in range(splits)]
    for each in ordinary:
        each.load_state_dict(layer.state_dict(), strict=False)
    for _ in range(3):
        x = torch.randn(shape) * 3 + 1
        got = layer(x)
        for k, each in enumerate(ordinary):
            torch.testing.assert_close(got[k::splits], each(x[k::splits]))
    means = torch.stack([each.running_mean for each in ordinary])
    variances = torch.stack([each.running_var for each in ordinary])
    layer.eval()
    torch.testing.assert_close(layer.running_mean, means.mean(0))
    torch.testing.assert_close(layer.running_var, variances.mean(0) + means.var(0, unbiased=False))
    deployed = plain(3).eval()
    deployed.load_state_dict(layer.state_dict(), strict=False)
    torch.testing.assert_close(deployed(x), layer(x))


def test_statistics_are_carried_to_another_number_of_parts():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    weight = model[1].weight
    model(torch.randn(8, 1, 6, 6))
    before = model[1].running_mean.clone()
    assert split_batch_norms(model, 4) is model
    assert model[1].weight is weight
    assert model[1].splits == 4
    model(torch.randn(8, 1, 6, 6) + 1)
    split_batch_norms(model, 2)
    gathered = model[1].running_mean.clone()
    assert not torch.equal(gathered, before)
    torch.testing.assert_close(model[1].split_mean, gathered.repeat(2))
    assert split_batch_norms(model[1], 2) is model[1]


@pytest.mark.parametrize("splits", [1, 4])
def test_a_state_is_restored_with_its_number_of_parts(splits):
    torch.manual_seed(0)
    first, second = SubBatchNorm2d(3, 4), SubBatchNorm2d(3, splits)
    for _ in range(2):
        first(torch.randn(8, 3, 2, 2))
    second.load_state_dict(first.state_dict())
    assert second.splits == 4
    x = torch.randn(8, 3, 2, 2)
    assert torch.equal(first(x), second(x))
    assert torch.equal(first.eval()(x), second.eval()(x))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_statistics_can_be_taken_anew():
    torch.manual_seed(0)
    model = split_batch_norms(nn.Sequential(nn.BatchNorm1d(3)), 2)
    batches = [torch.randn(8, 3) + 5 for _ in range(4)]
    model(batches[0] * 100)
    model.eval()
    update_bn(batches, model)
    whole = torch.cat(batches)
    torch.testing.assert_close(model[0].running_mean, whole.mean(0))
    assert model[0].momentum == 0.1


def test_a_batch_that_is_not_equal_parts_is_refused():
    layer = SubBatchNorm1d(3, 4, affine=False)
    assert layer(torch.randn(8, 3)).shape == (8, 3)
    with pytest.raises(PlanError, match="6 examples"):
        layer(torch.randn(6, 3))
    assert layer.eval()(torch.randn(6, 3)).shape == (6, 3)
