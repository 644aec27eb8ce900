"""The files of Weights & Biases runs, ``*.wandb``, as the library writes them on this machine.

Such a file is a LevelDB log (blocks of 32 kB, records cut into pieces at their borders) of protocol
buffers, which the library itself decodes. Online runs leave it behind as well as offline ones.
"""

from __future__ import annotations

import importlib
import json
import struct
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainplan.laws.readers.raw import LARGEST_TEXT, CurveError, RawRun, Series, number

MARK = b":W&B"
SUFFIX = ".wandb"
_HEADER, _BLOCK, _PIECE = 7, 32768, 7
_STARTS, _ENDS = (1, 2), (1, 4)


def files_in(path: Path) -> list[Path]:
    """The run files below a directory, in the order of their names."""
    return sorted(file for file in path.rglob(f"*{SUFFIX}") if file.is_file())


def read_files(files: list[Path]) -> list[RawRun]:
    """Read one run per file."""
    return [read_file(file) for file in files]


def read_file(path: Path) -> RawRun:
    """Read the history of one run; a cut or damaged end is left out and noted.

    Raises:
        CurveError: If it is no such file, or the library that decodes it is not installed.
    """
    proto, bad_message = _protocol(path)
    series: dict[str, list[tuple[float, float]]] = defaultdict(list)
    name, notes = "", []
    try:
        if path.stat().st_size > LARGEST_TEXT:
            raise CurveError("larger than 1 GB: not a log of scalars", place=str(path))
        data = path.read_bytes()
    except OSError as error:
        raise CurveError(f"cannot be read: {error.strerror}", place=str(path)) from None
    if not data.startswith(MARK):
        raise CurveError("not a file of Weights & Biases", place=str(path))
    try:
        for raw in _records(data):
            record = proto.Record.FromString(raw)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                name = record.run.display_name or record.run.run_id or name
            elif kind == "history":
                _take(record.history, series)
    except (_DamagedError, bad_message) as error:
        notes.append(f"the file is cut or damaged from some point on ({error}): read to there")
    made = {key: Series.of(pairs) for key, pairs in series.items()}
    return RawRun(name or path.stem, str(path), made, tuple(notes))


class _DamagedError(ValueError):
    """The pieces of a record do not fit together."""


def _protocol(path: Path) -> tuple[Any, type[Exception]]:
    """The messages' definitions, and what bytes that are no message raise."""
    try:
        proto = importlib.import_module("wandb.proto.wandb_internal_pb2")
        return proto, importlib.import_module("google.protobuf.message").DecodeError
    except ImportError:
        raise CurveError(
            "reading this file needs the library that wrote it",
            place=str(path),
            remedy="pip install wandb, or export the charts of loss and rate as CSV",
        ) from None


def _records(data: bytes) -> Iterator[bytes]:
    place, record, within = _HEADER, b"", False
    while place < len(data):
        left = _BLOCK - place % _BLOCK
        if left < _PIECE:  # too small for a piece: filled with zeros
            place += left
            continue
        if place + _PIECE > len(data):
            raise _DamagedError("an incomplete piece at its end")
        _, length, kind = struct.unpack_from("<IHB", data, place)
        stop = place + _PIECE + length
        if length > left - _PIECE or stop > len(data) or (kind in _STARTS) == within:
            raise _DamagedError(f"no record at byte {place}")
        record += data[place + _PIECE : stop]
        place, within = stop, kind not in _ENDS
        if not within:
            yield record
            record = b""


def _take(history: Any, series: dict[str, list[tuple[float, float]]]) -> None:
    row: dict[str, float] = {}
    for item in history.item:
        with suppress(TypeError, ValueError, RecursionError):  # a picture, a table, a word
            row[item.key or "/".join(item.nested_key)] = number(json.loads(item.value_json))
    step = row.pop("_step", float(history.step.num))
    for key, value in row.items():
        if not key.startswith("_"):
            series[key].append((step, value))
