"""Sizes of rounds, counts, weights from losses, and probabilities of inclusion."""

from trainplan.data import (
    cyclic_counts,
    cyclic_sizes,
    inclusion_probabilities,
    loss_weights,
    ramp_sizes,
    round_counts,
)

KINDS = {"inverse": "easy"}


def sizes(inputs):
    ends = inputs["start_percent"], inputs["end_percent"]
    found = cyclic_sizes(*ends, inputs["multiplier"], budget=inputs["epoch_budget"])
    return {"sizes": found}


def counts(inputs):
    return {"counts": round_counts(inputs["n_examples"], sizes(inputs)["sizes"])}


def weights(inputs):
    kind = KINDS.get(inputs["mode"], inputs["mode"])
    rate = {} if inputs.get("lam") is None else {"rate": inputs["lam"]}
    return {"probs": loss_weights(inputs["losses"], kind, **rate)}


def ramp(growing):
    def found(inputs):
        options = {"budget": inputs["epoch_budget"], "hold": inputs["hold_rounds"]}
        return {
            "sizes": ramp_sizes(inputs["edge"], inputs["multiplier"], growing=growing, **options)
        }

    return found


def integers(inputs):
    return {
        "counts": cyclic_counts(
            inputs["n_examples"],
            inputs["start_percent"],
            inputs["end_percent"],
            inputs["multiplier"],
            budget=inputs["total_samples"],
            strategy=inputs["strategy"],
        )
    }


ADAPTERS = {
    "cyclical data-size schedule": sizes,
    "per-round sample counts": counts,
    "sampling probabilities": weights,
    "comparator: monotone growing": ramp(growing=True),
    "comparator: monotone shrinking": ramp(growing=False),
    "integer-count variant": integers,
    "inclusion probability": lambda inputs: {
        "inclusion": inclusion_probabilities(inputs["weights"], inputs["k"])
    },
}
