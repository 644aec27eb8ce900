"""CoSO moves weights only where ended tasks do not need them, and keeps what it promises."""

import copy
import functools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import trainplan as tp
from optim.optimizer_contract import OptimizerContract
from optim.training import Subject, difference, net, reload, same, saved, train, weights
from optim.update_contract import UpdateContract
from trainplan.errors import PlanError
from trainplan.optim import CoSOAdamW, split_params

GAP = 4  # updates between two subspaces: resuming at every step stops in the middle of periods


def coso(model, **options):
    settings = {"lr": 0.02, "rank": 4, "sketch_rank": 6, "update_proj_gap": GAP}
    return CoSOAdamW(split_params(model), **{**settings, **options})


def given_to_trainer(model):
    options = {"lr": 0.01, "rank": 4, "sketch_rank": 8, "update_proj_gap": 3}
    return CoSOAdamW, {"params": split_params(model), **options}


# Singular vectors of gradients that were rounded to 8 bits turn with each rounding.
ROUNDED = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.5}


class TestCoSO(OptimizerContract):
    subject = Subject(
        make=coso,
        knobs={"threshold": tp.schedules.linear(0.9, end=0.99), "betas": (0.9, 0.99)},
        trainer=given_to_trainer,
        tolerance=ROUNDED,
    )


class TestInput(UpdateContract):
    # A layer may learn from 4 of up to 96 input directions at a time, which takes longer.
    subject = Subject(
        make=lambda m, **o: coso(m, side="input", **o), tolerance=ROUNDED, learns=0.85
    )


class TestEveryStepAligned(UpdateContract):
    subject = Subject(
        make=lambda m, **o: coso(m, update_proj_gap=1, align="signs", weight_decay=0.1, **o),
        tolerance=ROUNDED,
    )


class TestTransported(UpdateContract):
    subject = Subject(
        make=lambda m, **o: coso(m, align="transport", svd="lowrank", sketch_gap=1, rank=2, **o),
        tolerance=ROUNDED,
    )


def second_task(model, **options):
    """An optimizer for which directions are taken, and the model as it was."""
    optimizer = coso(model, threshold=0.6, **options)
    if isinstance(model[0], nn.Conv2d):
        first = weights(model)
        train(model, optimizer, range(50, 54), sign=-1.0 if options.get("maximize") else 1.0)
        optimizer.end_task()
        set_weights(model, first)
    return optimizer


@torch.no_grad()
def set_weights(model, values):
    for p, value in zip(model.parameters(), values, strict=True):
        p.copy_(value)


class TestAfterATask(UpdateContract):
    subject = Subject(make=second_task, tolerance=ROUNDED)


def step_with(optimizer, weight, grad):
    """The update that one gradient makes."""
    before = weight.detach().clone()
    weight.grad = grad.clone()
    optimizer.step()
    return weight.detach() - before


def low_rank(shape, rank, seed=0):
    """A random matrix of that rank."""
    random = torch.Generator().manual_seed(seed)
    kind = {"generator": random, "dtype": torch.float64}
    return torch.randn(shape[0], rank, **kind) @ torch.randn(rank, shape[1], **kind)


def one_weight(shape, **options):
    weight = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    settings = {"lr": 0.1, "rank": 2, "sketch_rank": 4, "threshold": 0.999}
    return weight, CoSOAdamW([weight], **{**settings, **options})


def test_the_plain_path_has_the_reference_values_too():
    import golden
    from golden_adapters.coso import adam

    file = Path(__file__).parents[1] / "golden" / "coso.json"
    cases = json.loads(file.read_text(encoding="utf-8"))["cases"]
    (reference,) = [case for case in cases if case["name"].startswith("adam")]
    plain = functools.partial(adam, foreach=False)
    assert golden.check_case(reference["name"], plain, reference).status == "passed"


# Protection


