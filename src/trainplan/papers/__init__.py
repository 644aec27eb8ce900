"""The catalogue: one small TOML file per published method, with its claim and its true status.

A paper's file is named after its slug and holds the fields of `Paper`. The files are written by
hand and read here; ``trainplan papers`` lists them, ``trainplan papers SLUG`` shows one as a card.

    >>> from trainplan import papers
    >>> rex = papers.load("rex")
    >>> rex.year, rex.lever, rex.component
    (2021, 'schedule', 'trainplan.schedules.rex')
    >>> len(papers.all())
    63

The vocabularies are closed, so that a list can be filtered: `LEVERS` (what a method changes),
`EVIDENCE` (what its description rests on), `STATUSES` and `ROOMS`.
"""

from __future__ import annotations

from trainplan.papers.cards import Section, markdown, sections
from trainplan.papers.catalogue import all, load, nearest_slug, search, slugs
from trainplan.papers.paper import EVIDENCE, LEVERS, ROOMS, STATUSES, Paper, PaperError
from trainplan.papers.results import VERDICTS, Result, result

__all__ = [
    "EVIDENCE",
    "LEVERS",
    "ROOMS",
    "STATUSES",
    "VERDICTS",
    "Paper",
    "PaperError",
    "Result",
    "Section",
    "all",
    "load",
    "markdown",
    "nearest_slug",
    "result",
    "search",
    "sections",
    "slugs",
]
