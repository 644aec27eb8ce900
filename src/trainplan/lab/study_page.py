"""The outcome of a study as one HTML page that needs nothing else."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from trainplan._version import __version__
from trainplan.lab.study_outcome import ClaimOutcome, StudyOutcome, rule

_COLOURS = {"reproduced": "#12a67c", "contradicted": "#d9480f", "inconclusive": "#8a8f98"}
_WIDTH, _HEIGHT, _LEFT, _RIGHT = 720, 112, 20, 20

_EXTRA = """
.verdict { display: inline-block; border-radius: 999px; padding: 2px 14px; color: #fff;
  font-weight: 600; font-size: 15px; }
.chart { width: 100%; max-width: 760px; height: auto; font-size: 12px; }
.chart text { fill: var(--soft); }
.claim { border-top: 1px solid var(--line); padding: 16px 0 4px; }
.claim:first-of-type { border-top: 0; padding-top: 4px; }
.claim p { margin: 4px 0; }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>@@TITLE@@</title>
<link rel="icon" href="data:,">
<style>@@STYLE@@</style>
</head>
<body>
<header><div><h1>@@TITLE@@</h1><p>@@SUBTITLE@@</p></div></header>
<main>
<section class="conclusion"><h2>@@CLAIM@@</h2><p>@@BADGE@@</p><ul>@@SUMMARY@@</ul></section>
<section><h2>The claims</h2>
<p>Dots are seeds; the diamond and its bar are the mean advantage and the interval that decides.
Right of the dashed margin speaks for the claim, left of it against.</p>
@@CLAIMS@@</section>
<section><h2>Every seed</h2>@@SEEDS@@</section>
<section><h2>How it was decided</h2><p>@@RULE@@</p>@@TUNING@@</section>
<section><h2>How it was run</h2>
<div class="columns"><div><h3>Study</h3>@@STUDY@@</div>
<div><h3>Environment</h3>@@ENVIRONMENT@@</div></div>
</section>
</main>
<footer>Made by trainplan @@VERSION@@.</footer>
</body>
</html>
"""


def render(outcome: StudyOutcome) -> str:
    """The whole page."""
    study = outcome.study
    note = {"note": study.note} if study.note else {}
    time = f"{outcome.seconds:.0f} s, {outcome.cpu_seconds:.0f} s of CPU time"
    about = {"budget": study.budget, "time": time, **note}
    parts = {
        "TITLE": html.escape(study.paper),
        "SUBTITLE": html.escape(_subtitle(outcome)),
        "STYLE": _style() + _EXTRA,
        "CLAIM": html.escape(study.claim),
        "BADGE": _badge(outcome.verdict) + (" shortened run, no evidence" if outcome.quick else ""),
        "SUMMARY": "".join(f"<li>{html.escape(text)}</li>" for text in outcome.sentences),
        "CLAIMS": "\n".join(_claim(found, study.exact) for found in outcome.claims),
        "SEEDS": "\n".join(_table(outcome, metric) for metric in study.metrics),
        "RULE": html.escape(rule(study, outcome.looks)),
        "TUNING": "\n".join(_tuning(outcome)),
        "STUDY": _definitions({**about, **outcome.provenance.get("digests", {})}),
        "ENVIRONMENT": _definitions(outcome.provenance.get("environment", {})),
        "VERSION": html.escape(__version__),
    }
    return re.sub(r"@@([A-Z]+)@@", lambda match: parts[match[1]], _PAGE)


def _style() -> str:
    """The style of the lab's report, so that the pages look alike."""
    page = resources.files("trainplan.lab").joinpath("report.html").read_text(encoding="utf-8")
    found = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    return found[1] if found else ""


def _subtitle(outcome: StudyOutcome) -> str:
    date = str(outcome.provenance.get("environment", {}).get("date", ""))[:10]
    seeds = "exact, no seeds" if outcome.study.exact else f"{len(outcome.results)} seeds"
    return f"{seeds}, {outcome.seconds:.0f} s. {date}"


def _badge(verdict: str) -> str:
    return f'<span class="verdict" style="background:{_COLOURS[verdict]}">{verdict}</span>'


