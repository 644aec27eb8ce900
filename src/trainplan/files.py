"""Reading YAML that may be hostile, and writing files that are never half there."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any

from trainplan.errors import PlanError

_LARGEST_FILE = 1024 * 1024
_DEEPEST = 100
"""Deeper files would take the parser a long time; no plan is a fraction of it."""


def read_text(path: Path) -> str:
    """The text of a small file.

    Raises:
        PlanError: If there is none, if it is larger than 1 MB, or if it is not UTF-8.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise PlanError(f"cannot read the plan: {error.strerror}", place=str(path)) from None
    if len(raw) > _LARGEST_FILE:
        raise PlanError("larger than 1 MB: not a plan file", place=str(path))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PlanError(
            f"not UTF-8 text: {error.reason} at byte {error.start}", place=str(path)
        ) from None


def read_yaml(text: str, source: str) -> Any:
    """Plain data from YAML 1.2, without tags, anchors and aliases."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError
    from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 2)
    depth = 0
    try:
        for event in reader.parse(io.StringIO(text)):
            line = f"{source}: line {event.start_mark.line + 1}"
            tag = getattr(event, "tag", None)
            if isinstance(event, AliasEvent) or getattr(event, "anchor", None) or tag:
                raise PlanError(
                    "tags, anchors and aliases are not allowed in a plan file",
                    place=line,
                    remedy="Write the value out",
                )
            depth += isinstance(event, CollectionStartEvent)
            depth -= isinstance(event, CollectionEndEvent)
            if depth > _DEEPEST:
                raise PlanError("nested too deeply", place=line, remedy="Write it more simply")
        data = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}: line {mark.line + 1}" if mark else source
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise PlanError(f"not YAML: {problem}", place=where) from None
    except PlanError:
        raise
    except (ValueError, RecursionError) as error:
        raise PlanError(f"not YAML that can be read: {error}", place=source) from None
    if data is None:
        raise PlanError(
            "empty", place=source, remedy="Write lines like  lr: {cosine: {peak: 3e-4}}"
        )
    return data


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never half."""
    raw = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
