"""Train with JAX and Optax under a plan, stop anywhere, and go on as if nothing had happened."""

import jax
import jax.numpy as jnp
import optax

import trainplan as tp

plan = tp.Plan(
    horizon=12,
    lr=tp.schedules.wsd(peak=0.05, warmup="25%", decay="25%"),
    weight_decay=tp.schedules.linear(0.1, end=0.01),
    betas=(0.9, tp.schedules.linear(0.99, end=0.95)),
)
optimizer = tp.optax.inject(plan, optax.adamw, mask=lambda params: {"w": True, "b": False})

x = jax.random.normal(jax.random.key(0), (32, 4))
y = x.sum(axis=1)


def loss(params):
    return jnp.mean((x @ params["w"] + params["b"] - y) ** 2)


@jax.jit
def update(params, opt_state):
    changes, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, changes), opt_state


def begin():
    params = {"w": jnp.zeros(4), "b": jnp.zeros(())}
    return params, optimizer.init(params)


if __name__ == "__main__":
    params, opt_state = begin()
    for _ in range(12):
        params, opt_state = update(params, opt_state)
        print(tp.optax.values(plan, opt_state))  # what this update has used
