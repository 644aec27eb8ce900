"""Predict measured loss curves that the laws were not fitted to: accuracy, choice, bands, speed.

    python benchmarks/laws.py CURVES [--calibrate] [--coverage]

CURVES is a directory that holds, at any depth, folders ``csv_25``, ``csv_100``, ``csv_400`` of
thu-yao-01-luo/MultiPowerLaw (columns step, lr, loss) and a folder ``124m`` (and, to calibrate,
``210m`` and ``horizon_transfer``) of fabian-sp/lr-scheduling reduced to columns iter and val_loss.
Each model is fitted on a constant and a cosine curve; every other curve in its folder is predicted.
The same settings serve all models. ``--calibrate`` shows what the constants of
``trainplan.laws.predictor`` and the priors of the concave law come from: curves that are in no row
of the tables. ``--coverage`` chooses the model error of the bands on all models but one and
measures how many points of that one the 80 % bands hold, for fits to two curves and to one.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from trainplan import laws
from trainplan.laws.choosing import difference, trapezoid
from trainplan.laws.concave import Concave
from trainplan.laws.curves import Curve
from trainplan.laws.evidence import Evidence
from trainplan.laws.fitting import fit_law
from trainplan.laws.law import Prior
from trainplan.laws.predictor import MODEL_ERROR, Predictor
from trainplan.laws.views import view_of

KINDS = ("power", "annealing", "multi_power", "functional", "convex", "concave", "auto")
PUBLISHED = {  # MAE, worst point in %, mean final error; the best of the published laws
    "25M": (0.0044, 0.68, 0.0042),
    "100M": (0.0058, 1.05, 0.0051),
    "400M": (0.0059, 1.20, 0.0081),
    "124M .001": (0.0066, float("nan"), float("nan")),
    "124M .002": (0.0095, float("nan"), float("nan")),
}
AUTHORS_FIT_SECONDS = {
    "25M": 35.7,
    "100M": 24.5,
    "400M": 28.4,
    "124M .001": 59.6,
    "124M .002": 58.0,
}
AUTHORS_OBJECTIVE = {
    "25M": 2.12e-4, "100M": 7.82e-4, "400M": 3.81e-4, "124M .001": 3.23e-4, "124M .002": 4.52e-4,
}  # fmt: skip
PUBLISHED_100M = laws.MultiPower(
    2.6514477, 0.60115152, 0.45295811, 437.9464276, 2.13245612, 0.59785199, 0.65523644
)


@dataclass
class Task:
    """One model: what is fitted and what is predicted."""

    name: str
    given: list[Curve]
    unseen: list[Curve]


def multi_power_curves(folder: Path) -> dict[str, Curve]:
    """All curves of one model, with the rates of the authors' formulas."""
    curves = {}
    for path in sorted(folder.glob("*.csv")):
        (curve,) = laws.load(path, spikes="keep")
        rates = multi_power_rates(path.stem)
        if rates is not None:
            keep = curve.steps < rates.size
            curve = Curve(path.stem, curve.steps[keep], curve.loss[keep], rates, 2160)
        curves[path.stem] = curve
    return curves


def multi_power_rates(name: str) -> np.ndarray | None:
    """The rate of each step; None if the name is not one of theirs."""
    kind, _, rest = name.partition("_")
    total = 16_000 if kind == "wsdcon" else int(rest.split("_")[-1])
    step, peak, low = np.arange(total), 3e-4, 3e-5
    rates = np.full(total, peak)
    if kind == "cosine":
        rates = low + 0.5 * (peak - low) * (1 + np.cos(np.pi * (step - 2160) / (total - 2160)))
    elif kind == "wsdcon":
        rates[8000:] = float(rest) * 1e-5
    elif kind in ("wsd", "wsdld"):
        start = int(rest.split("_")[0])
        done = np.clip((step - start) / (total - start), 0, 1)
        rates = peak ** (1 - done) * low**done if kind == "wsd" else peak - (peak - low) * done
    elif kind != "constant":
        return None
    rates[:2160] = np.linspace(0, peak, 2160)
    return rates


