"""The report: one file, readable in a browser without a network, and plain about what it found."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

import trainplan as tp
from trainplan import lab
from trainplan.lab import report, table
from trainplan.lab.experiment import Arm
from trainplan.lab.figures import figures
from trainplan.lab.results import Comparison, Run, summarize

NASTY = "</script><script>document.body.id='owned'</script><b>&amp;@@DATA@@"


def run(arm, seed, final, steps=20):
    losses = np.append(np.linspace(3.0, 2.5, steps - 1), final)
    evaluated = np.array([10, 20])
    metrics = {"loss": np.array([2.5, final])}
    diverged = None if np.isfinite(final) else 20
    return Run(arm, seed, losses, evaluated, metrics, {}, diverged, "w", 1.0, 1000)


def comparison(finals, factors=None, grid=()):
    """A comparison with the given final losses per arm."""
    plans = {name: tp.Plan(horizon=20, name=name, lr=tp.schedules.linear(0.1)) for name in finals}
    seeds = tuple(range(len(next(iter(finals.values())))))
    experiment = lab.Experiment(tuple(Arm(*item) for item in plans.items()), seeds)
    runs = {
        (arm, seed): run(arm, seed, loss)
        for arm, losses in finals.items()
        for seed, loss in enumerate(losses)
    }
    return Comparison(
        experiment=experiment,
        runs=runs,
        summaries=summarize(experiment, runs),
        planned_steps=200,
        steps=150,
        factors=factors or {},
        grid=grid,
        environment={"date": "2026-01-02T03:04:05+00:00", "cpu": "<fast & cheap>"},
        workload={"Model": "toy"},
    )


CLEAR = {"a": [2.0, 2.2, 2.1, 2.3], "b": [1.8, 2.0, 1.91, 2.1], "c": [2.1, 2.1, 2.12, 2.28]}


@pytest.fixture(scope="module")
def digits():
    plans = [
        tp.Plan(horizon=60, name="flat", lr=tp.schedules.constant(0.01), batch_size=16),
        tp.Plan(
            horizon=60,
            name="falling",
            lr=tp.schedules.linear(0.01),
            batch_size=tp.schedules.linear(8, end=32),
        ),
        tp.Plan(horizon=60, name=NASTY, lr=tp.schedules.wsd(0.02, warmup=5), batch_size=16),
    ]
    return lab.compare(plans, workload="digits", seeds=3, jobs=0)


def test_a_detectable_difference_is_named_with_its_interval():
    text = " ".join(lab.conclude(comparison(CLEAR)))
    assert re.search(r"Lower final validation loss than a: b \(-0.19\d+, 95% interval -0.2", text)
    assert "No difference detectable from a: c (4 seeds)" in text


def test_no_detectable_difference_is_said_in_these_words():
    same = comparison({"a": [2.0, 2.2, 2.1], "b": [2.1, 2.1, 2.15]})
    assert lab.conclude(same)[0] == "No difference detectable from a: b (3 seeds)."


def test_identical_arms_show_no_difference():
    text = lab.conclude(comparison({"a": [2.0, 2.2], "b": [2.0, 2.2]}))[0]
    assert text.startswith("No difference detectable")


def test_one_seed_cannot_tell_arms_apart():
    assert (
        "one seed cannot tell arms apart" in lab.conclude(comparison({"a": [2.0], "b": [1.0]}))[0]
    )


def test_a_higher_loss_is_called_higher():
    worse = comparison({"a": [2.0, 2.2, 2.1], "b": [2.5, 2.7, 2.61]})
    assert lab.conclude(worse)[0].startswith("Higher final validation loss than a: b (+0.5")


def test_a_diverged_arm_is_neither_best_nor_undecided():
    text = " ".join(lab.conclude(comparison({"a": [2.0, 2.2], "b": [1.0, np.inf]})))
    assert "b diverged on 1 of 2 seeds (seeds 1)" in text
    assert "Lowest mean" not in text
    assert "No difference" not in text


def test_a_best_peak_at_the_edge_of_the_grid_is_pointed_out():
    tuned = comparison(CLEAR, {"a": 1.0, "b": 4.0, "c": 1.0}, (0.25, 1.0, 4.0))
    text = " ".join(lab.conclude(tuned))
    assert "The best peak of b is the smallest or largest" in text
    assert "each arm at its best peak of one grid" in text


def test_under_no_effect_a_difference_is_rarely_claimed():
    """Five arms against a reference, all alike: at most one conclusion in twenty may be wrong."""
    random = np.random.default_rng(0)
    claims = 0
    for _ in range(300):
        finals = {name: random.normal(2, 0.05, 5).tolist() for name in "abcdef"}
        text = " ".join(lab.conclude(comparison(finals)))
        claims += "Lower final" in text or "Higher final" in text
    assert claims / 300 <= 0.05 + 0.025


def test_results_json_is_strict_and_complete():
    result = comparison({"a": [2.0, np.inf], "b": [1.0, 1.5]})
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["steps"] == {"planned": 200, "trained": 150}
    assert content["arms"][0]["mean"]["estimate"] is None
    assert content["arms"][0]["diverged"] == [1]
    assert [run["final"]["loss"] for run in content["arms"][1]["runs"]] == [1.0, 1.5]
    assert content["conclusion"] == lab.conclude(result)


def test_the_table_fits_a_terminal_of_80_columns(capsys):
    from rich.console import Console

    result = comparison(CLEAR)
    table.show(result, Console(width=80))
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    for summary in result.summaries:
        assert f"{summary.mean.estimate:.4f}" in out
    assert "1,000" in out, "tokens per second"


def test_names_cannot_break_out_of_the_page(digits):
    page = report.render(digits)
    assert NASTY not in page
    assert page.count("<script") == report_scripts()


def report_scripts():
    """Script elements of the template, counting those inside Plotly's own source."""
    return report.render(comparison(CLEAR)).count("<script")


