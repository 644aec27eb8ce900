"""Four small text domains that every machine with Python and PyTorch already has.

``prose`` is the English of Python's topic pages, ``code`` the standard library's top-level modules,
``headers`` the C++ headers of PyTorch's core, ``tables`` the character tables of Python's old
encodings. They share one alphabet, the characters that are frequent in all of them, so that a model
which has seen one domain is not surprised by mere letters of another.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainplan._extras import require
from trainplan.errors import PlanError, nearest

DOMAINS = ("prose", "code", "headers", "tables")
_MOST = 600_000
_BLOCK = 2_000
_HELD_OUT = 10


@dataclass(frozen=True, eq=False)
class CharText:
    """Text of one or several domains as indices into one alphabet.

    Attributes:
        alphabet: Its characters.
        train: By domain, indices (n,) to learn from.
        validation: By domain, indices (m,) of blocks that are not in ``train``.
        digest: SHA-256 of the alphabet and all text.
    """

    alphabet: str
    train: Mapping[str, NDArray[np.int64]]
    validation: Mapping[str, NDArray[np.int64]]
    digest: str


@lru_cache(maxsize=4)
def char_text(domains: tuple[str, ...] = ("prose",), rarest: int = 50) -> CharText:
    """The text of some domains, read once per process.

    Every tenth block of 2000 characters is held out. Characters that occur fewer than ``rarest``
    times in any of the domains are left out of the text.

    Args:
        domains: Of `DOMAINS`.
        rarest: How often a character must occur in every domain.

    Raises:
        PlanError: If a domain is unknown, or its files are not on this machine.

    Example:
        >>> text = char_text(("prose",))
        >>> len(text.train["prose"]) > 300_000, "e" in text.alphabet
        (True, True)
    """
    texts = {domain: _read(domain) for domain in domains}
    counts = [Counter(text) for text in texts.values()]
    alphabet = "".join(sorted(c for c in counts[0] if all(n[c] >= rarest for n in counts)))
    index = {character: i for i, character in enumerate(alphabet)}
    digest = hashlib.sha256(alphabet.encode())
    train, validation = {}, {}
    for domain, text in texts.items():
        codes = np.array([index[c] for c in text if c in index], dtype=np.int64)
        digest.update(codes.tobytes())
        held_out = (np.arange(len(codes)) // _BLOCK) % _HELD_OUT == _HELD_OUT - 1
        train[domain], validation[domain] = codes[~held_out], codes[held_out]
    return CharText(alphabet, train, validation, digest.hexdigest())


def _read(domain: str) -> str:
    readers = {"prose": _prose, "code": _code, "headers": _headers, "tables": _tables}
    if domain not in readers:
        raise PlanError(
            "no such domain", place="domains", value=domain, remedy=nearest(domain, DOMAINS)
        )
    text = "\n".join(readers[domain]())[:_MOST]
    if len(text) < 100_000:
        raise PlanError(
            f"only {len(text)} characters of the domain {domain!r} are on this machine",
            place="domains",
            remedy="Use a Python with its standard library's sources, and PyTorch with its headers",
        )
    return text


def _prose() -> Iterable[str]:
    from pydoc_data.topics import topics

    return (topics[name] for name in sorted(topics))


def _code() -> Iterable[str]:
    return _files(Path(sysconfig.get_path("stdlib")).glob("*.py"))


def _headers() -> Iterable[str]:
    torch = require("torch", extra="torch")
    return _files((Path(torch.__path__[0]) / "include" / "c10").rglob("*.h"))


def _tables() -> Iterable[str]:
    return _files((Path(sysconfig.get_path("stdlib")) / "encodings").glob("cp*.py"))


def _files(paths: Iterable[Path]) -> Iterable[str]:
    return (path.read_text(encoding="utf-8", errors="ignore") for path in sorted(paths))
