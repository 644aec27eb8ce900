"""Chinese ModernBERT's masking rate, whole words and damped cosine."""

from trainplan import schedules as s
from trainplan.data import mask_rate, select_words


def mask_ratio(inputs):
    schedule = mask_rate(inputs["low"], inputs["high"], inputs["warmup_steps"])
    return {"ratio": schedule.resolve(inputs["total_steps"])(inputs["s"])}


def mask_ratio_falling(inputs):
    schedule = s.linear(inputs["high"], inputs["low"], duration=inputs["total_steps"])
    return {"ratio": schedule(inputs["s"])}


def damped_cosine(inputs):
    schedule = s.damped_cosine(
        inputs["lr_peak"],
        inputs["lr_min"],
        inputs["cycles"],
        inputs["gamma"],
        warmup=0,
        duration=inputs["total_steps"],
    )
    return {"lr": schedule(inputs["s"])}


def whole_words(inputs):
    chosen = select_words(inputs["word_ids"], inputs["word_order"], inputs["rate"])
    return {
        "selected_words": list(chosen.words),
        "token_mask": chosen.tokens.astype(int),
        "budget": chosen.budget,
    }


ADAPTERS = {
    "whole-word mask ratio at step s": mask_ratio,
    "mask ratio hi to lo linearly over the whole run": mask_ratio_falling,
    "damped cosine learning rate at step s": damped_cosine,
    "visit words in the given order": whole_words,
}