@given(
    rows=st.integers(4, 9),
    columns=st.integers(4, 9),
    side=st.sampled_from(["output", "input"]),
    svd=st.sampled_from(["full", "lowrank"]),
    align=st.sampled_from(["none", "signs", "transport"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_no_update_moves_along_taken_directions(rows, columns, side, svd, align, seed):
    weight, optimizer = one_weight((rows, columns), side=side, svd=svd, align=align)
    for task in range(3):
        for t in range(3):
            taken = optimizer.historical(weight)
            update = step_with(optimizer, weight, low_rank(weight.shape, 2, seed + 10 * task + t))
            flat = update if side == "output" else update.T
            if taken.dimension:
                assert (taken.basis.T @ flat).abs().max() < 1e-12
        optimizer.end_task()
        assert optimizer.historical(weight).dimension >= taken.dimension


@pytest.mark.parametrize("foreach", [None, False])
def test_a_gradient_of_fewer_directions_than_the_rank_moves_no_others(foreach):
    weight, optimizer = one_weight((8, 8), foreach=foreach, rank=4)
    step_with(optimizer, weight, low_rank((8, 8), 3))
    step_with(optimizer, weight, low_rank((8, 8), 3, 1))
    optimizer.end_task()
    taken = optimizer.historical(weight)
    for t in range(5):
        update = step_with(optimizer, weight, low_rank((8, 8), 1, t))
        assert (taken.basis.T @ update).abs().max() < 1e-13
        assert update.abs().max() > 1e-3


def test_a_gradient_within_taken_directions_moves_nothing():
    weight, optimizer = one_weight((6, 5), threshold=1.0)
    grad = low_rank((6, 5), 2)
    step_with(optimizer, weight, grad)
    other = low_rank((6, 5), 3, 1)
    step_with(optimizer, weight, other)
    optimizer.end_task()
    basis = optimizer.historical(weight).basis
    assert step_with(optimizer, weight, basis @ basis.T @ grad).abs().max() == 0
    assert step_with(optimizer, weight, other + grad).abs().max() > 0


def outputs_moved(side):
    """How far a layer's outputs for a first task's inputs move while a second is learned."""
    torch.manual_seed(0)
    layer = nn.Linear(12, 9, bias=False).double()
    optimizer = CoSOAdamW(
        layer.parameters(), lr=0.01, rank=3, sketch_rank=8, threshold=0.9999, side=side
    )
    old = low_rank((40, 12), 3)
    for inputs in (old, low_rank((40, 12), 12, 1)):
        before = layer(old).detach()
        wanted = torch.randn(40, 9, dtype=torch.float64)
        for _ in range(30):
            optimizer.zero_grad()
            (layer(inputs) - wanted).square().mean().backward()
            optimizer.step()
        optimizer.end_task()
    return ((layer(old) - before).norm() / before.norm()).item()


def test_the_input_side_keeps_old_outputs_and_the_output_side_does_not():
    assert outputs_moved("output") > 0.01
    assert outputs_moved("input") < 0.2 * outputs_moved("output")


def test_a_kernel_is_a_matrix_in_any_memory_format():
    made = []
    grads = [torch.randn(6, 2, 3, 3, dtype=torch.float64) for _ in range(3)]
    for form in (torch.contiguous_format, torch.channels_last, None):
        shape = (6, 18) if form is None else (6, 2, 3, 3)
        weight = torch.zeros(shape, dtype=torch.float64)
        if form is not None:
            weight = weight.to(memory_format=form)
        weight = nn.Parameter(weight)
        optimizer = CoSOAdamW([weight], lr=0.1, rank=2, sketch_rank=4, side="input")
        for grad in grads:
            step_with(optimizer, weight, grad.view(6, 18) if form is None else grad)
        made.append(weight.detach().reshape(6, 18))
    assert torch.allclose(made[0], made[2])
    assert torch.allclose(made[1], made[2])


# Tasks


def test_a_task_begins_as_the_first_did_but_for_what_is_taken():
    model = net()
    optimizer = coso(model, threshold=0.0)
    train(model, optimizer, 5)
    optimizer.end_task()
    assert optimizer.task == 1
    fresh = net()
    set_weights(fresh, weights(model))
    other = coso(fresh, threshold=0.0)
    train(model, optimizer, 5)
    train(fresh, other, 5)
    assert same(weights(model), weights(fresh))
    assert set(optimizer.used(model.named_parameters()).values()) == {0.0}


@pytest.mark.parametrize("stop", range(0, 13, 2))
def test_resuming_across_tasks_changes_nothing(stop):
    def go_on(model, optimizer, steps):
        for t in steps:
            if t in (4, 8):
                optimizer.end_task()
            train(model, optimizer, range(t, t + 1))

    model = net()
    optimizer = coso(model, threshold=0.8, update_proj_gap=3)
    go_on(model, optimizer, range(12))
    first = net()
    paused = coso(first, threshold=0.8, update_proj_gap=3)
    go_on(first, paused, range(stop))
    subject = Subject(make=lambda m: coso(m, threshold=0.8, update_proj_gap=3))
    again, resumed = reload(subject, first, paused)
    go_on(again, resumed, range(stop, 12))
    assert same(weights(again), weights(model))
    assert same(saved(resumed.state_dict()), saved(optimizer.state_dict()))
    assert resumed.task == 2
    assert all(0 < share < 1 for share in resumed.used(again.named_parameters()).values())


def test_a_copy_goes_on_alike():
    model = net()
    optimizer = coso(model)
    train(model, optimizer, 6)
    optimizer.end_task()
    twin, other = copy.deepcopy((model, optimizer))
    train(model, optimizer, range(6, 9))
    train(twin, other, range(6, 9))
    assert same(weights(model), weights(twin))


def test_a_late_group_is_in_the_same_task():
    weight, optimizer = one_weight((4, 4))
    step_with(optimizer, weight, low_rank((4, 4), 2))
    optimizer.end_task()
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(4, 4))], "rank": None})
    assert [group["task"] for group in optimizer.param_groups] == [1, 1]


