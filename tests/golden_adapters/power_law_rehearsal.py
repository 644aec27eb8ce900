"""Probabilities and counts of tasks by their age."""

from trainplan.data import AgeSchedule


def schedule(inputs):
    return AgeSchedule(inputs["kind"], b=inputs["b"])


ADAPTERS = {
    "probability that a training example": lambda inputs: {
        "p_task_1_to_k": schedule(inputs).weights(inputs["phase"])
    },
    "examples per task in phase k": lambda inputs: {
        "counts_task_1_to_k": schedule(inputs).quotas(inputs["n_phase"], inputs["phase"])
    },
    "rehearsal-budget form": lambda inputs: {
        "rehearsal_counts_task_1_to_k_minus_1": schedule(inputs).rehearsal(
            inputs["N_current"], inputs["phase"], inputs["r"]
        )
    },
}