def branch_rates(peak: float, kind: str, total: int) -> np.ndarray | None:
    """The rate of each step of the second data set."""
    step, rates = np.arange(total + 1), np.full(total + 1, peak)
    if kind.startswith("cos"):
        low = 0.0 if kind == "coszero" else 0.1 * peak
        rates = low + 0.5 * (peak - low) * (1 + np.cos(np.pi * (step - 300) / (total - 300)))
        rates[:300] = peak * 0.5 * (1 - np.cos(np.pi * step[:300] / 300))
        return rates
    for shape in ("wsd_linear", "wsd_sqrt"):
        if kind.startswith(shape):
            start = total - float(kind[len(shape) :]) * total
            done = np.clip((step - start) / (total - start), 0, 1)
            rates = peak * (1 - (done if shape == "wsd_linear" else np.sqrt(done)))
    if not kind.startswith(("wsd", "constant", "base", "extend")):
        return None
    rates[:300] = peak * step[:300] / 300
    return rates


def branch_curves(folder: Path, peak: str) -> dict[str, Curve]:
    """All curves of one peak rate, from step 2000."""
    curves = {}
    for path in sorted(folder.glob(f"lr{peak}_*.csv")):
        kind, _, total = path.stem.split("_", 1)[1].rpartition("_T")
        curves[f"{kind}_T{total}"] = branch_curve(path, branch_rates(float(peak), kind, int(total)))
    return {name: curve for name, curve in curves.items() if curve}


def branch_curve(path: Path, rates: np.ndarray | None) -> Curve | None:
    """One curve; None if its schedule is unknown."""
    if rates is None:
        return None
    (curve,) = laws.load(path, loss="val_loss", plan=rates, spikes="keep")
    curve = curve.between(2000, rates.size)
    return Curve(path.stem, curve.steps, curve.loss, rates, 300)


def tasks(root: Path) -> list[Task]:
    """The models whose curves are there."""
    found = []
    for size in ("25", "100", "400"):
        for folder in root.rglob(f"csv_{size}"):
            curves = multi_power_curves(folder)
            found.append(_task(f"{size}M", curves, ("constant_24000", "cosine_24000")))
    for folder in root.rglob("124m"):
        for peak in ("0.001", "0.002"):
            curves = branch_curves(folder, peak)
            found.append(_task(f"124M {peak[1:]}", curves, ("constant_T50000", "cos10_T25000")))
    return found


def _task(name: str, curves: dict[str, Curve], given: tuple[str, ...]) -> Task:
    return Task(name, [curves[n] for n in given], [c for n, c in curves.items() if n not in given])


