"""``trainplan compare`` as a person uses it: in a process, stopped and killed at will."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainplan.lab.request import Request

HERE = Path(__file__).parent
SLOW = ["--workload", "lab.lab_workloads:build", "--with", "pause=0.005", "--peak", "0.02"]
SMALL = ["--steps", "60", "--seeds", "2"]
ONE, TWO = ["--jobs", "1"], ["--jobs", "2"]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals as on POSIX")


def start(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "COLUMNS": "100"}
    return subprocess.Popen(
        [sys.executable, "-m", "trainplan.cli", "compare", *map(str, arguments)],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(folder, *arguments):
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def rows(root):
    return {path.parent.name: path.read_bytes() for path in root.glob("segments/*/rows.jsonl")}


def metrics(root):
    """Everything in the results but speeds and the environment."""
    results = json.loads((root / "results.json").read_text())
    return {key: results[key] for key in ("arms", "steps", "conclusion", "experiment_digest")}


def wait_for_rows(process, root, count):
    """Until so many steps are on disk; the process must still be at work then."""
    deadline = time.monotonic() + 60
    while sum(content.count(b"\n") for content in rows(root).values()) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert process.poll() is None


def workers_of(root):
    return [
        pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _environment(pid, root)
    ]


def _environment(pid, root):
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        log = os.readlink(f"/proc/{pid}/fd/2")
    except OSError:
        return False
    return b"trainplan.lab.worker" in command and log.startswith(str(root))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The comparison that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    code, out, err = run(folder, *SLOW, *SMALL, *TWO, "--out", "run")
    assert (code, err) == (0, "")
    return folder / "run", out


def test_it_ends_with_a_table_results_and_a_report_and_says_nothing_else(whole):
    root, out = whole
    assert all(name in out for name in ("constant", "linear", "cosine", "rex", "wsd", "wsd-s"))
    assert "report.html" in out
    assert "\x1b" not in out, "no colours or moving bars where there is no terminal"
    results = metrics(root)
    assert results["arms"][0]["name"] == "constant"
    assert len(results["arms"][1]["runs"]) == 2
    assert set(results["arms"][1]) >= {"mean", "difference", "improvement", "p_value"}
    assert (root / "report.html").stat().st_size > 1_000_000
    assert (root / "plans" / "wsd-s.yaml").exists()
    assert not list(root.glob("segments/*/*.pt")), "states that nobody needs any more are deleted"


def test_a_killed_comparison_resumes_to_the_same_bits(whole, tmp_path):
    process = start(tmp_path, *SLOW, *SMALL, *TWO, "--out", "run", "--checkpoint-seconds", "0.1")
    for count in (25, 160):
        wait_for_rows(process, tmp_path / "run", count)
        process.kill()
        process.communicate()
        deadline = time.monotonic() + 20
        while workers_of(tmp_path / "run") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not workers_of(tmp_path / "run"), "workers must not outlive their parent"
        assert not (tmp_path / "run" / "results.json").exists()
        process = start(tmp_path, "--resume", "--out", "run", "--checkpoint-seconds", "0.1")
    _, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (0, "")
    assert rows(tmp_path / "run") == rows(whole[0])
    assert metrics(tmp_path / "run") == metrics(whole[0])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_stopping_saves_everything_and_says_how_to_continue(whole, tmp_path, how):
    process = start(tmp_path, *SLOW, *SMALL, *ONE, "--out", "run")
    wait_for_rows(process, tmp_path / "run", 30)
    process.send_signal(how)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 130
    assert err.count("\n") == 1
    assert "trainplan compare --resume --out run" in err
    assert list((tmp_path / "run").glob("segments/*/*.pt")), "in a segment, or between two"
    before = rows(tmp_path / "run")

    code, _, err = run(tmp_path, "--resume", *TWO, "--out", "run")
    assert (code, err) == (0, "")
    after = rows(tmp_path / "run")
    assert all(after[key].startswith(content) for key, content in before.items())
    assert after == rows(whole[0])
    assert metrics(tmp_path / "run") == metrics(whole[0])


def test_resuming_what_is_complete_trains_nothing(whole):
    root, _ = whole
    before = {path: path.stat().st_mtime_ns for path in root.glob("segments/*/*")}
    code, _, _ = run(root.parent, "--resume", "--out", "run")
    assert code == 0
    assert {path: path.stat().st_mtime_ns for path in root.glob("segments/*/*")} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "--out", "run", "--steps", "70"], "begun with other arms"),
        (["--resume", "--out", "run", "--seeds", "3"], "begun with other seeds"),
        (["--resume", "--out", "run", "--workload", "digits"], "begun with other workload"),
        (["--out", "run"], "already holds a comparison"),
        (["--out", "."], "not a directory of trainplan"),
        (["--resume", "--out", "elsewhere"], "nothing to resume"),
        (["--resume"], "holds no comparison to resume"),
        (["no-such-plan.yaml"], "no-such-plan.yaml"),
        (["--workload", "texd"], "Did you mean 'text'"),
        (["--workload", "digits", "--with", "width"], "Write it like width=128"),
        (["--tune-peak", "--peak-factors", "1,-2"], "numbers above zero"),
        (["--workload", "lab.lab_workloads:NoPeak"], "Give --peak"),
        (["--workload", "digits", "--steps", "1000000000000"], "at most 10,000,000 steps"),
        (["--workload", "digits", "--peak", "nan"], "peak"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(whole, arguments, message):
    code, out, err = run(whole[0].parent, *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("workload", "option", "message"),
    [
        ("lab.lab_workloads:build", ["--with", "fail_at=3"], "RuntimeError: the disk is on fire"),
        ("lab.lab_workloads:Crash", [], "use fewer --jobs"),
    ],
)
def test_a_workload_that_fails_is_named_and_its_log_kept(tmp_path, workload, option, message):
    code, _, err = run(
        tmp_path, "--workload", workload, *option, "--peak", "0.1", *SMALL, "--out", "run"
    )
    assert code == 2
    assert err.count("\n") == 1
    assert message in err
    log = Path(err.split("details: ")[1].rstrip(")\n"))
    assert (tmp_path / log).exists()


def test_a_workload_in_the_current_folder_is_found_by_the_installed_program(tmp_path):
    """Unlike with ``python -m``, the folder is not in its path to begin with."""
    source = (HERE / "lab_workloads.py").read_text()
    (tmp_path / "mine.py").write_text(source)
    program = "import sys; sys.path.remove(''); from trainplan.cli import main; main()"
    options = ["--workload", "mine:build", "--peak", "0.1", "--steps", "3", "--seeds", "1", *ONE]
    command = [sys.executable, "-c", program, "compare", *options, "--out", "run"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run(tmp_path, "--workload", "digits", "--out", "file/run")
    assert (code, err.count("\n")) == (2, 1)
    assert "Not a directory" in err or "file" in err


PLAN = """\
horizon: {horizon}
lr: {{cosine: {{peak: 0.01}}}}
"""


def plan_files(folder, **horizons):
    for name, horizon in horizons.items():
        (folder / f"{name}.yaml").write_text(PLAN.format(horizon=horizon))
    return tuple(folder / f"{name}.yaml" for name in horizons)


def test_plan_files_become_arms_named_after_them(tmp_path):
    experiment = Request(plan_files(tmp_path, slow=50, fast=50), workload="digits").experiment()
    assert [arm.name for arm in experiment.arms] == ["slow", "fast"]
    assert experiment.eval_every == 5


def test_plans_of_different_length_need_a_word(tmp_path):
    files = plan_files(tmp_path, short=50, long=100)
    with pytest.raises(ValueError, match=r"short.yaml: 50, .*long.yaml: 100.*--own-horizons"):
        Request(files, workload="digits").experiment()
    kept = Request(files, workload="digits", own_horizons=True).experiment()
    same = Request(files, workload="digits", steps=30).experiment()
    assert [arm.plan.horizon for arm in kept.arms] == [50, 100]
    assert [arm.plan.horizon for arm in same.arms] == [30, 30]


def test_a_plan_that_cannot_run_is_refused_before_anything_is_trained(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("horizon: 100\nlr: {wsd: {peak: 0.01, warmup: 80%, decay: 30%}}\n")
    with pytest.raises(ValueError, match=r"bad.yaml: lr.*begins at 70"):
        Request((path,), workload="digits").experiment()


def test_resuming_accepts_the_options_it_was_begun_with(tmp_path):
    request = Request(workload="digits", steps=20, seeds=2, tune_peak=True, record_grad_norms=True)
    request.check_agrees_with(request.experiment(), tmp_path)
    Request().check_agrees_with(request.experiment(), tmp_path)
