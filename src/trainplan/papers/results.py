"""What our own study of a paper found, where its result is shipped with the package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainplan.errors import nearest
from trainplan.papers.paper import PaperError

#: How a study ends.
VERDICTS: Mapping[str, str] = {
    "reproduced": "the study found what the claim says, on its small scale",
    "contradicted": "the study found that the claim does not hold, on its small scale",
    "inconclusive": "the study can tell neither",
}

_PACKAGE = Path(__file__).parent / "results"
_CHECKOUT = Path(__file__).parents[3] / "studies" / "results"


@dataclass(frozen=True)
class Result:
    """The outcome of one study.

    Attributes:
        verdict: One of `VERDICTS`.
        summary: What was found, in a sentence or two; empty if the study gives none.
        figures: Named figures in the order in which the study lists them, as text.
        source: The file it was read from.
    """

    verdict: str
    summary: str
    figures: tuple[tuple[str, str], ...]
    source: Path


def result(slug: str, folders: tuple[Path, ...] = (_PACKAGE, _CHECKOUT)) -> Result | None:
    """The shipped result of the study ``slug``, or ``None`` if there is none.

    A result is ``SLUG.json`` with ``verdict``, and optionally ``summary`` (text) and ``figures``
    (an object of numbers or texts). Other keys are ignored. In a checkout the results of the
    repository's own studies are found as well.

    Raises:
        PaperError: If the file cannot be read, or its verdict is unknown.
    """
    for folder in folders:
        path = folder / f"{slug}.json"
        if path.is_file():
            return _read(path)
    return None


def _read(path: Path) -> Result:
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PaperError(
            f"not a JSON file: {error}", place=str(path), remedy="Run its study again."
        ) from error
    verdict = str(data.get("verdict")) if isinstance(data, dict) else ""
    if verdict not in VERDICTS:
        raise PaperError(
            "no known verdict",
            place=f"{path}: verdict",
            value=verdict,
            remedy=nearest(verdict, VERDICTS),
        )
    figures = data.get("figures", {})
    if not isinstance(figures, dict):
        raise PaperError("must be an object", place=f"{path}: figures", value=figures)
    return Result(
        verdict=verdict,
        summary=str(data.get("summary", "")),
        figures=tuple((name, _text(value)) for name, value in figures.items()),
        source=path,
    )


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
