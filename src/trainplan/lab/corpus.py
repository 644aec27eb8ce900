"""Text that every machine with Python already has: the standard library and its topic pages.

The corpus is the source files of the running interpreter's standard library (code with English
docstrings) and the pages that ``help()`` shows (``pydoc_data.topics``). It is read in a fixed
order and split by file, so that no file is in both parts; its digest goes into every result,
because another Python version has another corpus.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Not sources that people wrote to be read: tables of code points, installed packages and tests.
_SKIPPED = frozenset(
    ("site-packages", "dist-packages", "test", "tests", "encodings", "pydoc_data", "__pycache__")
)
_SHORTEST = 256
_VALIDATION_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text corpus as bytes.

    Attributes:
        train: Bytes (uint8) to learn from, documents separated by a zero byte.
        validation: Bytes (uint8) of other documents.
        documents: Number of documents in (train, validation).
        digest: SHA-256 of every document's name and content, in hexadecimal.
    """

    train: NDArray[np.uint8]
    validation: NDArray[np.uint8]
    documents: tuple[int, int]
    digest: str


def split_documents(documents: Iterable[tuple[str, bytes]]) -> Corpus:
    """Split named documents into training and validation parts, by name.

    A document's part depends on its name alone, so an added file moves no other.

    Raises:
        ValueError: If one of the parts would be empty.

    Example:
        >>> corpus = split_documents((f"file{i}", b"some text") for i in range(40))
        >>> corpus.documents
        (38, 2)
    """
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    digest = hashlib.sha256()
    for name, text in documents:
        key = hashlib.sha256(name.encode()).digest()
        held_out = int.from_bytes(key[:8], "big") < _VALIDATION_SHARE * 2**64
        parts[held_out].append(text)
        digest.update(key)
        digest.update(hashlib.sha256(text).digest())
    if not parts[0] or not parts[1]:
        raise ValueError(
            f"{len(parts[0])} documents to train on and {len(parts[1])} to validate on: "
            "both parts need at least one; provide more documents"
        )
    train, validation = (np.frombuffer(b"\0".join(part), dtype=np.uint8) for part in parts)
    return Corpus(train, validation, (len(parts[0]), len(parts[1])), digest.hexdigest())


@lru_cache(maxsize=1)
def standard_library() -> Corpus:
    """The corpus of the running interpreter, read once per process.

    Raises:
        ValueError: If the interpreter was installed without its sources.
    """
    root = Path(sysconfig.get_path("stdlib"))
    files = list(_sources(root))
    if len(files) < 100:
        raise ValueError(
            f"the text workload needs the standard library's sources, but {root} holds "
            f"{len(files)} of them: use a Python that ships them, or another --workload"
        )
    return split_documents([*files, *_topic_pages()])


def _sources(root: Path) -> Iterator[tuple[str, bytes]]:
    names = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if _SKIPPED.isdisjoint(path.relative_to(root).parts)
    )
    for name in names:
        text = (root / name).read_bytes()
        if len(text) >= _SHORTEST:
            yield f"lib/{name}", text


def _topic_pages() -> Iterator[tuple[str, bytes]]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        text = topics[name].encode()
        if len(text) >= _SHORTEST:
            yield f"topics/{name}", text
