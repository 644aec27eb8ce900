"""The computed order: examples at offsets of an epoch."""

import numpy as np

from trainplan.data import Order


def examples(inputs):
    order = Order(inputs["n"], inputs["seed"], stream=inputs.get("stream", 0))
    return {"examples": order.at_offsets(np.asarray(inputs["offsets"]), inputs["epoch"])}


ADAPTERS = {"order(seed, stream": examples}
