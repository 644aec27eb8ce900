"""Masks stay as sparse as they are, finished tasks stay as they were, and runs can be resumed."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import trainplan as tp
from optim.training import batch, loss_of, net, same, saved
from trainplan.errors import PlanError
from trainplan.optim import DynamicSparse, layer_densities
from trainplan.optim.drop_fraction import DropFraction
from trainplan.optim.rewiring import DROPS, GROWTHS, Growth, drop, grow

STEPS, EVERY = 9, 2
OPTIMIZERS = {
    "sgd": lambda ps: torch.optim.SGD(ps, 0.05, momentum=0.9, weight_decay=0.1),
    "adamw": lambda ps: torch.optim.AdamW(ps, 0.01, weight_decay=0.3),
    "adam, foreach": lambda ps: torch.optim.Adam(ps, 0.01, foreach=True, amsgrad=True),
    "rmsprop": lambda ps: torch.optim.RMSprop(ps, 0.003, momentum=0.5, centered=True),
    "adafactor": lambda ps: torch.optim.Adafactor(ps, 0.01),
    "apollo": lambda ps: tp.optim.APOLLO(list(ps), 0.01, rank=2),
}
RULES = [("magnitude", rule) for rule in GROWTHS] + [(rule, "random") for rule in DROPS[1:]]


def start(optimizer="adamw", density=0.3, model=None, **options):
    model = net() if model is None else model
    sparse = DynamicSparse(model, density, **{"every": EVERY} | options)
    made = OPTIMIZERS[optimizer](model.parameters())
    sparse.attach(made)
    return model, sparse, made


def train(model, optimizer, first=0, last=STEPS, clip=None):
    for t in range(first, last):
        optimizer.zero_grad()
        loss_of(model, t).backward()
        if clip is not None:
            clip()
        optimizer.step()


def learn(model, sparse, optimizer, task, offset=0):
    sparse.begin(task, steps=STEPS)
    train(model, optimizer, offset, offset + STEPS)
    sparse.end()


@pytest.mark.parametrize(("drop_rule", "growth"), RULES)
def test_inactive_weights_are_zero_and_the_density_holds(drop_rule, growth):
    model, sparse, optimizer = start(drop=drop_rule, grow=growth)
    sparse.begin("a", steps=STEPS)
    first = {name: layer.mask.clone() for name, layer in sparse.layers.items()}
    train(model, optimizer)
    for name, layer in sparse.layers.items():
        assert not layer.param[~layer.mask].any()
        assert layer.mask.sum() == first[name].sum()
    assert any(not torch.equal(first[n], layer.mask) for n, layer in sparse.layers.items())


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adam, foreach", "rmsprop"])
def test_backward_transfer_is_zero_to_the_bit(optimizer, growth):
    model, sparse, made = start(optimizer, grow=growth, density=0.4)
    images = batch(500, size=32)[0]
    outputs = {}
    for k, task in enumerate("abc"):
        learn(model, sparse, made, task, offset=50 * k)
        for old in sparse.tasks:
            with sparse.activated(old), torch.no_grad():
                assert torch.equal(model(images), outputs.setdefault(old, model(images)))
    assert not torch.equal(outputs["a"], outputs["b"])


@pytest.mark.parametrize("optimizer", ["adafactor", "apollo"])
def test_optimizers_whose_state_is_no_weight_for_weight_forget_nothing_either(optimizer):
    model, sparse, made = start(optimizer)
    images = batch(500)[0]
    learn(model, sparse, made, "a")
    first = model(images)
    learn(model, sparse, made, "b", offset=50)
    with sparse.activated("a"):
        assert torch.equal(model(images), first)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_even_a_run_that_diverges_leaves_finished_tasks_alone(dtype):
    model, sparse, optimizer = start(density=0.5, model=net(dtype))
    images = batch(500, dtype)[0]
    learn(model, sparse, optimizer, "a")
    first = model(images)
    sparse.begin("b", steps=STEPS)
    for p in model.parameters():
        p.grad = torch.full_like(p, math.nan)
    optimizer.step()
    for layer in sparse.layers.values():
        assert not layer.param[~layer.mask].any()
        assert layer.param[layer.mask & ~layer.used].isnan().all()
    with sparse.activated("a"):
        assert torch.equal(model(images), first)


def test_masks_follow_a_model_to_another_type():
    model, sparse, optimizer = start()
    learn(model, sparse, optimizer, "a")
    model.to(torch.float64)
    images = batch(500, torch.float64)[0]
    with sparse.activated("a"):
        first = model(images)
    learn(model, sparse, optimizer, "b")
    with sparse.activated("a"):
        assert torch.equal(model(images), first)


def test_running_statistics_belong_to_their_task():
    torch.manual_seed(0)
    norm = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(96, 3))
    model, sparse, optimizer = start(model=norm)
    images = batch(500)[0]
    learn(model, sparse, optimizer, "a")
    first = model.eval()(images)
    model.train()
    learn(model, sparse, optimizer, "b", offset=50)
    model.eval()
    assert not torch.equal(model(images), first)
    now = [p.clone() for p in model.parameters()]
    with sparse.activated("a"):
        assert torch.equal(model(images), first)
    assert same(now, list(model.parameters()))  # the model is itself again afterwards


def test_a_subnetwork_works_in_a_plain_model_and_holds_only_what_is_active():
    model, sparse, optimizer = start()
    learn(model, sparse, optimizer, "a")
    images = batch(500)[0]
    expected = model(images)
    learn(model, sparse, optimizer, "b", offset=50)
    plain = net(seed=5)
    plain.load_state_dict(sparse.subnetwork("a"))
    assert torch.equal(plain(images), expected)
    stored = sparse.subnetwork("a", layout="coo")
    active = sum(stored[name].values().numel() for name in sparse.layers)
    total = sum(layer.mask.numel() for layer in sparse.layers.values())
    assert active == round(sparse.density("a") * total)
    plain.load_state_dict({k: v.to_dense() if v.is_sparse else v for k, v in stored.items()})
    assert torch.equal(plain(images), expected)


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("step", [1, 2, 5, 8])
def test_resuming_in_a_second_task_changes_nothing(growth, step):
    model, sparse, optimizer = start(grow=growth, seed=3)
    learn(model, sparse, optimizer, "a")
    sparse.begin("b", steps=STEPS)
    train(model, optimizer, 50, 50 + step)
    kept = saved({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    train(model, optimizer, 50 + step, 50 + STEPS)
    sparse.end()

    again, other, made = start(grow=growth, model=net(seed=9), seed=8)
    again.load_state_dict(kept["model"])
    made.load_state_dict(kept["optimizer"])
    train(again, made, 50 + step, 50 + STEPS)
    other.end()
    assert same(model.state_dict(), again.state_dict())
    assert same(sparse.state_dict(), other.state_dict())
    assert other.tasks == ("a", "b")


def test_gradient_growth_avoids_weights_of_earlier_tasks_unless_told():
    shares = {}
    for reuse in (None, True):
        model, sparse, optimizer = start(grow="gradient", density=0.3, reuse=reuse)
        learn(model, sparse, optimizer, "a")
        sparse.begin("b", steps=STEPS)
        before = {n: layer.mask & layer.used for n, layer in sparse.layers.items()}
        train(model, optimizer, 50, 50 + STEPS)
        shares[reuse] = sum(
            int((layer.mask & layer.used & ~before[n]).sum()) for n, layer in sparse.layers.items()
        )
    assert shares[None] == 0 < shares[True]


def test_what_grows_onto_an_earlier_tasks_weight_gets_its_value():
    model, sparse, optimizer = start(grow="random", density=0.5)
    learn(model, sparse, optimizer, "a")
    sparse.begin("b", steps=STEPS)
    before = {n: layer.mask.clone() for n, layer in sparse.layers.items()}
    train(model, optimizer, 50, 50 + STEPS)
    regrown = 0
    for name, layer in sparse.layers.items():
        shared = layer.mask & layer.used
        assert torch.equal(layer.param[shared], layer.store[shared])
        regrown += int((shared & ~before[name]).sum())
    assert regrown


def test_new_weights_begin_at_zero_with_fresh_moments():
    model, sparse, optimizer = start("adamw", grow="gradient")
    sparse.begin("a", steps=100)
    train(model, optimizer, 0, EVERY - 1)
    before = {n: layer.mask.clone() for n, layer in sparse.layers.items()}
    train(model, optimizer, EVERY - 1, EVERY)
    for name, layer in sparse.layers.items():
        new = layer.mask & ~before[name]
        assert not layer.param[new].any()
        for moment in ("exp_avg", "exp_avg_sq"):
            assert not optimizer.state[layer.param][moment][new | ~layer.mask].any()


def test_gradients_grow_where_they_were_largest_although_they_are_masked():
    model, sparse, optimizer = start(grow="gradient", drop_fraction=0.5)
    sparse.begin("a", steps=100)
    train(model, optimizer, 0, EVERY - 1)
    optimizer.zero_grad()
    loss_of(model, EVERY - 1).backward()
    layer = sparse.layers["6.weight"]
    dense, old = layer.param.grad.clone(), layer.mask.clone()
    sparse.mask_gradients()
    assert not layer.param.grad[~old].any()
    optimizer.step()
    new, still_out = layer.mask & ~old, ~layer.mask & ~old
    assert dense[new].abs().min() >= dense[still_out].abs().max()


def test_the_last_updates_of_a_task_and_static_masks_are_not_rewired():
    model, sparse, optimizer = start(every=4)
    sparse.begin("a", steps=STEPS)
    train(model, optimizer, 0, 5)
    mask = sparse.layers["2.weight"].mask.clone()
    train(model, optimizer, 5, STEPS)
    assert torch.equal(mask, sparse.layers["2.weight"].mask)
    model, sparse, optimizer = start(every=0)
    sparse.begin("a")
    mask = sparse.layers["2.weight"].mask.clone()
    train(model, optimizer)
    assert torch.equal(mask, sparse.layers["2.weight"].mask)


def test_a_plan_drives_the_drop_fraction():
    model, sparse, optimizer = start(drop_fraction=None, every=1)
    plan = tp.Plan(horizon=4, lr=0.01, drop_fraction=tp.schedules.linear(0.4))
    run = tp.torch.attach(plan, optimizer, others="error")
    sparse.begin("a", steps=10)
    found = []
    for t in range(4):
        train(model, optimizer, t, t + 1)
        found.append(sparse.fraction())
    assert found == [plan.at(t)["drop_fraction"] for t in range(4)]
    assert run.t == 4


def test_density_one_trains_like_a_dense_network():
    model, sparse, optimizer = start(density=1.0)
    learn(model, sparse, optimizer, "a")
    dense = net()
    plain = OPTIMIZERS["adamw"](dense.parameters())
    train(dense, plain)
    assert same(list(model.parameters()), list(dense.parameters()))


def test_a_skipped_update_does_not_leave_stale_gradients():
    model, sparse, optimizer = start(grow="gradient", every=1)
    sparse.begin("a", steps=10)
    loss_of(model, 0).backward()
    sparse.mask_gradients()  # and a scaler finds infinities: no step
    train(model, optimizer, 1, 2, clip=sparse.mask_gradients)
    again, other, made = start(grow="gradient", every=1)
    other.begin("a", steps=10)
    train(again, made, 1, 2)
    assert same(sparse.state_dict(), other.state_dict())


@pytest.mark.parametrize("step", [5, 13])
def test_lightning_resumes_bit_by_bit_and_forgets_nothing(tmp_path, step):
    example = pytest.importorskip("with_dynamic_sparse")
    x = torch.randn(20, 16, generator=torch.Generator().manual_seed(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = example.TwoTasks()
        example.learn(whole, "left", tmp_path)
        first = whole(x)
        example.learn(whole, "right", tmp_path)
        again = example.TwoTasks()
        example.learn(again, "right", tmp_path, resume=tmp_path / f"right-step={step}.ckpt")
    assert same(whole.state_dict(), again.state_dict())
    assert same(whole.sparse.state_dict(), again.sparse.state_dict())
    for module in (whole, again):
        module.task = "left"
        with module.sparse.activated("left"):
            assert torch.equal(module(x), first)


@pytest.mark.parametrize("step", [4])
def test_transformers_resumes_bit_by_bit(tmp_path, step):
    pytest.importorskip("transformers")
    from optim.tiny_trainer import fit
    from optim.training import Subject

    followed = []

    def make(model):
        sparse = DynamicSparse(model, 0.3, grow="gradient", every=2)
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        sparse.attach(optimizer)
        sparse.begin("a", steps=7)
        followed.append(sparse)
        return optimizer

    whole = fit(Subject(make), "made", tmp_path)
    again = fit(Subject(make), "made", tmp_path / "b", resume=tmp_path / f"checkpoint-{step}")
    assert same(whole.model.state_dict(), again.model.state_dict())
    assert same(followed[0].state_dict(), followed[1].state_dict())
    assert len(followed[0].layers) == 4  # the transposed linear layers of one block, not the head


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.integers(1, 60), min_size=2, max_size=4).map(tuple), min_size=1, max_size=5
    ),
    st.floats(0.01, 1.0),
    st.floats(0.0, 2.0),
)
def test_erk_keeps_the_total(shapes, density, power):
    named = {str(i): shape for i, shape in enumerate(shapes)}
    found = layer_densities(named, density, power=power)
    sizes = {name: math.prod(shape) for name, shape in named.items()}
    kept = sum(found[name] * sizes[name] for name in named)
    assert kept == pytest.approx(density * sum(sizes.values()))
    assert all(0 < share <= 1 + 1e-9 for share in found.values())


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31),
    st.floats(0.0, 1.0),
    st.sampled_from(DROPS),
    st.sampled_from(GROWTHS),
    st.booleans(),
)
def test_rewiring_keeps_the_number_and_its_promises(seed, fraction, rule, growth, reuse):
    random = torch.Generator().manual_seed(seed)
    mask = torch.rand(7, 5, generator=random) < 0.4
    weight = torch.randn(7, 5, generator=random) * mask
    grad = torch.randn(7, 5, generator=random)
    used = torch.rand(7, 5, generator=random) < 0.3
    kept = drop(mask, weight, fraction, rule, grad)
    assert not (kept & ~mask).any()
    if rule in ("magnitude", "taylor"):
        assert mask.sum() - kept.sum() == math.ceil(fraction * int(mask.sum()))
    number = int(mask.sum() - kept.sum())
    how = Growth(growth, reuse=reuse)
    new = grow(kept, number, how, signal=grad, used=used, generator=random)
    assert new.sum() == mask.sum()
    assert not (kept & ~new).any()
    free = ~kept & ~used
    if not reuse:
        assert int((new & ~kept & used).sum()) == max(0, number - int(free.sum()))


def test_unfired_entries_grow_first():
    kept = torch.tensor([True, False, False, False])
    fired = torch.tensor([True, True, True, False])
    for seed in range(5):
        random = torch.Generator().manual_seed(seed)
        assert grow(kept, 1, Growth("unfired"), fired=fired, generator=random)[3]


def test_bernoulli_growth_hits_its_number_on_average():
    kept = torch.zeros(40_000, dtype=torch.bool)
    random = torch.Generator().manual_seed(0)
    grown = int(grow(kept, 8000, Growth(bernoulli=True), generator=random).sum())
    assert grown != 8000
    assert abs(grown - 8000) < 4 * math.sqrt(8000 * 0.8)


def test_inits_differ_and_every_unit_can_be_given_an_input():
    model = net()
    by_size = DynamicSparse(model, 0.25, init="magnitude", every=0)
    by_size.begin("a")
    sizes = torch.cat([layer.store.abs().flatten() for layer in by_size.layers.values()])
    mask = torch.cat([layer.mask.flatten() for layer in by_size.layers.values()])
    assert sizes[mask].min() >= sizes[~mask].max()
    few = DynamicSparse(net(), 0.001, per_unit=2, every=0)
    few.begin("a")
    assert all((layer.mask.flatten(1).sum(1) >= 2).all() for layer in few.layers.values())
    given = dict.fromkeys(few.layers, 0.5)
    assert DynamicSparse(net(), given).densities == given


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"density": 0}, "density"),
        ({"density": 1.5}, "density"),
        ({"density": {"nothing": 0.5}}, "density"),
        ({"density": {"0.weight": 0.5}}, "density"),
        ({"init": "er"}, "init"),
        ({"drop": "size"}, "drop"),
        ({"grow": "grad"}, "grow"),
        ({"grow": "gradient", "bernoulli": True}, "bernoulli"),
        ({"drop_fraction": 1.5}, "drop_fraction"),
        ({"every": -1}, "every"),
        ({"skip": ["nothing"]}, "skip"),
        ({"skip": ["0", "2", "4", "6", "8"]}, "model"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, place):
    with pytest.raises(PlanError) as error:
        DynamicSparse(net(), **options)
    assert error.value.place == place


def test_tasks_and_optimizers_are_refused_where_they_do_not_fit():
    model, sparse, optimizer = start()
    with pytest.raises(PlanError, match=r"steps"):
        sparse.begin("a")  # the drop fraction is relative to the task's length
    with pytest.raises(PlanError, match="Call begin"):
        sparse.end()
    learn(model, sparse, optimizer, "a")
    with pytest.raises(PlanError, match="another name"):
        sparse.begin("a", steps=9)
    with pytest.raises(PlanError, match="no such finished task"):
        sparse.subnetwork("b")
    with pytest.raises(PlanError, match="dense or coo"):
        sparse.subnetwork("a", layout="csr")
    with pytest.raises(PlanError, match="detach"):
        DynamicSparse(model).attach(optimizer)
    with pytest.raises(PlanError, match="no masks"):
        optimizer.load_state_dict(OPTIMIZERS["adamw"](model.parameters()).state_dict())
    other = DynamicSparse(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(PlanError, match="other layers"):
        other.load_state_dict(sparse.state_dict())
    with pytest.raises(PlanError, match="not the state"):
        other.load_state_dict({})
    sparse.detach()
    assert DynamicSparse(model).attach(optimizer) is None


def test_momentum_growth_needs_a_momentum():
    model = net()
    sparse = DynamicSparse(model, 0.3, grow="momentum", every=1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse.attach(optimizer)
    sparse.begin("a", steps=9)
    with pytest.raises(PlanError, match="no momentum"):
        train(model, optimizer, 0, 1)


def test_a_fraction_without_a_length_may_be_absolute():
    fraction = DropFraction(tp.schedules.linear(0.4, duration=10))
    fraction.begin(0)
    assert fraction(5, []) == pytest.approx(0.2)
