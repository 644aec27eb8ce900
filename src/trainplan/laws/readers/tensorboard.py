"""TensorBoard event files, read without TensorBoard or TensorFlow.

A file is a sequence of records, ``length (8 bytes), checksum of it (4), data, checksum (4)``, each
an ``Event`` protocol buffer. Only wall time, step and scalar values are read: ``simple_value``, or
the one-element tensors of newer writers. Every point is kept (TensorBoard's own reader keeps a
sample of 10,000). A file cut by a crash is read up to the cut.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from trainplan.laws.readers.raw import CurveError, RawRun, Series

MARK = "tfevents"
_LARGEST_RECORD = 1 << 28
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOAT, _DOUBLE = 1, 2


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return table


_CRC = _crc_table()


def masked_crc(data: bytes) -> int:
    """The record format's checksum: CRC-32C, rotated and shifted by a constant."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_events(directory: Path) -> list[RawRun]:
    """Read every event file in a directory and below; each folder that holds some is a run."""
    folders: dict[Path, list[Path]] = defaultdict(list)
    for file in sorted(directory.rglob(f"*{MARK}*")):
        if file.is_file():
            folders[file.parent].append(file)
    runs = []
    for folder, files in sorted(folders.items()):
        name = folder.relative_to(directory).as_posix()
        runs.append(read_event_files(files, "" if name == "." else name, str(folder)))
    return [run for run in runs if run.series] or runs


def read_event_files(files: list[Path], name: str, source: str) -> RawRun:
    """Read the event files of one run, in the order of their wall times."""
    points: list[tuple[float, int, str, float]] = []
    notes: list[str] = []
    for file in files:
        try:
            raw = file.read_bytes()
        except OSError as error:
            raise CurveError(f"cannot be read: {error.strerror}", place=str(file)) from None
        points += _scalars(raw, file.name, notes)
    if not points and notes:
        raise CurveError(f"holds no readable event: {notes[0]}", place=source)
    points.sort(key=lambda point: point[0])
    tags: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _, step, tag, value in points:
        tags[tag].append((step, value))
    return RawRun(name, source, {t: Series.of(pairs) for t, pairs in tags.items()}, tuple(notes))


def _scalars(raw: bytes, name: str, notes: list[str]) -> Iterator[tuple[float, int, str, float]]:
    for number, record in enumerate(_records(raw)):
        if record is None:
            notes.append(f"{name} is cut or damaged after {number} records: read up to there")
            return
        try:
            yield from _event(record)
        except (ValueError, struct.error, IndexError):
            notes.append(f"{name}: record {number + 1} is damaged and was left out")


def _records(raw: bytes) -> Iterator[bytes | None]:
    at = 0
    while at < len(raw):
        head = raw[at : at + 8]
        if len(raw) < at + 12 or masked_crc(head) != int.from_bytes(
            raw[at + 8 : at + 12], "little"
        ):
            yield None
            return
        size = int.from_bytes(head, "little")
        if size > _LARGEST_RECORD or at + 16 + size > len(raw):
            yield None
            return
        yield raw[at + 12 : at + 12 + size]
        at += 16 + size


def _event(record: bytes) -> Iterator[tuple[float, int, str, float]]:
    wall, step, summaries = 0.0, 0, []
    for field, _, value in _fields(record):
        if field == 1 and isinstance(value, bytes):
            wall = struct.unpack("<d", value)[0]
        elif field == 2 and isinstance(value, int):
            step = value
        elif field == 5 and isinstance(value, bytes):
            summaries.append(value)
    for summary in summaries:
        for field, kind, value in _fields(summary):
            if field == 1 and kind == _BYTES and isinstance(value, bytes):
                scalar = _scalar(value)
                if scalar is not None:
                    yield wall, step, *scalar


def _scalar(message: bytes) -> tuple[str, float] | None:
    tag, result = "", None
    for field, kind, value in _fields(message):
        if field == 1 and kind == _BYTES and isinstance(value, bytes):
            tag = value.decode("utf-8", "replace")
        elif field == 2 and kind == _FIXED32 and isinstance(value, bytes):
            result = struct.unpack("<f", value)[0]
        elif field == 8 and kind == _BYTES and isinstance(value, bytes):
            result = _tensor(value)
    return None if result is None else (tag, float(result))


def _tensor(message: bytes) -> float | None:
    """The value of a float tensor with one element."""
    kind, data = 0, b""
    for field, _, value in _fields(message):
        if field == 1 and isinstance(value, int):
            kind = value
        elif field in (4, 5, 6) and isinstance(value, bytes):
            data = value
    if kind == _FLOAT and len(data) == 4:
        return float(struct.unpack("<f", data)[0])
    if kind == _DOUBLE and len(data) == 8:
        return float(struct.unpack("<d", data)[0])
    return None


def _fields(message: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Field number, wire type and raw value of each field of a protocol buffer."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield field, kind, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(message):
            raise ValueError("a field runs past the end")
        yield field, kind, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than ten bytes")
