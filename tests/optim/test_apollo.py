"""APOLLO takes the gradient's direction and a projection's scales, and keeps what it promises."""

import copy
import functools
import itertools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import trainplan as tp
from optim.optimizer_contract import OptimizerContract
from optim.training import Subject, net, reload, same, train, weights
from optim.update_contract import UpdateContract
from trainplan.errors import PlanError
from trainplan.optim import APOLLO, APOLLOMini, split_params
from trainplan.optim.projection import (
    channels_first,
    gaussian_projection,
    next_seed,
    projection_for,
)

T = 4  # updates between refreshes: resuming at every step stops in the middle of periods


def apollo(model, **options):
    return APOLLO(split_params(model), lr=0.02, rank=4, update_proj_gap=T, **options)


def mini(model, **options):
    return APOLLOMini(split_params(model), lr=0.02, scale=12.0, update_proj_gap=T, **options)


KNOBS = {
    "scale": tp.schedules.linear(4.0, end=1.0),
    "betas": (0.9, 0.99),
    "norm_growth": 1.05,
}


def kind(made):
    name = APOLLOMini if made is mini else APOLLO
    return lambda model: (name, {"params": split_params(model), "lr": 0.01, "update_proj_gap": 3})


class TestAPOLLO(OptimizerContract):
    subject = Subject(make=apollo, knobs=KNOBS, trainer=kind(apollo))


class TestAPOLLOMini(OptimizerContract):
    subject = Subject(make=mini, knobs=KNOBS, trainer=kind(mini))


class TestWithoutKeepingProjections(UpdateContract):
    subject = Subject(make=lambda m, **o: apollo(m, keep_projections=False, **o))


class TestWithoutAnyRank(UpdateContract):
    """What is left to AdamW."""

    subject = Subject(make=lambda model, **o: APOLLO(model.parameters(), lr=0.02, rank=None, **o))


# With decay, a norm's weight in bfloat16 is rounded twice in each update, by either path.
ROUNDED = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 0.3}


class TestAsTheAuthors(UpdateContract):
    subject = Subject(
        make=lambda m, **o: apollo(m, mode="authors", weight_decay=0.1, **o), tolerance=ROUNDED
    )

    def test_a_first_gradient_of_zero_freezes_nothing(self):
        """Here it does: see below."""


class TestSingularVectors(UpdateContract):
    subject = Subject(
        make=lambda m, **o: mini(m, proj="svd", rank=2, weight_decay=0.1, **o), tolerance=ROUNDED
    )


def one_step(weight, grad, **options):
    """The update that one step makes, and the optimizer."""
    parameter = nn.Parameter(weight.clone())
    parameter.grad = grad.clone()
    optimizer = APOLLO([parameter], lr=0.1, **options)
    optimizer.step()
    return parameter.detach() - weight, optimizer


@pytest.mark.parametrize("case", range(9))
def test_the_plain_path_has_the_reference_values_too(case):
    import golden
    from golden_adapters.apollo import adamw, steps

    file = Path(__file__).parents[1] / "golden" / "apollo.json"
    reference = json.loads(file.read_text(encoding="utf-8"))["cases"][case]
    evaluate = adamw if reference["function"].startswith("AdamW") else steps
    plain = functools.partial(evaluate, foreach=False)
    assert golden.check_case(reference["name"], plain, reference).status == "passed"


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(shape=shapes, rank=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_every_channel_moves_along_its_gradient(shape, rank, seed):
    random = torch.Generator().manual_seed(seed)
    grad = torch.randn(shape, generator=random, dtype=torch.float64)
    update, _ = one_step(torch.zeros(shape, dtype=torch.float64), grad, rank=rank)
    ratio = channels_first(-update / grad)  # one positive number for each channel
    assert (ratio > 0).all()
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-9)


@given(shape=shapes, factor=st.sampled_from([1e-2, 1.0, 100.0]))
@settings(max_examples=15)
def test_the_size_of_gradients_does_not_matter(shape, factor):
    grad = torch.randn(shape, dtype=torch.float64) + 1
    zero = torch.zeros(shape, dtype=torch.float64)
    one = one_step(zero, grad, eps=0.0)[0]
    other = one_step(zero, grad * factor, eps=0.0)[0]
    # The published 1e-8 beside norms is all that keeps it from being exact.
    assert torch.allclose(one, other, rtol=1e-4)


