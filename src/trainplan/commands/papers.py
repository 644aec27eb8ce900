"""``trainplan papers``: list the catalogue, search it, or show one paper as a card."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from trainplan import papers as catalogue
from trainplan.papers import LEVERS, STATUSES, Paper, PaperError
from trainplan.papers.cards import status_line

_CARD_WIDTH = 92


def papers(
    word: Annotated[
        str,
        typer.Argument(
            metavar="SLUG|WORDS",
            help="A paper's slug, to see its card; or words to search for, in quotes if several.",
            show_default=False,
        ),
    ] = "",
    lever: Annotated[
        str | None,
        typer.Option(help="Only papers that change this: " + ", ".join(LEVERS) + "."),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(help="Only papers that are: " + ", ".join(STATUSES) + "."),
    ] = None,
) -> None:
    """List the catalogue of methods, search it, or show the card of one paper.

    \b
    trainplan papers                       every paper, by what it changes
    trainplan papers replay                those that mention a word
    trainplan papers --lever schedule --status built
    trainplan papers wsd-s                 one paper: idea, code, claim, pitfalls
    """  # noqa: D301  (Click wants the control character, not a backslash)
    console = Console()
    try:
        if lever is None and status is None and word in catalogue.slugs():
            show(catalogue.load(word), console)
            return
        found = catalogue.search(word, lever, status)
    except PaperError as error:
        _stop(str(error))
    if not found:
        _stop(_nothing(word, lever, status))
    console.print(table(found))
    built = sum(paper.built for paper in found)
    noun = "paper" if len(found) == 1 else "papers"
    console.print(
        f"{len(found)} {noun}, {built} built.  A card:  trainplan papers {found[0].slug}",
        style="dim",
        highlight=False,
    )


def table(found: list[Paper]) -> Table:
    """The papers as a table, in groups by what they change."""
    listing = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
    listing.add_column(no_wrap=True)
    listing.add_column(no_wrap=True)
    listing.add_column()
    first = True
    for lever, meaning in LEVERS.items():
        group = [paper for paper in found if paper.lever == lever]
        if not group:
            continue
        if not first:
            listing.add_row()
        first = False
        listing.add_row(Text(lever, style="bold"), "", Text(meaning, style="bold"))
        for paper in group:
            listing.add_row(
                Text(paper.slug),
                Text(paper.status, style="green" if paper.built else "dim"),
                Text(paper.gist),
            )
    return listing


def show(paper: Paper, console: Console) -> None:
    """Print the card of one paper."""
    width = min(console.width, _CARD_WIDTH)
    console.print(Text(paper.title, style="bold"), width=width)
    console.print(Text(paper.citation), width=width)
    if paper.url:
        console.print(Text(paper.url, style="dim"), width=width)
    console.print(Text(status_line(paper), style="green" if paper.built else "yellow"), width=width)
    for section in catalogue.sections(paper):
        console.print()
        console.print(Text(section.heading, style="bold"))
        if section.text:
            console.print(Padding(Markdown(section.text), (0, 0, 0, 2)), width=width)
        if section.code:
            text = section.code.rstrip()
            code = Syntax(text, "python", theme="ansi_dark", background_color="default")
            console.print()
            console.print(Padding(code, (0, 0, 0, 4)))


def _nothing(word: str, lever: str | None, status: str | None) -> str:
    conditions = [
        text
        for text, given in (
            (f"mentions {word!r}", word),
            (f"has the lever {lever!r}", lever),
            (f"is {status}", status),
        )
        if given
    ]
    message = f"no paper {' and '.join(conditions)}"
    close = catalogue.nearest_slug(word) if word else None
    hint = f"did you mean {close!r}?" if close else "list them all with  trainplan papers"
    return f"{message}: {hint}"


def _stop(message: str) -> NoReturn:
    Console(stderr=True).print(f"trainplan papers: {message}", highlight=False, markup=False)
    raise typer.Exit(2)
