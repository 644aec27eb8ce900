"""The law with annealing: areas, prediction, objective, and fits on curves in a folder."""

from pathlib import Path

import numpy as np

from trainplan import laws
from trainplan.laws.annealing import Annealing, areas
from trainplan.laws.curves import Curve
from trainplan.laws.fitting import huber

WARMUP, PEAK = 2160, 3e-4
PUBLISHED_LIMITS = 0.007


def two_areas(inputs):
    s1, s2 = areas(np.array(inputs["lr"]), inputs["lambda"], inputs.get("skip_first", 0))
    at = inputs.get("report_at", list(range(s1.size)))
    return {"S1": s1[at], "S2": s2[at]}


def predict(inputs):
    s1, s2 = np.array(inputs["S1"]), np.array(inputs["S2"])
    return {"loss": inputs["L0"] + inputs["A"] * s1 ** -inputs["alpha"] - inputs["C"] * s2}


def objective(inputs):
    residuals = np.log(inputs["observed"]) - np.log(inputs["predicted"])
    return {"objective": huber(residuals, inputs["delta"])}


def fit(inputs):
    folder = Path(inputs["data_folder"])
    for root in (Path(), *Path(__file__).resolve().parents):
        if (root / folder).is_dir():
            folder = root / folder
            break
    curves = {name: _curve(folder, name) for name in (*inputs["train"], *inputs["test"])}
    given = [curves[name] for name in inputs["train"]]
    found = laws.fit_law("annealing", given, options={"lam": inputs["lambda"]})
    law = found.law
    assert isinstance(law, Annealing)
    mape = {
        name: float(np.mean(np.abs(np.expm1(-law.residuals(curves[name])))))
        for name in inputs["test"]
    }
    values = {name: getattr(law, name) for name in ("L0", "A", "C", "alpha")}
    limits = inputs.get("mape_limit", {})
    return values | {
        "objective_times_1000": 1000 * found.objective,
        "mape": mape,
        "mape_limit": {name: _within(mape[name], limits.get(name)) for name in mape},
    }


def _within(value, limit):
    """The limit if it is met; the limit may not be among the inputs, then the published errors."""
    limit = PUBLISHED_LIMITS if limit is None else limit
    return limit if value < limit else float("nan")


def _curve(folder, name):
    (loaded,) = laws.load(folder / f"{name}.csv")
    kind, _, number = name.partition("_")
    total = 16_000 if kind == "wsdcon" else int(number)
    s = np.arange(total)
    lr = np.full(total, PEAK)
    lr[:WARMUP] = np.linspace(0, PEAK, WARMUP)
    if kind == "cosine":
        turn = np.cos(np.pi * (s[WARMUP:] - WARMUP) / (total - WARMUP))
        lr[WARMUP:] = 3e-5 + 0.5 * 2.7e-4 * (1 + turn)
    if kind == "wsdcon":
        lr[8000:] = float(number) * 1e-5
    keep = loaded.steps < total
    return Curve(name, loaded.steps[keep], loaded.loss[keep], lr, WARMUP)


ADAPTERS = {
    "forward area S1[s]": two_areas,
    "L = L0 + A*S1^(-alpha) - C*S2": predict,
    "fit objective: sum over points": objective,
    "fit L0,A,C,alpha": fit,
}