def test_the_page_loads_nothing_from_elsewhere(digits):
    page = report.render(digits)
    own = page.replace(tp._extras.require("plotly.offline", extra="lab").get_plotlyjs(), "")
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", own)
    assert "url(" not in own


def test_every_plan_and_number_is_in_the_page(digits):
    page = report.render(digits)
    for arm, summary in zip(digits.experiment.arms, digits.summaries, strict=True):
        assert table.number(summary.mean.estimate) in page
        assert "horizon: 60" in arm.plan.to_yaml()
    assert page.count("<details>") == 3
    assert "batch_size" in page
    assert "were planned" in page
    assert digits.environment["python"] in page


def test_figures_show_every_seed_and_the_mean(digits):
    plots = figures(digits)
    assert set(plots) == {
        "finals", "differences", "validation", "training", "knob-lr", "knob-batch_size",
    }  # fmt: skip
    curves = plots["validation"]["data"]
    assert len(curves) == 3 * 3 + 3
    mean = [trace for trace in curves if "showlegend" not in trace][1]
    seeds = [digits.runs["falling", seed].metrics["loss"] for seed in range(3)]
    np.testing.assert_allclose(mean["y"], np.mean(seeds, axis=0), atol=1e-5)
    assert plots["knob-batch_size"]["data"][1]["y"][:2] == [8.0, 8.4]
    json.dumps(plots, allow_nan=False)


def test_a_diverged_arm_can_be_drawn():
    page = report.render(comparison({"a": [2.0, 2.2], "b": [1.0, np.nan]}))
    assert "diverged" in page
    assert "NaN" not in page.split('id="figures">')[1].split("</script>")[0]


def test_many_arms_are_told_apart_by_dashes():
    plots = figures(comparison({f"arm {i}": [2.0, 2.1 + i] for i in range(12)}))
    styles = [tuple(trace["line"].values()) for trace in plots["knob-lr"]["data"]]
    assert len(styles) == 12
    assert len(set(styles)) == 12


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--virtual-time-budget=10000",
)  # fmt: skip


def browse(page, profile, *switches):
    """The page's elements after its scripts have run, and what the console said."""
    command = [
        CHROMIUM,
        *SWITCHES,
        *switches,
        f"--user-data-dir={profile}",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the report in")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_draws_every_plot_without_an_error(digits, tmp_path, theme):
    page = tmp_path / "report.html"
    page.write_text(report.render(digits), encoding="utf-8")
    scheme = {"light": "1", "dark": "0"}[theme]
    dom, console = browse(
        page, tmp_path / "profile", f"--blink-settings=preferredColorScheme={scheme}"
    )
    assert console == []
    for name, figure in figures(digits).items():
        start = dom.index(f'id="{name}"')
        plot = dom[start : dom.index("</svg>", start)]
        assert "js-plotly-plot" in dom[start - 200 : start + 60], name
        assert "main-svg" in plot, name
        assert len(figure["data"]) > 0
    drawn = dom[dom.index('id="validation"') : dom.index('id="training"')]
    assert drawn.count('class="trace scatter') == 12
    assert 'id="owned"' not in dom, "an arm's name was run as a script"


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the report in")
def test_the_console_check_would_notice_an_error(tmp_path):
    page = tmp_path / "broken.html"
    page.write_text("<script>throw new Error('broken')</script>")
    assert "broken" in browse(page, tmp_path / "profile")[1][0]


def test_a_comparison_can_be_copied_with_other_figures():
    result = comparison(CLEAR)
    assert replace(result, steps=200).to_dict()["steps"]["trained"] == 200
    assert "all of them were trained" in report.render(replace(result, steps=200))
