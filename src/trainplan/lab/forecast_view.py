"""Predictions beside their outcomes: for the terminal, and for the report."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from trainplan.lab.figures import Figure, colour
from trainplan.lab.forecast import ArmForecast, Check, Forecast, checks
from trainplan.lab.results import Comparison

TITLES = ("arm", "predicted", "band", "measured", "error", "in band", "error over the curve")


def sentences(comparison: Comparison) -> list[str]:
    """What the prediction was worth, the most important first."""
    forecast, found = comparison.forecast, checks(comparison)
    if forecast is None:
        return []
    said = []
    fitted = _listed(forecast.fitted)
    if found:
        inside = sum(check.inside for check in found)
        worst = max(found, key=lambda check: abs(check.error))
        said.append(
            f"A law fitted to {fitted} predicted {len(found)} of {len(forecast.arms)} other arms; "
            f"{inside} of {len(found)} final losses lie in their {forecast.level:.0%} bands, and "
            f"the largest error is {worst.error:+.4f} ({worst.arm})."
        )
    if len(found) > 1:
        said.append(_order(found))
    silent = [entry for entry in forecast.arms if entry.cannot_tell]
    said += [f"{e.arm} could not be predicted: {'; '.join(e.cannot_tell)}." for e in silent]
    known = {check.arm for check in found}
    said += [
        f"{e.arm} was predicted and diverged."
        for e in forecast.arms
        if not e.cannot_tell and e.arm not in known
    ]
    said += _late(forecast)
    return said


def _order(found: list[Check]) -> str:
    predicted, measured = (
        [c.arm for c in sorted(found, key=key)]
        for key in (lambda c: c.predicted, lambda c: c.measured)
    )
    if predicted == measured:
        return f"Their order was predicted: {' < '.join(measured)}."
    gap = abs(
        next(c.measured for c in found if c.arm == predicted[0]) - min(c.measured for c in found)
    )
    return (
        f"Predicted order: {' < '.join(predicted)}; measured: {' < '.join(measured)}. Taking the "
        f"arm with the lowest prediction costs {gap:.4f} against the best of them."
    )


def _late(forecast: Forecast) -> list[str]:
    """A prediction of arms that were partly trained is no worse, but the reader should know."""
    begun = [e for e in forecast.arms if e.trained and not e.cannot_tell]
    if not begun:
        return []
    shares = ", ".join(f"{e.arm} {e.trained / max(e.planned, 1):.0%}" for e in begun)
    return [
        "When the law was asked, the others had done this share of the steps that they do not "
        f"share with a fitted arm: {shares}."
    ]


def _listed(names: Iterable[str]) -> str:
    *rest, last = names
    return f"{', '.join(rest)} and {last}" if rest else last


def _cells(check: Check) -> tuple[str, ...]:
    return (
        f"{check.predicted:.4f}",
        f"{check.low:.4f} to {check.high:.4f}",
        f"{check.measured:.4f}",
        f"{check.error:+.4f}",
        "yes" if check.inside else "no",
        f"{check.mean_error:.2%}",
    )


def terminal_table(comparison: Comparison) -> Table | None:
    """Predicted and measured final losses; ``None`` without a prediction that has an outcome."""
    found = checks(comparison)
    if not found:
        return None
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for title in TITLES[:-1]:
        table.add_column(title, justify="left" if title == "arm" else "right")
    for check in found:
        *cells, _ = _cells(check)
        table.add_row(Text(check.arm), *cells)
    return table


def section(comparison: Comparison) -> str:
    """The section of the report; empty without a prediction."""
    forecast = comparison.forecast
    if forecast is None or not forecast.made:
        return ""
    texts = "".join(f"<li>{html.escape(text)}</li>" for text in sentences(comparison))
    shares = ", ".join(f"{name} {share:.0%}" for name, share in forecast.shares.items())
    plots = "".join(f'<div class="plot" id="{name}"></div>' for name in figures(comparison))
    mixed = f" Laws and their shares: {html.escape(shares)}." if shares else ""
    return (
        "<section><h2>Predicted and measured</h2><p>A law was fitted to the mean validation loss "
        f"of {html.escape(_listed(forecast.fitted))} alone. Dashed lines and bands "
        f"({forecast.level:.0%}) are what it said of the others, dots what was measured (mean over "
        f"seeds).{mixed}</p><ul>{texts}</ul><div class='pair'>{plots}</div>{_table(comparison)}"
        "</section>"
    )


def _table(comparison: Comparison) -> str:
    found = checks(comparison)
    if not found:
        return ""
    names = [arm.name for arm in comparison.experiment.arms]
    head = "".join(f"<th>{title}</th>" for title in TITLES)
    rows = "".join(
        f"<tr><th scope='row'><i style='background:{colour(names.index(check.arm))}'></i>"
        f"{html.escape(check.arm)}</th>"
        f"{''.join(f'<td>{cell}</td>' for cell in _cells(check))}</tr>"
        for check in found
    )
    return (
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def figures(comparison: Comparison) -> dict[str, Figure]:
    """A plot per predicted arm, all with the same vertical axis, by the id of its place."""
    forecast = comparison.forecast
    if forecast is None:
        return {}
    names = [arm.name for arm in comparison.experiment.arms]
    drawn = [entry for entry in forecast.arms if entry.steps]
    ranges = _range(drawn)
    return {
        f"prediction-{names.index(entry.arm)}": _figure(
            comparison, entry, names.index(entry.arm), ranges
        )
        for entry in drawn
    }


def _range(entries: list[ArmForecast]) -> list[float]:
    """Without the steep first quarter, which would flatten all that matters."""
    settled = [np.array([e.low, e.high])[:, len(e.low) // 4 :] for e in entries]
    if not settled:
        return [0.0, 1.0]
    low, high = min(x.min() for x in settled), max(x.max() for x in settled)
    margin = 0.08 * (high - low) or 0.1
    return [float(low - margin), float(high + margin)]


def _figure(comparison: Comparison, entry: ArmForecast, index: int, ranges: list[float]) -> Figure:
    runs = [comparison.runs[entry.arm, seed] for seed in comparison.experiment.seeds]
    shade = colour(index)
    edge = {
        "type": "scatter",
        "mode": "lines",
        "x": list(entry.steps),
        "line": {"width": 0, "color": shade},
        "showlegend": False,
        "hoverinfo": "skip",
    }
    band = {**edge, "y": list(entry.low), "fill": "tonexty", "fillcolor": f"{shade}33"}
    line = {
        **edge,
        "y": list(entry.loss),
        "name": "predicted",
        "line": {"width": 2.2, "dash": "dash", "color": shade},
        "showlegend": True,
        "hoverinfo": "all",
        "hovertemplate": "%{y:.4f}",
    }
    length = min(run.evaluated.size for run in runs)
    mean = np.mean([run.metrics["loss"][:length] for run in runs], axis=0) if length else []
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": runs[0].evaluated[:length].tolist(),
        "y": [round(float(v), 6) if np.isfinite(v) else None for v in mean],
        "name": "measured",
        "marker": {"size": 5, "color": shade},
        "hovertemplate": "%{y:.4f}",
    }
    name = html.escape(entry.arm, quote=False)
    layout: dict[str, Any] = {
        "showlegend": True,
        "hovermode": "x unified",
        "xaxis": {"title": {"text": f"steps of {name}"}, "zeroline": False},
        "yaxis": {"title": {"text": "validation loss"}, "zeroline": False, "range": ranges},
        "height": 320,
    }
    return {"data": [{**edge, "y": list(entry.high)}, band, line, dots], "layout": layout}