def _claim(found: ClaimOutcome, exact: bool) -> str:
    role = "" if found.claim.decides else " (reported, does not decide)"
    chart = "" if exact else _chart(found)
    return (
        f'<div class="claim"><p><strong>{html.escape(found.claim.text)}</strong></p>'
        f"<p>{_badge(found.verdict)}{role} advantage {html.escape(found.figure)}, "
        f"margin {found.claim.margin:g}</p>{chart}</div>"
    )


def _chart(found: ClaimOutcome) -> str:
    """Seeds as dots, mean and interval below them, the margin as a dashed line."""
    interval, margin = found.interval, found.claim.margin
    marks = [margin, 0.0, interval.estimate, interval.low, interval.high, *found.advantages]
    finite = [x for x in marks if math.isfinite(x)]
    low, high = min(finite), max(finite)
    span = (high - low) or 1.0
    low, high = low - 0.05 * span, high + 0.05 * span

    def place(x: float) -> float:
        return _LEFT + (x - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
        return f'<line x1="{x1:.1f}" y1="{y1}" x2="{x2:.1f}" y2="{y2}" {style}/>'

    colour = _COLOURS[found.verdict]
    soft = 'stroke="var(--soft)"'
    shapes = [line(place(0.0), 8, place(0.0), 84, f'{soft} stroke-width="1" opacity="0.5"')]
    shapes.append(line(place(margin), 8, place(margin), 84, f'{soft} stroke-dasharray="5 4"'))
    for number, x in enumerate(found.advantages):
        if math.isfinite(x):
            y = 18 + 7 * (number % 4)
            shapes.append(
                f'<circle cx="{place(x):.1f}" cy="{y}" r="4.5" fill="{colour}" opacity="0.6"/>'
            )
    if math.isfinite(interval.low) and math.isfinite(interval.high):
        style = f'stroke="{colour}" stroke-width="3"'
        shapes.append(line(place(interval.low), 64, place(interval.high), 64, style))
    if math.isfinite(interval.estimate):
        x = place(interval.estimate)
        corners = f"{x:.1f},57 {x + 7:.1f},64 {x:.1f},71 {x - 7:.1f},64"
        shapes.append(f'<polygon points="{corners}" fill="{colour}"/>')
    shapes.append(_tick(place(0.0), "0"))
    if abs(place(margin) - place(0.0)) > 40:
        shapes.append(_tick(place(margin), f"margin {margin:g}"))
    label = html.escape(f"Advantage of {found.claim.label}: {found.figure}")
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        + "".join(shapes)
        + "</svg>"
    )


def _tick(x: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="102" text-anchor="middle">{html.escape(text)}</text>'


def _table(outcome: StudyOutcome, metric: str) -> str:
    columns = [(arm, values) for arm in outcome.arms if (values := outcome.values(arm, metric))]
    if not columns:
        return ""
    head = "".join(f"<th>{html.escape(arm)}</th>" for arm, _ in columns)
    rows: list[tuple[str, Sequence[float | None]]] = [
        ("value" if seed < 0 else f"seed {seed}", [values[index] for _, values in columns])
        for index, seed in enumerate(outcome.results)
    ]
    if len(rows) > 1:
        rows.append(("mean", [outcome.mean(arm, metric) for arm, _ in columns]))
    body = "".join(_row(title, values) for title, values in rows)
    return (
        f"<h3>{html.escape(metric)}</h3><div class='scroll'><table><thead><tr><th></th>{head}"
        f"</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(title: str, values: Iterable[float | None]) -> str:
    cells = "".join(f"<td>{'' if value is None else f'{value:.4f}'}</td>" for value in values)
    return f"<tr><th scope='row'>{title}</th>{cells}</tr>"


def _tuning(outcome: StudyOutcome) -> Iterable[str]:
    if outcome.tuned:
        yield "<p>Chosen beforehand, on seeds that the study does not use:</p>"
    for arm, rows in outcome.tuning.items():
        chosen = ", ".join(f"{name}={value}" for name, value in outcome.tuned[arm].items())
        lines = "\n".join(", ".join(f"{k}={v}" for k, v in row.items()) for row in rows)
        yield (
            f"<details><summary>{html.escape(f'{arm}: {chosen}')}</summary>"
            f"<pre>{html.escape(lines)}</pre></details>"
        )


def _definitions(items: dict[str, Any]) -> str:
    rows = (
        f"<dt>{html.escape(str(name))}</dt><dd>{html.escape(str(value))}</dd>"
        for name, value in items.items()
    )
    return f"<dl>{''.join(rows)}</dl>"
