"""A plan inside jitted JAX code: the same numbers as outside, at any count, after any restart."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import jax.numpy as jnp  # noqa: E402
import with_optax as example  # noqa: E402

import trainplan as tp  # noqa: E402

STEPS = 12
plan = example.plan


def run(steps, params, opt_state):
    for _ in range(steps):
        params, opt_state = example.update(params, opt_state)
    return params, opt_state


def as_numbers(tree):
    """A tree through NumPy arrays on disk would: no JAX object survives."""
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [jnp.asarray(np.asarray(leaf)) for leaf in leaves])


def assert_same(a, b):
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


@pytest.fixture(scope="module")
def uninterrupted():
    return run(STEPS, *example.begin())


@pytest.mark.parametrize("step", range(1, STEPS))
def test_resuming_at_any_step_changes_nothing(uninterrupted, step):
    saved = as_numbers(run(step, *example.begin()))
    assert_same(run(STEPS - step, *saved), uninterrupted)


def test_training_equals_plain_pytorch(uninterrupted):
    torch = pytest.importorskip("torch")
    x = torch.tensor(np.asarray(example.x))
    w, b = (torch.zeros(shape, requires_grad=True) for shape in (4, ()))
    optimizer = torch.optim.AdamW([{"params": [w]}, {"params": [b]}])
    for t in range(STEPS):
        values = plan.at(t)
        for group in optimizer.param_groups:
            group.update(values)
        optimizer.param_groups[1]["weight_decay"] = 0.0
        optimizer.zero_grad()
        ((x @ w + b - x.sum(dim=1)) ** 2).mean().backward()
        optimizer.step()
    params, _ = uninterrupted
    np.testing.assert_allclose(params["w"], w.detach(), rtol=2e-5)
    np.testing.assert_allclose(params["b"], b.detach(), rtol=2e-4)


def test_values_are_the_ones_that_the_last_update_used():
    params, state = example.begin()
    assert tp.optax.values(plan, state)["weight_decay"] == pytest.approx(0.1)
    for t in range(STEPS):
        params, state = example.update(params, state)
        used, meant = tp.optax.values(plan, state), plan.at(t)
        assert used["lr"] == pytest.approx(meant["lr"], rel=1e-6)
        assert used["weight_decay"] == pytest.approx(meant["weight_decay"], rel=1e-6)
        assert used["betas"] == pytest.approx(meant["betas"], rel=1e-6)


LONG = 2**25
SCHEDULES = {
    "linear": tp.schedules.linear(1.0),
    "wsd": tp.schedules.wsd(1.0, warmup="1%", decay="10%", shape="linear"),
    "cosine": tp.schedules.cosine(1.0, warmup=1000, end=0.0),
    "rex": tp.schedules.rex(1.0),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_float32_is_exact_past_2_to_the_24_inside_jit(name):
    schedule = SCHEDULES[name].resolve(LONG)
    counts = np.concatenate(
        [np.arange(5), LONG // 2 + np.arange(-3, 4), LONG - np.arange(5, 0, -1)]
    )
    inside = jax.jit(jax.vmap(schedule))(jnp.asarray(counts, dtype=jnp.int32))
    assert inside.dtype == jnp.float32
    np.testing.assert_allclose(inside, schedule(counts), rtol=2e-6, atol=0)


def test_the_last_of_2_to_the_25_steps_is_told_from_the_end():
    last = jax.jit(SCHEDULES["linear"].resolve(LONG))(jnp.int32(LONG - 1))
    assert float(last) == pytest.approx(1 / LONG, rel=1e-6)
    theirs = optax.linear_schedule(1.0, 0.0, LONG)(jnp.int32(LONG - 1))
    assert float(theirs) != pytest.approx(1 / LONG, rel=1e-6)  # why this is worth a test


def test_an_optimizer_that_counted_past_2_to_the_24_uses_the_exact_rate():
    long = tp.Plan(horizon=LONG, lr=tp.schedules.linear(1.0))
    optimizer = tp.optax.inject(long, optax.sgd)
    params = {"w": jnp.zeros(())}
    state = jax.tree.map(
        lambda x: jnp.int32(LONG - 2) if x.dtype == jnp.int32 else x, optimizer.init(params)
    )
    for left in (2, 1, 0):
        changes, state = jax.jit(optimizer.update)({"w": jnp.ones(())}, state, params)
        assert float(changes["w"]) == pytest.approx(-left / LONG, rel=1e-6, abs=0)


@pytest.mark.parametrize(
    ("unit", "rate", "per_step"),
    [
        ("tokens", {"tokens_per_step": 4_194_304}, 4_194_304),
        ("samples", {"samples_per_step": 4096}, 4096),
        ("epochs", {"steps_per_epoch": 1000}, 1 / 1000),
    ],
)
def test_other_units_than_steps_are_converted_exactly(unit, rate, per_step):
    updates = 300_000  # in tokens: 1.2e12, where float32 is off by 65536
    wsd = tp.schedules.wsd(1.0, warmup="1%", decay="10%", shape="linear")
    long = tp.Plan(horizon=updates * per_step, unit=unit, lr=wsd, **rate)
    schedule = jax.jit(jax.vmap(tp.optax.schedule(long)))
    counts = np.concatenate([np.arange(3), updates - np.arange(6, -3, -1)])
    times = counts / 1000 if unit == "epochs" else counts * per_step
    inside = schedule(jnp.asarray(counts, dtype=jnp.int32))
    np.testing.assert_allclose(inside, long["lr"](np.asarray(times)), rtol=1e-6, atol=0)


def test_a_plan_in_tokens_without_a_rate_is_driven_by_the_loop():
    tokens = tp.Plan(horizon=1000, unit="tokens", lr=tp.schedules.linear(1.0))
    with pytest.raises(tp.PlanError, match=r"lr: the host counts updates.*tokens_per_step"):
        tp.optax.schedule(tokens)
    optimizer = tp.optax.inject(tokens, optax.sgd)
    params, update = {"w": jnp.zeros(())}, jax.jit(optimizer.update)
    state = optimizer.init(params)
    for seen in (0, 300, 700):
        state = tp.optax.set_values(tokens, state, t=seen)
        changes, state = update({"w": jnp.ones(())}, state, params)
        assert float(changes["w"]) == pytest.approx(-(1 - seen / 1000))
    assert update._cache_size() == 1


def test_a_controller_drives_its_knob_and_schedules_go_on_by_themselves():
    controller = tp.schedules.ReduceOnPlateau(0.5, factor=0.5, patience=0)
    mixed = tp.Plan(horizon=4, lr=controller, momentum=tp.schedules.linear(0.8))
    optimizer = optax.chain(optax.clip(1.0), tp.optax.inject(mixed, optax.sgd))
    params = {"w": jnp.zeros(())}
    state = optimizer.init(params)
    used = []
    for t, loss in enumerate((1.0, 1.0, 0.5, 0.5)):
        state = tp.optax.set_values(mixed, state, t=t)
        _, state = jax.jit(optimizer.update)({"w": jnp.ones(())}, state, params)
        used.append(tp.optax.values(mixed, state))
        controller.observe(t, loss=loss)
    assert [v["lr"] for v in used] == [0.5, 0.5, 0.25, 0.25]
    assert [v["momentum"] for v in used] == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_multi_steps_counts_updates_and_not_micro_batches():
    schedule = tp.schedules.linear(1.0).resolve(10)
    optimizer = optax.MultiSteps(tp.optax.inject(tp.Plan(lr=schedule), optax.sgd), 2)
    params = {"w": jnp.zeros(())}
    state, used = optimizer.init(params), []
    for _ in range(6):
        changes, state = jax.jit(optimizer.update)({"w": jnp.ones(())}, state, params)
        used.append(-float(changes["w"]))
    assert used == pytest.approx([0, 1.0, 0, 0.9, 0, 0.8])


def test_a_longer_plan_takes_effect_from_a_saved_state():
    trunk = tp.Plan(horizon=10, lr=tp.schedules.wsd(1.0, warmup=2, decay="20%"))
    longer = trunk.extend(at=6, horizon=20)
    params, gradients = {"w": jnp.zeros(())}, {"w": jnp.ones(())}
    first = tp.optax.inject(trunk, optax.sgd)
    state = first.init(params)
    for _ in range(6):
        _, state = first.update(gradients, state, params)
    second = tp.optax.inject(longer, optax.sgd)
    for t in range(6, 20):
        changes, state = jax.jit(second.update)(gradients, state, params)
        assert -float(changes["w"]) == pytest.approx(longer["lr"](t), rel=1e-6)


def test_mistakes_are_named():
    with pytest.raises(tp.PlanError, match=r"mask_rate: adamw has no such argument"):
        tp.optax.inject(tp.Plan(mask_rate=0.1), optax.adamw)
    with pytest.raises(tp.PlanError, match=r"weight_decay: the plan already drives"):
        tp.optax.inject(plan, optax.adamw, weight_decay=0.1)
    with pytest.raises(tp.PlanError, match=r"betas: not one schedule"):
        tp.optax.schedule(plan, "betas")
    with pytest.raises(tp.PlanError, match=r"opt_state: no injected hyperparameters"):
        tp.optax.values(plan, optax.sgd(0.1).init({"w": jnp.zeros(())}))
    endless = tp.Plan(unit="tokens", tokens_per_step=8, lr=tp.schedules.constant(0.1, warmup=80))
    with pytest.raises(tp.PlanError, match=r"horizon: a plan in tokens needs its length"):
        tp.optax.schedule(endless)
    long = tp.Plan(horizon=1e12, unit="tokens", tokens_per_step=8, lr=0.1)
    with pytest.raises(tp.PlanError, match=r"horizon: more than .* updates"):
        tp.optax.schedule(long)
