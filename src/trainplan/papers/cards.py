"""A paper as a card: the same sections for the terminal and for the documentation."""

from __future__ import annotations

from dataclasses import dataclass

from trainplan.papers.paper import EVIDENCE, LEVERS, Paper
from trainplan.papers.results import VERDICTS, Result, result

#: How the plan of a ``use`` block is applied, per host. It needs an ``optimizer``.
ATTACH = """\

# In PyTorch; every optimizer.step() then follows the plan.
run = tp.torch.attach(plan, optimizer)
"""


#: How the same plan is applied in other trainers; the how-to pages show whole programs.
HOSTS = {
    "Transformers, TRL": "callbacks = [tp.transformers.PlanCallback(plan)]",
    "Lightning": "callbacks = [tp.lightning.PlanCallback(plan)]",
    "Optax": "optimizer = tp.optax.inject(plan, optax.adamw)",
    "Keras": "learning_rate = tp.keras.LearningRate(plan)",
}


@dataclass(frozen=True)
class Section:
    """One part of a card.

    Attributes:
        heading: Its heading.
        text: Markdown: paragraphs and lists.
        code: Python code below the text; empty if there is none.
    """

    heading: str
    text: str = ""
    code: str = ""


def sections(paper: Paper) -> list[Section]:
    """The sections of the paper's card, in reading order.

    >>> from trainplan import papers
    >>> [section.heading for section in papers.sections(papers.load("dump"))]
    ... # doctest: +NORMALIZE_WHITESPACE
    ['What it does', 'Who may gain', 'How to use it', 'The claim', 'Our verdict', 'Pitfalls',
     'What this card rests on', 'Licence']
    """
    return [
        Section("What it does", f"{paper.changes}\n\nIt acts on {_levers(paper)}."),
        Section("Who may gain", paper.helps),
        _use(paper),
        Section("The claim", paper.claim),
        Section("Our verdict", _verdict(paper, result(paper.study) if paper.study else None)),
        Section("Pitfalls", _bullets(paper.pitfalls)),
        Section(
            "What this card rests on",
            f"{paper.evidence_note}\n\nLevel: {EVIDENCE[paper.evidence]} (`{paper.evidence}`).",
        ),
        Section("Licence", paper.licence or "Nothing is known about the authors' code."),
    ]


def status_line(paper: Paper) -> str:
    """The paper's status in one plain sentence."""
    if not paper.built:
        return f"Not built yet: planned as {paper.component}."
    part = "built in part" if paper.gaps else "built"
    return f"{part.capitalize()}: {paper.component}."


def markdown(paper: Paper) -> str:
    """The card as a Markdown page, as the documentation's catalogue shows it."""
    link = f"[{paper.citation}]({paper.url})" if paper.url else paper.citation
    parts = [f"# {paper.title}", link, f"**{status_line(paper)}**"]
    for section in sections(paper):
        parts.append(f"## {section.heading}")
        if section.text:
            parts.append(section.text)
        if section.code:
            parts.append(f"```python\n{section.code.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def _use(paper: Paper) -> Section:
    if not paper.built:
        return Section("How to use it", f"It is not built yet. Planned: `{paper.component}`.")
    text = f"As `{paper.component}`."
    if paper.gaps:
        text += "\n\nNot in this version:\n\n" + _bullets(paper.gaps)
    others = "\n".join(f"# {host}\n{code}" for host, code in HOSTS.items())
    return Section("How to use it", text, f"{paper.use.rstrip()}\n{ATTACH}\n{others}")


def _verdict(paper: Paper, found: Result | None) -> str:
    if not paper.study:
        return "None: no study of this paper exists yet."
    if found is None:
        return f"None yet: no result of the study `{paper.study}` is shipped with this version."
    parts = [f"**{found.verdict.capitalize()}**: {VERDICTS[found.verdict]}."]
    if found.summary:
        parts.append(found.summary)
    if found.figures:
        parts.append(_bullets(tuple(f"{name}: {value}" for name, value in found.figures)))
    return "\n\n".join(parts)


def _levers(paper: Paper) -> str:
    text = f"{LEVERS[paper.lever]} (`{paper.lever}`)"
    others = " and ".join(f"`{name}`" for name in paper.also)
    return f"{text}, and touches {others}" if others else text


def _bullets(lines: tuple[str, ...]) -> str:
    return "\n".join(f"- {line}" for line in lines)