def test_the_first_step_is_as_long_as_signs_of_the_projection():
    grad = torch.randn(64, 16, dtype=torch.float64)
    update, optimizer = one_step(torch.zeros_like(grad), grad, rank=4, eps=0.0)
    (state,) = optimizer.state.values()
    projected = grad @ projection_for(state["seed"], 64, 16, 4, "cpu").double()
    expected = -0.1 * 4**0.5 / projected.norm(dim=1, keepdim=True) * grad
    assert torch.allclose(update, expected, rtol=1e-4)


def test_scales_are_a_root_of_rank_over_dimension_of_full_ones():
    torch.manual_seed(0)
    grads = [torch.randn(400, 64) for _ in range(8)]
    sizes = {}
    for rank in (16, 64):
        parameter = nn.Parameter(torch.zeros(400, 64))
        optimizer = APOLLO([parameter], lr=1.0, rank=rank, norm_growth=None)
        for grad in grads:
            before = parameter.detach().clone()
            parameter.grad = grad
            optimizer.step()
        sizes[rank] = ((parameter.detach() - before).norm(dim=1) / grad.norm(dim=1)).median()
    assert sizes[16] / sizes[64] == pytest.approx(0.5, rel=0.1)


def test_scale_enters_as_its_square_root():
    grad = torch.randn(6, 4)
    zero = torch.zeros(6, 4)
    one, four = (one_step(zero, grad, scale=scale)[0] for scale in (1.0, 4.0))
    assert torch.allclose(2 * one, four)


@pytest.mark.parametrize("foreach", [None, False])
@pytest.mark.parametrize("scale_front", [False, True])
def test_an_update_grows_by_at_most_a_hundredth(foreach, scale_front):
    parameter = nn.Parameter(torch.zeros(8, 4, dtype=torch.float64))
    optimizer = APOLLO(
        [parameter], lr=1.0, scale=9.0, correct_bias=False, foreach=foreach, scale_front=scale_front
    )
    norms = []
    for t in range(12):
        parameter.grad = torch.randn(8, 4, dtype=torch.float64) * 3.0**t
        before = parameter.detach().clone()
        optimizer.step()
        norms.append((parameter.detach() - before).norm().item())
    assert all(b <= 1.01 * a * (1 + 1e-6) for a, b in itertools.pairwise(norms))
    assert any(b == pytest.approx(1.01 * a) for a, b in itertools.pairwise(norms))
    (state,) = optimizer.state.values()
    assert state["norm"].item() == pytest.approx(norms[-1] / (1 if scale_front else 3))


@pytest.mark.parametrize("zero_at", [0, 3])
def test_a_gradient_of_zero_freezes_the_tensor_only_as_the_authors(zero_at):
    moved = {}
    for mode in ("default", "authors"):
        parameter = nn.Parameter(torch.zeros(8, 4))
        optimizer = APOLLO([parameter], lr=0.1, mode=mode)
        for t in range(zero_at + 2):
            before = parameter.detach().clone()
            parameter.grad = torch.randn(8, 4) * (t != zero_at)
            optimizer.step()
        moved[mode] = (parameter.detach() - before).norm().item()
    assert moved["default"] > 0.01
    assert moved["authors"] < 1e-6


