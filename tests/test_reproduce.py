import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trainplan.errors import PlanError
from trainplan.lab.study_loading import find_study, load_study
from trainplan.papers.results import result

TOY = """
import time
from trainplan.lab import Study

def measure(arm, seed, pause={pause}):
    time.sleep(pause)
    return {{"loss": 1.0 + 0.01 * ((seed * 7 + len(arm)) % 5) - (0.3 if arm == "mine" else 0.0)}}

STUDY = Study(
    paper="toy-study", claim="mine beats theirs", arms=["mine", "theirs"], measure=measure,
    margin=0.1, seeds=range(8), looks=(4, 8), budget="nothing", quick={{"pause": 0.0}},
)
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    path = tmp_path / "toy.py"
    path.write_text(TOY.format(pause=0.0))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "trainplan.cli", "reproduce", *map(str, arguments)]


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_study_of_ones_own_runs_to_its_verdict(toy, tmp_path):
    ended = run(toy, "--out", "found", "--jobs", 2, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    for part in (
        "mine beats theirs",
        "seed 3",
        "mean",
        "+0.3",
        "Verdict: reproduced",
        "margin 0.1",
    ):
        assert part in ended.stdout
    assert "\x1b" not in ended.stdout  # no colours and bars outside a terminal
    found = json.loads((tmp_path / "found" / "toy-study.json").read_text())
    assert found["verdict"] == "reproduced"
    assert found["seeds"] == [0, 1, 2, 3]
    assert found["environment"]["threads per worker"] == 1
    assert re.fullmatch("[0-9a-f]{64}", found["digests"]["study"])
    page = (tmp_path / "found" / "toy-study.html").read_text()
    assert "mine beats theirs" in page
    assert "src=" not in page


def test_the_catalogue_reads_what_reproduce_writes(toy, tmp_path):
    run(toy, "--out", "found", cwd=tmp_path)
    card = result("toy-study", (tmp_path / "found",))
    assert card is not None
    assert card.verdict == "reproduced"
    assert "mine beats theirs" in card.summary
    assert dict(card.figures)["mine against theirs"].startswith("+0.2950")


def test_a_killed_run_goes_on_where_it_was(toy, tmp_path):
    toy.write_text(TOY.format(pause=0.4))
    process = subprocess.Popen(
        command(toy, "--out", "found", "--jobs", 1), cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    rows = tmp_path / "found" / "toy-study.jsonl"
    deadline = time.monotonic() + 60
    while not (rows.exists() and rows.read_text().count("\n") >= 2):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = rows.read_text().splitlines(keepends=True)
    kept = [line for line in kept if line.endswith("\n")]
    ended = run(toy, "--out", "found", "--resume", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    lines = rows.read_text().splitlines(keepends=True)
    assert lines[: len(kept)] == kept
    assert len(lines) == 8  # two arms on four seeds, none of them twice
    found = json.loads((tmp_path / "found" / "toy-study.json").read_text())
    assert found["verdict"] == "reproduced"
    assert found["seconds"] >= 8 * 0.4 / 2  # with the time of what was kept


@pytest.mark.skipif(os.name != "posix", reason="sends an interrupt")
def test_an_interrupt_ends_all_processes_and_says_how_to_go_on(toy, tmp_path):
    toy.write_text(TOY.format(pause=30))
    process = subprocess.Popen(
        command(toy, "--out", "found", "--jobs", 2),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(6)
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "--resume" in printed
    deadline = time.monotonic() + 20
    while group_is_alive(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def group_is_alive(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_number_of_processes_changes_nothing(toy, tmp_path):
    results = []
    for jobs in (1, 2):
        run(toy, "--out", f"found{jobs}", "--jobs", jobs, cwd=tmp_path)
        path = tmp_path / f"found{jobs}" / "toy-study.json"
        results.append(json.loads(path.read_text())["results"])
    assert results[0] == results[1]


def test_quick_is_marked_everywhere(toy, tmp_path):
    ended = run(toy, "--out", "found", "--quick", cwd=tmp_path)
    assert "no evidence" in ended.stdout
    assert json.loads((tmp_path / "found" / "toy-study.json").read_text())["quick"]
    assert "no evidence" in (tmp_path / "found" / "toy-study.html").read_text()


def test_fewer_seeds_are_another_plan_and_say_so(toy, tmp_path):
    run(toy, "--out", "found", "--seeds", 3, cwd=tmp_path)
    found = json.loads((tmp_path / "found" / "toy-study.json").read_text())
    assert found["looks"] == [3]
    assert found["options"] == {"seeds": 3, "as planned": False}


@pytest.mark.parametrize("option", [["--quick"], ["--seeds", "3"]])
def test_only_a_study_as_it_is_written_is_saved(toy, tmp_path, option):
    ended = run(toy, "--save", *option, cwd=tmp_path)
    assert ended.returncode == 2
    assert "only a study as it is written is saved" in ended.stderr


def test_saving_writes_what_the_catalogue_shows(toy, tmp_path):
    (tmp_path / "src" / "trainplan").mkdir(parents=True)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "toy_study.py").write_text(toy.read_text())
    ended = run("toy-study", "--save", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    saved = result("toy-study", (tmp_path / "studies" / "results",))
    assert saved is not None
    assert saved.verdict == "reproduced"
    everything = run("all", "--quick", "--out", "other", cwd=tmp_path)
    assert "toy-study" in everything.stdout


def test_a_directory_that_holds_something_is_not_written_over(toy, tmp_path):
    run(toy, "--out", "found", cwd=tmp_path)
    again = run(toy, "--out", "found", cwd=tmp_path)
    assert again.returncode == 2
    assert "--resume" in again.stderr
    nothing = run(toy, "--out", "nowhere", "--resume", cwd=tmp_path)
    assert nothing.returncode == 2
    assert "nothing to go on with" in nothing.stderr


def test_a_failing_measurement_is_named(tmp_path):
    failing = TOY.format(pause=0.0).replace("time.sleep(pause)", "1 / 0")
    (tmp_path / "bad.py").write_text(failing)
    ended = run("bad.py", cwd=tmp_path)
    assert ended.returncode == 1
    assert "ZeroDivisionError" in ended.stderr
    assert "bad.py:6" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_process_that_dies_is_reported(tmp_path):
    dying = TOY.format(pause=0.0).replace("time.sleep(pause)", "import os; os._exit(9)")
    (tmp_path / "bad.py").write_text(dying)
    ended = run("bad.py", cwd=tmp_path)
    assert ended.returncode == 1
    assert "died" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_unknown_studies_are_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(PlanError, match="no such study"):
        find_study("wsd-ss")
    with pytest.raises(PlanError, match="no such file"):
        find_study(str(tmp_path / "none.py"))
    with pytest.raises(PlanError, match="no module named"):
        load_study("no_such_package.studies:STUDY")
    (tmp_path / "empty.py").write_text("STUDY = 3\n")
    with pytest.raises(PlanError, match="defines no study"):
        load_study(str(tmp_path / "empty.py"))


def test_the_help_shows_how_to_use_it():
    from trainplan.cli import app

    shown = CliRunner().invoke(app, ["reproduce", "--help"])
    assert shown.exit_code == 0
    assert "trainplan reproduce all" in shown.output
