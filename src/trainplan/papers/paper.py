"""What the catalogue knows about one paper, and the closed vocabularies it uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from trainplan.errors import PlanError, nearest

#: What a method changes while a model trains.
LEVERS: Mapping[str, str] = {
    "schedule": "the learning rate over time",
    "controller": "a value that is chosen from what training reports",
    "parameter-rate": "how far each parameter or tensor moves in a step",
    "data-order": "which examples are seen, and in what order",
    "mixture": "the shares of data sources or loss terms",
    "batch-shape": "the size of what a step sees: resolution, frames, batch",
    "corruption": "what is masked, noised or replaced in the inputs",
    "replay": "which old examples return",
    "rl-prompts": "which prompts reinforcement learning uses",
    "rl-budget": "how many samples, tokens or search steps a rollout gets",
    "rl-reward": "what reinforcement learning rewards",
    "continual": "how old tasks are kept while new ones are learned",
    "decoding": "the order, budget and search at inference",
    "architecture": "layers, features and losses of the model itself",
    "law": "nothing: it predicts what a schedule or an order will do",
}

#: What our description of a method rests on, strongest first.
EVIDENCE: Mapping[str, str] = {
    "code-and-text": "the authors' code and the paper's text",
    "authors-code": "the authors' code or data, but not the paper's full text",
    "paper-text": "the paper's text, without usable training code",
    "second-hand": "summaries, reviews or other people's implementations",
    "abstract-only": "the abstract; the rest is our design",
}

#: Whether the component can be used.
STATUSES: Mapping[str, str] = {
    "built": "the component is in this version",
    "planned": "not built yet; the component's name is the planned one",
}

#: The part of the package in which a component lives.
ROOMS: Mapping[str, str] = {
    "schedules": "values over time",
    "laws": "predict, then choose",
    "data": "what the model sees",
    "optim": "how a step is taken",
    "rl": "reinforcement-learning post-training",
    "continual": "learning without forgetting",
    "decoding": "order, budget and search at inference",
    "models": "small reference networks and layers",
}

_VOCABULARIES: Mapping[str, Mapping[str, str]] = {
    "lever": LEVERS,
    "also": LEVERS,
    "evidence": EVIDENCE,
    "status": STATUSES,
    "room": ROOMS,
}


class PaperError(PlanError):
    """A paper's file, or a question to the catalogue, cannot be used; the message says why."""


@dataclass(frozen=True)
class Paper:
    """One entry of the catalogue.

    Attributes:
        slug: Its name here, and that of its file.
        title: The paper's title.
        gist: The idea in at most 48 characters.
        authors: Surnames in the paper's order; the last may be ``et al.``.
        year: Of its first publication.
        lever: What it changes, one of `LEVERS`.
        changes: One sentence: what changes during training.
        helps: Whom it may help, and at what cost.
        component: Dotted path of the component that implements it, planned or built.
        room: Where that is, one of `ROOMS`.
        stage: In which stage of the project it is built, 1 or 2.
        evidence: What the description rests on, one of `EVIDENCE`.
        evidence_note: The same in this paper's particulars.
        status: One of `STATUSES`.
        claim: The claim that a study can test.
        pitfalls: What goes wrong in practice, a sentence each.
        licence: What is known about the licence of the authors' code.
        venue: Where it appeared; empty if not known.
        arxiv: Its arXiv identifier; empty if not certain.
        also: Further levers it touches.
        study: The study that tests the claim; empty if none is planned yet.
        gaps: What of the paper a built component leaves out, a sentence each.
        use: Code that uses a built component and defines ``plan``; empty if it is planned.
    """

    slug: str
    title: str
    gist: str
    authors: tuple[str, ...]
    year: int
    lever: str
    changes: str
    helps: str
    component: str
    room: str
    stage: int
    evidence: str
    evidence_note: str
    status: str
    claim: str
    pitfalls: tuple[str, ...]
    licence: str
    venue: str = ""
    arxiv: str = ""
    also: tuple[str, ...] = ()
    study: str = ""
    gaps: tuple[str, ...] = ()
    use: str = ""

    @property
    def built(self) -> bool:
        """Whether the component is in this version."""
        return self.status == "built"

    @property
    def levers(self) -> tuple[str, ...]:
        """Its lever and the further ones it touches."""
        return (self.lever, *self.also)

    @property
    def url(self) -> str:
        """The paper's page; empty if the arXiv identifier is not certain."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""

    @property
    def citation(self) -> str:
        """Authors, year, venue and arXiv identifier in one line.

        >>> from trainplan import papers
        >>> papers.load("rex").citation
        'Chen, Wolfe, Kyrillidis, 2021 (MLSys 2022), arXiv 2107.04197'
        """
        venue = f" ({self.venue})" if self.venue else ""
        arxiv = f", arXiv {self.arxiv}" if self.arxiv else ""
        return f"{', '.join(self.authors)}, {self.year}{venue}{arxiv}"

    @classmethod
    def from_table(cls, slug: str, table: Mapping[str, Any]) -> Paper:
        """Read the table of a paper's file.

        Raises:
            PaperError: If a field is missing, unknown, of the wrong type or outside its
                vocabulary, or if a built paper has no ``use`` or a planned one has it.
        """
        known = {field.name: field for field in fields(cls) if field.name != "slug"}
        for name in table.keys() - known.keys():
            raise PaperError(
                "no such field", place=f"{slug}.toml: {name}", remedy=nearest(name, known)
            )
        values: dict[str, Any] = {}
        for name, field in known.items():
            if name in table:
                values[name] = _checked(f"{slug}.toml: {name}", name, str(field.type), table[name])
            elif field.default is MISSING:
                raise PaperError("missing", place=f"{slug}.toml: {name}", remedy="Add the field.")
        paper = cls(slug=slug, **values)
        if paper.built and not paper.use:
            raise PaperError("missing", place=f"{slug}.toml: use", remedy="Show how it is used.")
        if not paper.built and (paper.use or paper.gaps):
            raise PaperError(
                "a planned paper cannot have use or gaps",
                place=f"{slug}.toml: status",
                remedy="Remove them, or set status to built.",
            )
        return paper


def _checked(place: str, name: str, kind: str, value: Any) -> Any:
    """``value`` as the field wants it, after its type and vocabulary have been checked."""
    if kind.startswith("tuple"):
        if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise PaperError("must be a list of strings", place=place, value=value)
        value = tuple(value)
    elif type(value).__name__ != kind:
        raise PaperError(f"must be of type {kind}", place=place, value=value)
    vocabulary = _VOCABULARIES.get(name)
    if vocabulary is not None:
        for word in value if isinstance(value, tuple) else (value,):
            check_word(place, word, vocabulary)
    return value


def check_word(place: str, word: str, vocabulary: Mapping[str, str]) -> str:
    """``word``, if it belongs to ``vocabulary``.

    Raises:
        PaperError: If it does not; the message names the nearest word.
    """
    if word not in vocabulary:
        raise PaperError(
            "not in the vocabulary", place=place, value=word, remedy=nearest(word, vocabulary)
        )
    return word
