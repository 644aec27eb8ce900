"""The catalogue is complete, true and readable, and every example on a card runs."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import trainplan
from trainplan import papers
from trainplan.commands import papers as command
from trainplan.papers import EVIDENCE, LEVERS, ROOMS, STATUSES, Paper, PaperError, markdown
from trainplan.papers.cards import ATTACH, HOSTS

SLUGS = [
    "annealing-scaling-law",
    "apollo",
    "ar-diffusion",
    "augmented-covariance",
    "autolrs",
    "backtracking",
    "batch-scheduled-sampling",
    "benign-oscillation",
    "camera-curriculum",
    "cdfsl-v",
    "chain-of-self-correction",
    "chinese-modernbert",
    "continual-pretraining",
    "cosmos-mcts",
    "coso",
    "curriculum-designer",
    "curved-contrastive",
    "cyclical-curriculum",
    "datarus",
    "diff-tpt",
    "dst-continual",
    "dual-level-downsampling",
    "dump",
    "efficienttrain",
    "frozen-in-time",
    "g-acil",
    "gain-rl",
    "generative-regression",
    "hex",
    "infinite-schedule",
    "light-r1",
    "lr-decay-wastes-data",
    "lssl",
    "memory-timescales",
    "minicpm-wsd",
    "mint-cot",
    "mr-rlvr",
    "multigrid",
    "normalize-and-project",
    "octothinker-stable-decay",
    "online-difficulty-filtering",
    "ovor",
    "plm-wsdc",
    "power-law-rehearsal",
    "power-scheduler",
    "prompt-curriculum-learning",
    "pudf",
    "qwen2.5-math",
    "rex",
    "rnn-review",
    "sample-order-estimation",
    "schedule-refinement",
    "sequence-rl",
    "sgd-sai",
    "sharpdarts-cosine-power",
    "stelocoder",
    "temple",
    "tract",
    "train-long-think-short",
    "uba",
    "uer",
    "vfimamba",
    "wsd-s",
]

EVERY = pytest.mark.parametrize("paper", papers.all(), ids=lambda paper: paper.slug)
BUILT = pytest.mark.parametrize(
    "paper", [paper for paper in papers.all() if paper.built], ids=lambda paper: paper.slug
)


def find(path: str) -> object:
    """The object at a dotted path; attributes come before modules of the same name."""
    value: object = trainplan
    reached = "trainplan"
    for name in path.split(".")[1:]:
        reached += f".{name}"
        try:
            value = getattr(value, name)
        except AttributeError:
            value = importlib.import_module(reached)
    return value


def exists(path: str) -> bool:
    try:
        find(path)
    except ModuleNotFoundError as error:
        if error.name and path.startswith(error.name):
            return False
        raise
    return True


def prose(paper: Paper) -> list[str]:
    return [
        paper.title,
        paper.gist,
        paper.changes,
        paper.helps,
        paper.claim,
        paper.evidence_note,
        paper.licence,
        *paper.pitfalls,
        *paper.gaps,
    ]


def test_the_catalogue_holds_exactly_the_63_papers() -> None:
    assert [paper.slug for paper in papers.all()] == sorted(SLUGS)
    assert len(SLUGS) == len(set(SLUGS)) == 63


def test_every_lever_evidence_and_room_of_the_vocabularies_is_used() -> None:
    every = papers.all()
    assert {paper.lever for paper in every} == set(LEVERS)
    assert {paper.evidence for paper in every} == set(EVIDENCE)
    assert {paper.room for paper in every} == set(ROOMS)
    assert {paper.status for paper in every} <= set(STATUSES)


@EVERY
def test_changes_is_one_sentence(paper: Paper) -> None:
    assert paper.changes[0].isupper()
    assert paper.changes.endswith(".")
    assert not re.search(r"[.!?]\s", paper.changes)
    assert len(paper.changes) <= 260


@EVERY
def test_pitfalls_and_gaps_are_short_sentences(paper: Paper) -> None:
    assert 3 <= len(paper.pitfalls) <= 8
    for line in (*paper.pitfalls, *paper.gaps):
        assert line[0].isupper(), line
        assert line.endswith("."), line
        assert len(line) <= 200, line


@EVERY
def test_the_text_is_clean_and_complete(paper: Paper) -> None:
    for text in prose(paper):
        assert text
        assert text == text.strip()
        assert "  " not in text
        assert "\n" not in text
    assert len(paper.gist) <= 48
    assert all(text.endswith(".") for text in (paper.helps, paper.claim, paper.evidence_note))
    assert paper.licence.endswith(".")


@EVERY
def test_identifiers_are_well_formed(paper: Paper) -> None:
    assert re.fullmatch(r"\d{4}\.\d{5}", paper.arxiv)
    # The first four digits are the year and month of the first version.
    assert 2000 + int(paper.arxiv[:2]) in {paper.year, paper.year - 1}
    assert 2015 <= paper.year <= 2026
    assert paper.stage in {1, 2}
    assert paper.study in {"", paper.slug}
    assert paper.lever not in paper.also
    assert "et al." not in paper.authors[:-1]


@EVERY
def test_components_live_in_their_room(paper: Paper) -> None:
    package, room, *rest = paper.component.split(".")
    assert package == "trainplan"
    assert rest
    assert room in ROOMS
    # A study of a schedule may need a monitor from another room.
    assert room == paper.room or paper.slug == "benign-oscillation"


def test_no_two_planned_components_collide() -> None:
    planned = [paper.component for paper in papers.all() if not paper.built]
    assert len(planned) == len(set(planned))


@BUILT
def test_components_of_built_papers_exist(paper: Paper) -> None:
    assert exists(paper.component)


@EVERY
def test_components_of_planned_papers_do_not_exist_yet(paper: Paper) -> None:
    """If this fails, the component is there: set the paper's status to built and show its use."""
    if not paper.built and importlib.util.find_spec(f"trainplan.{paper.room}") is not None:
        assert not exists(paper.component)


