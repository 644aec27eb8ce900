"""Mixed contexts of a bigram model, layouts of examples, schedules, and the gap of exposure."""

import torch

from trainplan.data import (
    answer_example,
    continue_prompts,
    correction_example,
    exposure_gap,
    own_tokens,
    teacher_forcing,
)
from trainplan.schedules import linear


def bigram(inputs):
    table = torch.tensor(inputs["next_token_logits"], dtype=torch.float64)
    return lambda ids: table[ids]


def interleaved(inputs, mode):
    model = bigram(inputs)
    truth = torch.tensor([[inputs["bos"], *inputs["ground_truth"]]])
    answer = torch.arange(truth.shape[1])[None] > 0
    u = torch.tensor([[1.0, *inputs["u"]]], dtype=torch.float64)
    found = {"mixed_tokens": [], "own_tokens": [], "mean_nll": []}
    for beta in inputs["betas"]:
        mixed, own = own_tokens(model, truth, answer, u, beta, mode=mode)
        loss = torch.nn.functional.cross_entropy(model(mixed)[0, :-1], truth[0, 1:])
        found["mixed_tokens"].append(mixed[0, 1:].tolist())
        found["own_tokens"].append(own[0, 1:].tolist())
        found["mean_nll"].append(loss.item())
    return found


def layout(inputs):
    made = answer_example(
        inputs["prompt"], inputs["ground_truth"], inputs["eos"], context=inputs["mixed"]
    )
    return {"input_ids": made["input_ids"][:-1], "labels_for_next_token": made["labels"][1:]}


def correction(inputs):
    parts = (inputs[name] for name in ("prompt", "own_answer", "instruction", "reference", "eos"))
    made = correction_example(*parts)
    return {"input_ids": made["input_ids"], "labels_same_position": made["labels"]}


def schedules(inputs):
    rounds, most = inputs["rounds"], inputs["beta_max"]
    kept = {
        "eps_linear": teacher_forcing("linear", inputs["c"], least=inputs["eps_min"]),
        "eps_exponential": teacher_forcing("exponential", inputs["k"]),
        "eps_inverse_sigmoid": teacher_forcing("inverse_sigmoid", inputs["ks"]),
    }
    ramp = linear(0.0, end=most, duration=inputs["N"] - 1) if inputs["N"] > 1 else most
    own = {
        "linear_ramp": ramp,
        **{name.replace("eps", "beta_from"): kept[name] * -most + most for name in kept},
    }
    curves = {**kept, **own}
    return {
        name: curve(rounds).tolist() if callable(curve) else [curve] * len(rounds)
        for name, curve in curves.items()
    }


def gap(inputs):
    names = ("reference_transition", "next_token_logits", "bos", "steps")
    taught, free = exposure_gap(*(inputs[name] for name in names))
    return {
        "kl_teacher_forced": taught.tolist(),
        "kl_free_running": free.tolist(),
        "gap": (free - taught).tolist(),
    }


def free_run(inputs):
    start = torch.tensor([[inputs["bos"]]])
    run = [
        continue_prompts(bigram(inputs), start, inputs["max_len"], eos=eos)[0]
        for eos in inputs["eos_values"]
    ]
    return {"generated": run}


INTERLEAVING = (
    "context interleaving for one answer with a first-order (bigram) language model given by "
    "next_token_logits[prev]; own token = argmax; position t keeps ground truth unless "
    "u[t] < beta; mode "
)

ADAPTERS = {
    INTERLEAVING + "mixed": lambda inputs: interleaved(inputs, "mixed"),
    INTERLEAVING + "teacher": lambda inputs: interleaved(inputs, "teacher"),
    INTERLEAVING + "free": lambda inputs: interleaved(inputs, "free"),
    "packed sequence": layout,
    "reference-answer correction": correction,
    "own-token probability": schedules,
    "for a first-order reference process": gap,
    "greedy continuation": free_run,
}