def test_a_task_without_gradients_takes_nothing():
    weight, optimizer = one_weight((4, 4))
    optimizer.end_task()
    step_with(optimizer, weight, low_rank((4, 4), 3))
    optimizer.end_task()
    taken = optimizer.historical(weight).dimension
    optimizer.end_task()
    assert optimizer.historical(weight).dimension == taken > 0
    assert optimizer.task == 3


def test_a_state_holds_plain_values_of_the_size_promised():
    weight = nn.Parameter(torch.zeros(64, 128))
    optimizer = CoSOAdamW([weight], rank=4, sketch_rank=10)
    step_with(optimizer, weight, torch.randn(64, 128))
    state = optimizer.state_dict()["state"][0]
    assert all(isinstance(value, (int, torch.Tensor)) for value in state.values())
    numbers = sum(v.numel() for v in state.values() if isinstance(v, torch.Tensor))
    assert numbers == 2 * 4 * 128 + 64 * 4 + 64 * 10 + 10


def test_ranks_are_cut_to_what_a_matrix_has():
    weight, optimizer = one_weight((5, 3), rank=50, sketch_rank=120)
    step_with(optimizer, weight, torch.randn(5, 3, dtype=torch.float64))
    state = optimizer.state[weight]
    assert state["projection"].shape == (5, 3)
    assert state["sketch"].shape == (5, 2)
    share, other = one_weight((8, 12), rank=0.25, sketch_rank=0.5)
    step_with(other, share, torch.randn(8, 12, dtype=torch.float64))
    assert other.state[share]["projection"].shape == (8, 2)
    assert other.state[share]["sketch"].shape == (8, 4)


def test_it_warns_when_nearly_all_directions_are_taken():
    weight, optimizer = one_weight((3, 30), rank=3, sketch_rank=3, threshold=1.0)
    for _ in range(3):
        step_with(optimizer, weight, torch.randn(3, 30, dtype=torch.float64))
        if optimizer.historical(weight).dimension:
            break
        optimizer.end_task()
    step_with(optimizer, weight, torch.randn(3, 30, dtype=torch.float64))
    basis = torch.eye(3, dtype=torch.float64)
    optimizer.state[weight]["historical"] = basis
    with pytest.warns(UserWarning, match="100% of a matrix's directions"):
        optimizer.end_task()


def test_it_warns_of_weight_decay_once_something_is_protected():
    weight, optimizer = one_weight((6, 6), weight_decay=0.1)
    step_with(optimizer, weight, torch.randn(6, 6, dtype=torch.float64))
    with pytest.warns(UserWarning, match="weight decay"):
        optimizer.end_task()


# Between two subspaces


def trained_with_signs(align, flip, monkeypatch):
    """Weights when the signs of singular vectors are drawn by lot."""
    import trainplan.optim.coso_update as update
    from trainplan.optim.frequent_directions import left_singular

    random = torch.Generator().manual_seed(0)

    def flipped(matrix, most=None):
        vectors, values = left_singular(matrix, most)
        signs = torch.randint(0, 2, values.shape, generator=random) * 2 - 1
        return (vectors * signs if flip else vectors), values

    monkeypatch.setattr(update, "left_singular", flipped)
    model = net(torch.float64)
    train(model, coso(model, update_proj_gap=1, align=align))
    return weights(model)