@BUILT
def test_examples_of_built_papers_run_and_follow_the_plan_in_pytorch(paper: Paper) -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    scope: dict[str, object] = {}
    exec(compile(paper.use, f"{paper.slug}.toml", "exec"), scope)
    plan = scope["plan"]
    assert isinstance(plan, trainplan.Plan)
    _, values = plan.curve("lr")
    assert 0 < values.max() <= 1
    assert values.min() >= 0

    weight = torch.nn.Parameter(torch.ones(3))
    scope["optimizer"] = optimizer = torch.optim.AdamW([weight], lr=1.0)
    exec(compile(ATTACH, "ATTACH", "exec"), scope)
    for _ in range(3):
        optimizer.zero_grad()
        weight.sum().backward()
        optimizer.step()
    per_step = plan.rates["tokens_per_step"] if plan.unit == "tokens" else 1
    assert optimizer.param_groups[0]["lr"] == plan.at(2 * per_step)["lr"]
    assert not [found for found in trainplan.check(plan) if found.level == "error"]


@pytest.mark.parametrize("host", HOSTS)
def test_every_plan_of_a_built_paper_fits_every_host(host: str) -> None:
    for module in {"Optax": ("optax",), "Keras": ("keras", "jax")}.get(
        host, (host.split(",", maxsplit=1)[0],)
    ):
        pytest.importorskip(module.lower())
    for paper in papers.all():
        if not paper.built:
            continue
        scope: dict[str, object] = {}
        exec(compile(paper.use, f"{paper.slug}.toml", "exec"), scope)
        if host == "Optax":
            scope["optax"] = importlib.import_module("optax")
        exec(compile(HOSTS[host], host, "exec"), scope)
    assert {"callbacks", "optimizer", "learning_rate"} & set(scope)


@BUILT
def test_examples_fit_a_terminal_of_80_columns(paper: Paper) -> None:
    assert max(map(len, (paper.use + ATTACH).splitlines())) <= 76


@BUILT
def test_the_example_of_a_built_paper_uses_its_component(paper: Paper) -> None:
    assert f"tp.{paper.component.removeprefix('trainplan.')}(" in paper.use


@EVERY
def test_cards_say_plainly_whether_a_paper_is_built(paper: Paper) -> None:
    page = markdown(paper)
    assert page.startswith(f"# {paper.title}\n")
    assert ("Not built yet" in page) is (not paper.built)
    assert ("```python" in page) is paper.built
    assert paper.component in page
    for gap in paper.gaps:
        assert gap in page


def test_no_result_is_reported_before_there_is_one() -> None:
    for paper in papers.all():
        if not paper.study or papers.result(paper.study) is None:
            assert "\nNone" in markdown(paper).split("## Our verdict\n")[1]


def test_a_result_is_read_from_its_file(tmp_path: Path) -> None:
    found = {
        "verdict": "contradicted",
        "summary": "It lost.",
        "figures": {"seeds": 8, "effect": -0.0123456},
        "more": [],
    }
    (tmp_path / "rex.json").write_text(json.dumps(found))
    result = papers.result("rex", (tmp_path,))
    assert result is not None
    assert result.verdict == "contradicted"
    assert result.summary == "It lost."
    assert result.figures == (("seeds", "8"), ("effect", "-0.01235"))
    assert papers.result("uba", (tmp_path,)) is None


