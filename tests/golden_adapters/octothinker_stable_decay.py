"""OctoThinker's two stages, and the mixtures and costs of its branches."""

from trainplan import schedules as s
from trainplan.data import branch_cost, mixture_tokens


def stable_then_decay(inputs):
    schedule = s.stable_then_decay(
        inputs["lr_max"],
        inputs["stable_tokens"],
        inputs["decay_tokens"],
        inputs["lr_min"],
        inputs["shape"],
    )
    return {"lr": schedule(inputs["tokens"])}


def cost(inputs):
    decays = [inputs["decay_tokens"]] * inputs["branches"]
    shared, separate = branch_cost(inputs["stable_tokens"], decays)
    return {"shared_trunk": shared, "separate": separate}


def mixture(inputs):
    return {"tokens": mixture_tokens(inputs["weights"], inputs["decay_tokens"])}


ADAPTERS = {
    "learning rate after tok training tokens": stable_then_decay,
    "tokens trained for nb branches": cost,
    "tokens drawn from each source": mixture,
}