@pytest.mark.parametrize("align", ["none", "signs", "transport"])
def test_aligned_moments_do_not_depend_on_the_signs_of_vectors(align, monkeypatch):
    as_found = trained_with_signs(align, False, monkeypatch)
    by_lot = trained_with_signs(align, True, monkeypatch)
    apart = difference(as_found, by_lot, weights(net(torch.float64)))
    assert (apart < 1e-9) == (align != "none")


def test_every_gradient_joins_the_sketch_with_a_gap_of_one():
    grads = [low_rank((6, 7), 6, seed) for seed in range(4)]
    sketches = {}
    for gap in (None, 1):
        weight, optimizer = one_weight((6, 7), update_proj_gap=4, sketch_gap=gap)
        projections = []
        for grad in grads:
            step_with(optimizer, weight, grad)
            projections.append(optimizer.state[weight]["projection"])
        assert all(torch.equal(p, projections[0]) for p in projections)
        sketches[gap] = optimizer.state[weight]["sketch_values"]
    expected = tp.optim.FrequentDirections(rank=4)
    expected.add(grads[0])
    assert torch.allclose(sketches[None], expected.values)
    for grad in grads[1:]:
        expected.add(grad)
    assert torch.allclose(sketches[1], expected.values)


def test_a_later_gradient_of_zero_keeps_the_subspace():
    weight, optimizer = one_weight((5, 5))
    step_with(optimizer, weight, low_rank((5, 5), 3))
    projection = optimizer.state[weight]["projection"].clone()
    step_with(optimizer, weight, torch.zeros(5, 5, dtype=torch.float64))
    assert torch.equal(optimizer.state[weight]["projection"], projection)


def test_random_projections_find_the_same_and_leave_the_generator_alone():
    found = {}
    for svd in ("full", "lowrank"):
        weight = nn.Parameter(torch.zeros(60, 50, dtype=torch.float64))
        optimizer = CoSOAdamW([weight], lr=0.1, rank=3, sketch_rank=6, svd=svd)
        before = torch.random.get_rng_state()
        for seed in range(3):
            step_with(optimizer, weight, low_rank((60, 50), 5, seed))
        assert torch.equal(before, torch.random.get_rng_state())
        found[svd] = optimizer.state[weight]
    for name in ("projection", "sketch"):
        one, two = (found[svd][name] for svd in ("full", "lowrank"))
        assert torch.allclose(one @ one.T, two @ two.T, atol=1e-6)


# With a library


def test_the_example_with_transformers_protects_the_first_task(tmp_path):
    pytest.importorskip("transformers")
    import with_coso

    optimizer, moved = with_coso.learn(tmp_path)
    assert optimizer.task == 2
    assert 0 < moved < 1e-5  # something was taken, and only rounding moves along it


# Bad input


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("rank", 0),
        ("rank", 1.5),
        ("rank", True),
        ("sketch_rank", None),
        ("sketch_rank", 10),
        ("update_proj_gap", 0),
        ("sketch_gap", 0),
        ("threshold", 1.1),
        ("threshold", float("nan")),
        ("decay", -0.1),
        ("side", "left"),
        ("align", "sign"),
        ("svd", "fast"),
        ("betas", (0.9, 1.0)),
        ("betas", (0.9,)),
        ("eps", -1e-8),
        ("lr", float("nan")),
        ("weight_decay", -0.1),
    ],
)
def test_what_cannot_be_meant_is_refused(setting, value):
    with pytest.raises(PlanError, match=setting):
        CoSOAdamW([nn.Parameter(torch.zeros(3, 3))], **{setting: value})
    with pytest.raises(PlanError, match=rf"param_groups\[0\].*{setting}"):
        CoSOAdamW([{"params": [nn.Parameter(torch.zeros(3, 3))], setting: value}])


def test_complex_and_infinite_gradients_are_refused():
    weight = nn.Parameter(torch.zeros(3, 3, dtype=torch.complex64))
    weight.grad = torch.ones_like(weight)
    with pytest.raises(PlanError, match="complex"):
        CoSOAdamW([weight]).step()
    weight = nn.Parameter(torch.zeros(3, 3))
    weight.grad = torch.full((3, 3), float("inf"))
    with pytest.raises(PlanError, match="not finite"):
        CoSOAdamW([weight]).step()