def test_a_result_appears_on_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rex.json").write_text('{"verdict": "reproduced", "figures": {"seeds": 8}}')
    result = papers.result("rex", (tmp_path,))
    monkeypatch.setattr("trainplan.papers.cards.result", lambda slug: result)
    page = markdown(papers.load("rex"))
    assert "**Reproduced**" in page
    assert "- seeds: 8" in page


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("{", "not a JSON file"), ('{"verdict": "won"}', "no known verdict"), ("[]", "verdict")],
)
def test_a_bad_result_is_refused(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "rex.json").write_text(content)
    with pytest.raises(PaperError, match=complaint):
        papers.result("rex", (tmp_path,))


def test_search_combines_words_lever_and_status() -> None:
    assert [p.slug for p in papers.search("river VALLEY")] == ["wsd-s"]
    replay = {p.slug for p in papers.search(lever="replay")}
    assert {"power-law-rehearsal", "continual-pretraining", "uer"} <= replay
    both = papers.search(lever="replay", status="built")
    assert both
    assert all(p.built and "replay" in p.levers for p in both)
    assert papers.search("no-such-word") == []
    assert papers.search() == list(papers.all())


@pytest.mark.parametrize(
    ("ask", "remedy"),
    [
        (lambda: papers.load("wsds"), "wsd-s"),
        (lambda: papers.search(lever="schedules"), "schedule"),
        (lambda: papers.search(status="build"), "built"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_one(ask: object, remedy: str) -> None:
    with pytest.raises(PaperError, match=f"Did you mean '{remedy}'"):
        ask()  # type: ignore[operator]


def table(**changes: object) -> dict[str, object]:
    """A valid planned paper as a table, with some fields changed."""
    fields: dict[str, object] = {
        "title": "T",
        "gist": "g",
        "authors": ["A"],
        "year": 2024,
        "lever": "law",
        "changes": "C.",
        "helps": "H.",
        "component": "trainplan.laws.x",
        "room": "laws",
        "stage": 1,
        "evidence": "paper-text",
        "evidence_note": "N.",
        "status": "planned",
        "claim": "C.",
        "pitfalls": ["P."],
        "licence": "",
    }
    return {k: v for k, v in {**fields, **changes}.items() if v is not None}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"title": None}, "x.toml: title: missing"),
        ({"levers": "law"}, "x.toml: levers: no such field"),
        ({"year": "2024"}, "x.toml: year: must be of type int"),
        ({"year": True}, "x.toml: year: must be of type int"),
        ({"authors": "A"}, "x.toml: authors: must be a list of strings"),
        ({"lever": "laws"}, "x.toml: lever: not in the vocabulary"),
        ({"also": ["replays"]}, "x.toml: also: not in the vocabulary"),
        ({"status": "built"}, "x.toml: use: missing"),
        ({"use": "pass"}, "x.toml: status: a planned paper cannot have use"),
    ],
)
def test_a_bad_paper_file_is_refused_with_its_place(
    changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(PaperError, match=re.escape(complaint)):
        Paper.from_table("x", table(**changes))


def test_a_minimal_paper_file_is_read() -> None:
    paper = Paper.from_table("x", table())
    assert paper.authors == ("A",)
    assert paper.url == ""
    assert paper.citation == "A, 2024"
    assert "Nothing is known" in markdown(paper)


app = typer.Typer()
app.command()(command.papers)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("COLUMNS", "80")
    runner = CliRunner()
    return lambda *words: runner.invoke(app, list(words))


def test_the_command_lists_every_paper_within_80_columns(run: object) -> None:
    outcome = run()  # type: ignore[operator]
    assert outcome.exit_code == 0
    lines = outcome.output.splitlines()
    assert max(map(len, lines)) <= 80
    firsts = {line.split()[0] for line in lines if line.strip()}
    assert set(SLUGS) <= firsts
    assert "63 papers" in outcome.output


def test_the_command_filters(run: object) -> None:
    outcome = run("--lever", "law", "--status", "built")  # type: ignore[operator]
    assert "annealing-scaling-law" in outcome.output
    assert "rex" not in outcome.output.split()
    number = sum("law" in (p.lever, *p.also) and p.built for p in papers.all())
    assert f"{number} built" in outcome.output


@EVERY
def test_the_command_shows_every_card_within_80_columns(run: object, paper: Paper) -> None:
    outcome = run(paper.slug)  # type: ignore[operator]
    assert outcome.exit_code == 0
    assert max(map(len, outcome.output.splitlines())) <= 80
    flat = " ".join(outcome.output.split())
    assert paper.claim in flat
    for line in paper.use.splitlines():
        assert line.strip() in outcome.output


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["wsds"], "did you mean 'wsd-s'?"),
        (["qqqqqq"], "list them all with"),
        (["--lever", "schedules"], "Did you mean 'schedule'?"),
    ],
)
def test_the_command_helps_when_nothing_is_found(
    run: object, words: list[str], remedy: str
) -> None:
    outcome = run(*words)  # type: ignore[operator]
    assert outcome.exit_code == 2
    assert remedy in " ".join(outcome.output.split())