def errors(predictor: Predictor, curves: list[Curve]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Predicted minus measured loss of each curve, and whether the band holds each point."""
    wrong, held = [], []
    for curve in curves:
        ahead = predictor.predict(curve.rates, at=curve.steps)
        wrong.append(ahead.loss - curve.loss)
        held.append((ahead.low <= curve.loss) & (curve.loss <= ahead.high))
    return wrong, held


def accuracy(found: list[Task]) -> dict[str, Predictor]:
    print("\nCurves that were not fitted (MAE in nats; worst point; final error, mean)")
    print(
        f"{'model':10} {'law':12} {'MAE':>8} {'worst %':>8} {'final':>8} {'in 80% band':>12} "
        f"{'fit s':>7}"
    )
    predictors, means = {}, {kind: [] for kind in KINDS}
    for task in found:
        for kind in KINDS:
            start = time.process_time()
            predictor = laws.fit(kind, task.given)
            seconds = time.process_time() - start
            wrong, held = errors(predictor, task.unseen)
            mae = float(np.mean([np.abs(e).mean() for e in wrong]))
            worst = max(
                float((np.abs(e) / c.loss).max()) for e, c in zip(wrong, task.unseen, strict=True)
            )
            final = float(np.mean([abs(e[-1]) for e in wrong]))
            inside = float(np.mean(np.concatenate(held)))
            means[kind].append(mae)
            print(
                f"{task.name:10} {kind:12} {mae:8.5f} {100 * worst:8.2f} {final:8.4f} "
                f"{100 * inside:11.0f}% {seconds:7.2f}"
            )
            predictors[task.name] = predictor
        best = PUBLISHED.get(task.name, (float("nan"),) * 3)
        print(f"{task.name:10} {'published':12} {best[0]:8.5f} {best[1]:8.2f} {best[2]:8.4f}")
    for kind in KINDS:
        print(f"mean MAE of {kind}: first three {np.mean(means[kind][:3]):.5f}")
    print("\nEach curve, auto (MAE / worst % / final error / share in the band)")
    for task in found:
        wrong, held = errors(predictors[task.name], task.unseen)
        for curve, e, h in zip(task.unseen, wrong, held, strict=True):
            worst = 100 * float((np.abs(e) / curve.loss).max())
            print(
                f"{task.name:10} {curve.name:28} {np.abs(e).mean():.5f} / {worst:.2f} / "
                f"{e[-1]:+.4f} / {h.mean():.2f}"
            )
    return predictors


def choosing(found: list[Task], predictors: dict[str, Predictor]) -> None:
    print("\nChoosing among schedules of one length (mean of the last three points)")
    gains = []
    for task in found:
        if not task.name.startswith("124M"):
            continue
        curves = {c.name.split("_", 1)[1]: c for c in task.given + task.unseen}
        for total in (25_000, 50_000):
            here = {n: c for n, c in curves.items() if n.endswith(f"_T{total}")}
            measured = {n: float(c.loss[c.steps < total][-3:].mean()) for n, c in here.items()}
            predicted = {
                n: float(
                    predictors[task.name]
                    .predict(c.rates, at=c.steps[c.steps < total][-3:])
                    .loss.mean()
                )
                for n, c in here.items()
            }
            pick, best = min(predicted, key=predicted.get), min(measured, key=measured.get)
            order = spearmanr(list(measured.values()), list(predicted.values()))[0]
            print(
                f"{task.name} T={total}: {len(here)} schedules, Spearman {order:.2f}, regret "
                f"{measured[pick] - measured[best]:.4f} (picks {pick}, best {best})"
            )
            gains += _gains(predictors[task.name], here, measured, total)
    inside = np.mean([low <= g <= high for g, _, low, high in gains])
    unsaid = [
        (g, p, low, high)
        for g, p, low, high in gains
        if not (low <= g <= high) and not 1 / 1.3 <= p / g <= 1.3
    ]
    known = [(g, p) for g, p, low, high in gains if low > 0 or high < 0]
    factor = [max(p / g, g / p) if p * g > 0 else np.inf for g, p in known]
    print(
        f"gain of WSD over cosine, {len(gains)} pairs: the 80 % band holds {100 * inside:.0f} %; "
        f"{len(known)} bands exclude zero, there the gain is off by a factor of "
        f"{np.median(factor):.2f} (median), {max(factor):.2f} (most)"
    )
    print(f"off by more than a factor of 1.3 and outside the band: {len(unsaid)} of {len(gains)}")
    for g, p, low, high in unsaid:
        print(f"  measured {g:+.4f}, predicted {p:+.4f} ({low:+.4f} to {high:+.4f})")


def _gains(predictor, here, measured, total):
    rows = []
    for cos in (n for n in here if n.startswith("cos")):
        for wsd in (n for n in here if n.startswith("wsd")):
            d = difference(
                predictor, here[wsd].rates[: total - 200], here[cos].rates[: total - 200]
            )
            rows.append((measured[cos] - measured[wsd], d.gain, d.low, d.high))
    return rows


def speed(found: list[Task]) -> None:
    print("\nSpeed (CPU time, one thread)")
    for task in found:
        start = time.process_time()
        fitted = fit_law("multi_power", task.given)
        seconds = time.process_time() - start
        theirs, objective = AUTHORS_FIT_SECONDS[task.name], AUTHORS_OBJECTIVE[task.name]
        print(
            f"multi-power fit {task.name:10} {seconds:6.3f} s "
            f"(authors {theirs} s, x{theirs / seconds:.0f}), "
            f"objective {fitted.objective:.2e} (authors {objective:.2e})"
        )
    rates = multi_power_rates("cosine_72000")
    view = view_of(rates, None, 2160)
    times = [_clock(lambda: PUBLISHED_100M.on(view)) for _ in range(7)]
    at = np.arange(2200, 72_000, 997)
    exact = np.array([PUBLISHED_100M.on(view_of(rates, at[i : i + 20], 2160)) for i in (0, 20, 40)])
    error = np.abs(PUBLISHED_100M.on(view)[at[:60]] - exact.reshape(-1)).max()
    print(
        f"all 72000 steps of a cosine: {1000 * min(times):.0f} ms (authors 13.9 s), "
        f"error {error:.0e}"
    )
    alone = Predictor(
        (PUBLISHED_100M,), (1.0,), Evidence(3e-4, 24_000, 2160, 0.1, False, ("a", "b"), 128), 0.0
    )
    seconds = _clock(lambda: laws.optimize(alone, 24_000))
    chosen = laws.optimize(alone, 24_000)
    theirs = trapezoid(3e-4, 24_000, 2160, 0.12 * 21_840 / 24_000, 1.45, 0.0045)
    losses = [
        float(PUBLISHED_100M.on(view_of(s(np.arange(24_000.0)), [23_999], 2160))[0])
        for s in (chosen.schedule, theirs)
    ]
    print(
        f"optimizing a schedule: {seconds:.2f} s (authors 24.3 s), predicted loss {losses[0]:.5f} "
        f"(the shape that the authors' optimizer ends in: {losses[1]:.5f})"
    )


def _clock(work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def calibrate(root: Path) -> None:
    """What the concave law's memory and the expected errors come from."""
    sets = calibration_sets(root)
    print("\nObjective of the concave law by its speed c4, on curves that are in no table")
    priors, guesses = dict(Concave.priors), dict(Concave.guesses)
    for name in ("210M .0005", "124M, other data"):
        row = []
        for speed_ in (5, 12, 25, 35, 50, 100, 200):
            fixed = {"c4": Prior(speed_, 1e-3), "gamma": Prior(0.5, 1e-3)}
            Concave.priors, Concave.guesses = priors | fixed, guesses | {"c4": speed_}
            row.append(f"{speed_}: {1e5 * fit_law('concave', sets[name]).objective:.2f}")
        print(f"  {name:18}", "  ".join(row))
    Concave.priors, Concave.guesses = priors, guesses
    print("MAE in 1/1000 nats of predictions among them")
    a, b, c = (sets[n] for n in ("210M .0005", "210M .001", "124M, other data"))
    splits = [
        (a[:2], a[2]), ([a[0], a[2]], a[1]), (b[:1], b[1]), (b[1:], b[0]), (c[:1], c[1]),
        (c[1:], c[0]),
    ]  # fmt: skip
    for kind in KINDS:
        maes = [
            1000 * float(np.abs(np.expm1(-law.residuals(unseen)) * unseen.loss).mean())
            for given, unseen in splits
            for law in laws.fit(kind, given).laws[:1]
            if kind != "auto"
        ]
        if maes:
            mean = np.exp(np.mean(np.log(maes)))
            print(
                f"  {kind:12}", " ".join(f"{m:6.2f}" for m in maes), f" geometric mean {mean:.1f}"
            )


@dataclass
class Ahead:
    """A prediction of a curve that was not fitted: relative errors, and what is known of them."""

    wrong: np.ndarray
    spread: np.ndarray
    noise: float

    def held(self, model_error: float) -> float:
        """The share of points in the 80 % band."""
        sigma = np.sqrt(self.spread**2 + model_error**2 + self.noise**2)
        return float((np.abs(self.wrong) < 1.2816 * sigma).mean())


def predictions(given: list[Curve], unseen: list[Curve]) -> list[Ahead]:
    predictor, made = laws.fit("auto", given), []
    for curve in unseen:
        loss, doubt = predictor.mixed(curve.rates, curve.steps)
        made.append(Ahead((loss - curve.loss) / loss, doubt, predictor.noise))
    return made


def coverage(found: list[Task]) -> None:
    """Coverage of the bands on a model that had no part in choosing their width."""
    for title, constant, made in (
        ("two curves", MODEL_ERROR, {t.name: predictions(t.given, t.unseen) for t in found}),
        ("one curve", MODEL_ERROR, {t.name: from_one(t) for t in found}),
    ):
        print(f"\n80 % bands after a fit to {title}, their model error chosen on the other models")
        for name, own in made.items():
            size = name.split()[0]  # both peaks of a size are left out together
            others = [ahead for n, ahead in made.items() if n.split()[0] != size]
            chosen = width_for(others, 0.8)
            shares = [a.held(chosen) for a in own]
            shipped = np.mean([a.held(constant) for a in own])
            print(
                f"{name:10} model error {chosen:.4f}: {100 * np.mean(shares):3.0f} % of the points "
                f"of {len(own)} curves ({100 * min(shares):.0f} to {100 * max(shares):.0f}); "
                f"with the {constant} of the package {100 * shipped:.0f} %"
            )
        pooled = width_for(list(made.values()), 0.8)
        print(f"all models: {pooled:.4f} would hold 80 %")


def from_one(task: Task) -> list[Ahead]:
    """Fits to each decaying curve alone, of schedules no longer than it."""
    curves = task.given + task.unseen
    falling = [c for c in curves if c.rates[c.warmup :].min() < 0.9 * c.peak]
    return [
        ahead
        for c in falling
        for ahead in predictions([c], [o for o in curves if o is not c and o.last <= c.last])
    ]


def width_for(groups: list[list[Ahead]], share: float) -> float:
    """The model error whose bands hold a share of the points, each model counting alike."""
    grid = np.geomspace(1e-4, 5e-2, 200)
    held = [np.mean([np.mean([a.held(x) for a in group]) for group in groups]) for x in grid]
    return float(grid[int(np.searchsorted(held, share))]) if held[-1] >= share else grid[-1]


def calibration_sets(root: Path) -> dict[str, list[Curve]]:
    folder = next(root.rglob("210m"))
    transfer = next(root.rglob("horizon_transfer"))
    low, high = branch_curves(folder, "0.0005"), branch_curves(folder, "0.001")
    other = []
    for name, total in (
        ("base_wsd_linear0.2_T50000", 50_000),
        ("extend50k_wsd_linear0.2_T100000", 100_000),
    ):
        other.append(
            branch_curve(transfer / f"{name}.csv", branch_rates(1e-3, "wsd_linear0.2", total))
        )
    return {
        "210M .0005": [
            low[n] for n in ("constant_T40000", "wsd_linear0.2_T22222", "wsd_linear0.2_T33333")
        ],
        "210M .001": [high[n] for n in ("cos_T22222", "cos_T44444")],
        "124M, other data": other,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("curves", type=Path)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--coverage", action="store_true")
    options = parser.parse_args()
    found = tasks(options.curves)
    if not found:
        print(f"{options.curves} holds none of the folders csv_25, csv_100, csv_400, 124m")
        return 2
    machine = platform.processor() or platform.machine()
    print(f"{machine}, Python {platform.python_version()}, NumPy {np.__version__}")
    predictors = accuracy(found)
    choosing(found, predictors)
    speed(found)
    if options.coverage:
        coverage(found)
    if options.calibrate:
        calibrate(options.curves)
    return 0


if __name__ == "__main__":
    sys.exit(main())
