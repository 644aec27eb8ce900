"""OctoThinker's two stages."""

from trainplan import schedules as s


def stable_then_decay(inputs):
    schedule = s.stable_then_decay(
        inputs["lr_max"],
        inputs["stable_tokens"],
        inputs["decay_tokens"],
        inputs["lr_min"],
        inputs["shape"],
    )
    return {"lr": schedule(inputs["tokens"])}


ADAPTERS = {"learning rate after tok training tokens": stable_then_decay}