def test_projections_differ_between_parameters_and_periods_and_optimizers():
    made = {}
    for seed in (0, 1):
        parameters = [nn.Parameter(torch.zeros(6, 4)) for _ in range(2)]
        optimizer = APOLLO(parameters, rank=2, update_proj_gap=3, seed=seed)
        for t in range(7):
            for k, p in enumerate(parameters):
                p.grad = torch.randn(6, 4)
                made.setdefault((seed, k, t // 3), set())
            optimizer.step()
            for k, p in enumerate(parameters):
                made[seed, k, t // 3].add(optimizer.state[p]["seed"])
    assert all(len(seeds) == 1 for seeds in made.values())
    seeds = set.union(*made.values())
    assert len(seeds) == len({gaussian_projection(s, (2, 2), 1)[0, 0].item() for s in seeds}) == 12
    assert made[0, 0, 1] == {next_seed(1)}


def test_a_projection_is_normal_of_variance_one_over_rank():
    drawn = gaussian_projection(3, (200, 50), 25)
    assert drawn.mean().item() == pytest.approx(0, abs=0.01)
    assert drawn.std().item() == pytest.approx(0.2, rel=0.03)


def test_a_state_holds_plain_values_of_the_size_promised():
    matrix = nn.Parameter(torch.zeros(64, 256))
    matrix.grad = torch.randn(64, 256)
    optimizer = APOLLO([matrix])
    optimizer.step()
    state = optimizer.state_dict()["state"][0]
    assert all(isinstance(value, (int, torch.Tensor)) for value in state.values())
    numbers = sum(v.numel() for v in state.values() if isinstance(v, torch.Tensor))
    assert numbers == 2 * 256 * 16 + 1


def test_half_precision_keeps_float32_moments_through_a_checkpoint():
    model = net(torch.bfloat16)
    optimizer = apollo(model)
    train(model, optimizer, 3)
    _, resumed = reload(TestAPOLLO.subject, model, optimizer)
    for one in (optimizer, resumed):
        kinds = {s["exp_avg"].dtype for s in one.state.values() if "seed" in s}
        assert kinds == {torch.float32}


def test_a_copy_goes_on_alike():
    model = net()
    optimizer = apollo(model)
    train(model, optimizer, 6)
    twin, other = copy.deepcopy((model, optimizer))
    train(model, optimizer, range(6, 11))
    train(twin, other, range(6, 11))
    assert same(weights(model), weights(twin))


@pytest.mark.parametrize("scale_type", ["channel", "tensor"])
def test_a_kernel_is_a_matrix_in_any_memory_format(scale_type):
    torch.manual_seed(0)
    kernel, grad = torch.randn(6, 2, 3, 3), torch.randn(6, 2, 3, 3)
    expected, _ = one_step(kernel.flatten(1), grad.flatten(1), scale_type=scale_type)
    for form in (torch.contiguous_format, torch.channels_last):
        made = kernel.to(memory_format=form), grad.to(memory_format=form)
        for foreach in (None, False):
            found, _ = one_step(*made, scale_type=scale_type, foreach=foreach)
            assert torch.allclose(found.flatten(1), expected, atol=1e-6)


# Which parameters


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.attn = nn.Linear(4, 4)
        self.mlp = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.lm_head = nn.Linear(4, 10, bias=False)
        self.lm_head.weight = self.embedding.weight


def names(model, group):
    found = {id(p) for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in found}


def test_split_takes_matrices_but_no_tables():
    model = Tied()
    projected, others = split_params(model)
    assert names(model, projected) == {"attn.weight", "mlp.0.weight", "mlp.1.weight"}
    assert names(model, others) == {"embedding.weight", "attn.bias", "mlp.0.bias", "mlp.1.bias"}
    assert others["rank"] is None


@pytest.mark.parametrize("targets", ["mlp", ["mlp"], ["mlp.0", "mlp.1"]])
def test_split_by_name(targets):
    model = Tied()
    assert names(model, split_params(model, targets)[0]) == {"mlp.0.weight", "mlp.1.weight"}


def test_split_says_when_nothing_is_meant():
    with pytest.raises(PlanError, match=r"mlpp.*Did you mean 'mlp'"):
        split_params(Tied(), ["mlpp"])


def test_the_example_with_transformers_resumes(tmp_path):
    pytest.importorskip("transformers")
    import with_apollo

    whole = with_apollo.fit(tmp_path)
    again = with_apollo.fit(tmp_path / "again", resume=tmp_path / "checkpoint-4")
    assert same(weights(whole.model), weights(again.model))
    assert whole.state.log_history[-1]["step"] == 8


# Bad input


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("rank", 0),
        ("rank", 1.5),
        ("rank", True),
        ("rank", "4"),
        ("scale", 0.0),
        ("scale", float("nan")),
        ("scale_type", "row"),
        ("update_proj_gap", 0),
        ("betas", (0.9,)),
        ("betas", (0.9, 1.0)),
        ("eps", -1e-8),
        ("lr", -0.1),
        ("lr", float("nan")),
        ("weight_decay", -0.1),
        ("norm_growth", 1.0),
        ("proj", "random_"),
        ("mode", "author"),
        ("seed", -1),
        ("seed", 2**40),
    ],
)
def test_what_cannot_be_meant_is_refused(setting, value):
    with pytest.raises(PlanError, match=setting):
        APOLLO([nn.Parameter(torch.zeros(3, 3))], **{setting: value})
    with pytest.raises(PlanError, match=rf"param_groups\[0\].*{setting}"):
        APOLLO([{"params": [nn.Parameter(torch.zeros(3, 3))], setting: value}])


def test_complex_gradients_are_refused():
    parameter = nn.Parameter(torch.zeros(3, 3, dtype=torch.complex64))
    parameter.grad = torch.ones_like(parameter)
    with pytest.raises(PlanError, match="complex"):
        APOLLO([parameter]).step()
