"""Load the papers' files, and find papers by word, lever and status."""

from __future__ import annotations

import difflib
import sys
from functools import cache
from pathlib import Path

from trainplan.errors import nearest
from trainplan.papers.paper import LEVERS, STATUSES, Paper, PaperError, check_word

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_HERE = Path(__file__).parent


@cache
def slugs() -> tuple[str, ...]:
    """The slugs of all papers, in alphabetical order."""
    return tuple(sorted(path.stem for path in _HERE.glob("*.toml")))


def nearest_slug(word: str) -> str | None:
    """The slug that ``word`` was probably meant to be, if there is one.

    >>> nearest_slug("wsds")
    'wsd-s'
    """
    close = difflib.get_close_matches(word.casefold(), slugs(), n=1, cutoff=0.6)
    return close[0] if close else None


@cache
def load(slug: str) -> Paper:
    """The paper called ``slug``.

    Raises:
        PaperError: If there is none; the message names the nearest slug.

    >>> load("wsd-s").venue
    'ICLR 2025'
    """
    if slug not in slugs():
        raise PaperError("no such paper", place="slug", value=slug, remedy=nearest(slug, slugs()))
    with (_HERE / f"{slug}.toml").open("rb") as file:
        return Paper.from_table(slug, tomllib.load(file))


@cache
def all() -> tuple[Paper, ...]:
    """Every paper, in the alphabetical order of the slugs."""
    return tuple(load(slug) for slug in slugs())


def search(word: str = "", lever: str | None = None, status: str | None = None) -> list[Paper]:
    """The papers that fit every condition given.

    Args:
        word: One or more words that must all occur somewhere in the paper's file, in any
            case. Empty for all papers.
        lever: One of `LEVERS`; papers that merely touch it are found too.
        status: One of `STATUSES`.

    Raises:
        PaperError: If ``lever`` or ``status`` is unknown.

    >>> [paper.slug for paper in search("gradient norms", lever="schedule")]
    ['schedule-refinement']
    """
    if lever is not None:
        check_word("lever", lever, LEVERS)
    if status is not None:
        check_word("status", status, STATUSES)
    wanted = word.casefold().split()
    return [
        paper
        for paper in all()
        if (lever is None or lever in paper.levers)
        and (status is None or paper.status == status)
        and _mentions(paper, wanted)
    ]


def _mentions(paper: Paper, words: list[str]) -> bool:
    text = " ".join(
        (
            paper.slug,
            paper.title,
            paper.gist,
            *paper.authors,
            str(paper.year),
            paper.venue,
            paper.arxiv,
            *paper.levers,
            paper.room,
            paper.component,
            paper.changes,
            paper.helps,
            paper.claim,
        )
    ).casefold()
    return not any(word not in text for word in words)
