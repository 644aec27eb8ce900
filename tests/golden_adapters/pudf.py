"""Abilities, difficulties, levels by each rule, and the examples of an epoch."""

import math

import numpy as np

from trainplan.data import (
    AbilityPacing,
    ability_subset,
    competence_count,
    difficulty_at,
    estimate_ability,
    fit_rasch,
    negative_log_posterior,
    pacing,
    rank_examples,
    rarity_difficulty,
    two_step_count,
)


def answers(inputs):
    return inputs["difficulties"], np.array(inputs["responses"]) > 0


def ability(inputs):
    found = estimate_ability(*answers(inputs))
    return {"theta_authors_nelder_mead": found, "theta_exact": found}


def posterior(inputs):
    found = negative_log_posterior(inputs["theta"], *answers(inputs))
    dropped = len(inputs["difficulties"]) * math.log(2)
    return {"neg_log_posterior": found, "authors_objective": found - dropped}


def selected(inputs):
    b, default = inputs["difficulty"], inputs["defaults"]
    labels = inputs["labels"] if inputs.get("balanced") else None
    ranking = rank_examples(b, inputs["ordering"], labels)
    strategy, epoch = inputs["strategy"], inputs.get("epoch", 0)
    if strategy in ("theta", "theta-hard"):
        window = {"lower": float(inputs.get("lo", "-inf")), "upper": float(inputs.get("hi", 0.0))}
        if strategy == "theta-hard":
            window = {"lower": 0.0, "upper": math.inf}
        least = inputs.get("minlen", default["min_train_length"])
        found = ability_subset(b, inputs["theta"], least=least, ranking=ranking, **window)
    elif strategy == "simple":
        found = ranking[: two_step_count(len(b), epoch, default["num_epochs"])]
    elif strategy.startswith("naacl-"):
        kind, start = strategy.removeprefix("naacl-"), default["c_init"]
        found = ranking[: competence_count(len(b), epoch, default["competency"], kind, start)]
    else:
        found = ranking
    return {"selected_indices": found, "selected_set": np.sort(found)}


def competencies(inputs):
    epochs = np.array(inputs["epochs"])
    start = inputs.get("c0", 0.01)
    return {kind: pacing(kind, start, inputs["T"])(epochs) for kind in ("linear", "root")}


def levels(before, after=None, **options):
    rule = AbilityPacing(before[0], **options)
    others = [None] * len(before) if after is None else after
    return [rule.level, *map(rule.update, before[1:], others)]


def released_rules(inputs):
    both = inputs["theta_before_epoch"], inputs["theta_after_epoch"]
    return {rule: levels(*both, rule=rule) for rule in ("glue", "ag_news", "gsm8k")}


def default_rule(inputs):
    return {
        f"patience_{patience}": levels(
            inputs["theta_before_epoch"], increment=inputs["increment"], patience=patience
        )
        for patience in inputs["patience"]
    }


def rasch(inputs):
    responses = np.array(inputs["responses_subjects_by_items"], dtype=float)
    fit = fit_rasch(responses, difficulty_sd=inputs["sb"])
    return {"theta": fit.abilities, "difficulty": fit.difficulties}


ADAPTERS = {
    "MAP ability": ability,
    "same; prior keeps": ability,
    "negative log posterior": posterior,
    "difficulty b at which": lambda inputs: {
        "threshold": difficulty_at(inputs["theta"], inputs["p_correct"])
    },
    "which training items": selected,
    "competency baselines": competencies,
    "threshold used to filter": released_rules,
    "same, when the two estimates": released_rules,
    "our default rule": default_rule,
    "word-rarity": lambda inputs: {"rarity": rarity_difficulty(inputs["texts"])},
    "joint MAP fit": rasch,
}
