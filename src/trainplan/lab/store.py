"""The directory of one comparison: what is in it, and how nothing in it is ever half-written.

    manifest.json          the experiment, its digest, the environment it began in
    plans/ARM.yaml         each arm's plan, for people
    segments/KEY/          one stretch of training (see ``segments.py``)
        rows.jsonl         one line per step and per evaluation, appended as it goes
        resume.pt          the latest state, while it runs
        end.pt             the last state, until the segments that continue it are done
        done.json          the outcome; its presence says that the segment is complete
    tuning.json            which peak each arm got, with --tune-peak
    prediction.json        what the first arms said of the others, with --predict
    curves.jsonl           every run's losses and rates, for ``trainplan fit``
    results.json           the comparison
    report.html            the same for people

Files other than ``rows.jsonl`` are written to a temporary name and renamed, so a reader sees the
old or the new content and never a part. Rows are appended and flushed line by line; a kill may
tear the last line, and the checkpoint knows where the valid ones end.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trainplan.errors import PlanError

FORMAT = "trainplan-comparison/1"
_KEY_CHARACTERS = frozenset("0123456789abcdef")


class RunDirectoryError(PlanError):
    """A run directory cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Outcome:
    """How a segment ended.

    Attributes:
        stop: Completed updates at its end.
        diverged_at: The completed updates at which the loss was no longer finite, or ``None``.
        weights: SHA-256 of the model's final state; empty if it diverged.
        rows_digest: SHA-256 of ``rows.jsonl``.
        seconds: Time spent in training steps (without evaluation, loading and saving).
        tokens: Tokens trained on.
    """

    stop: int
    diverged_at: int | None
    weights: str
    rows_digest: str
    seconds: float
    tokens: int


class RunDirectory:
    """The files of one comparison. Use :meth:`create` or :meth:`open`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock: IO[str] | None = None

    @classmethod
    def create(cls, root: Path, manifest: Mapping[str, Any]) -> RunDirectory:
        """Start a new directory.

        Raises:
            RunDirectoryError: If there is something already.
        """
        if (root / "manifest.json").exists():
            raise RunDirectoryError(
                f"{root} already holds a comparison: continue it with --resume, or choose "
                "another --out"
            )
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise RunDirectoryError(
                f"{root} exists and is not a directory of trainplan: choose another --out"
            )
        (root / "segments").mkdir(parents=True, exist_ok=True)
        directory = cls(root)
        directory.lock()
        content = {"format": FORMAT, **manifest}
        content["checksum"] = _checksum(content)
        directory.write_json("manifest.json", content)
        return directory

    @classmethod
    def open(cls, root: Path) -> tuple[RunDirectory, dict[str, Any]]:
        """Open an existing directory and read its manifest.

        Raises:
            RunDirectoryError: If it is missing, foreign, damaged, or in use.
        """
        path = root / "manifest.json"
        if not path.is_file():
            reason = "does not exist" if not root.exists() else "holds no comparison"
            raise RunDirectoryError(
                f"{root} {reason} (no manifest.json): nothing to resume; start without --resume"
            )
        manifest = _read_json(path)
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            found = manifest.get("format") if isinstance(manifest, dict) else None
            raise RunDirectoryError(
                f"{path} is not of the format {FORMAT!r} (found {found!r}): it belongs to another "
                "tool or version; choose another --out"
            )
        checksum = manifest.pop("checksum", None)
        if checksum != _checksum(manifest):
            raise RunDirectoryError(
                f"{path} was changed after it was written (its checksum does not fit): "
                "start anew with another --out"
            )
        directory = cls(root)
        directory.lock()
        return directory, manifest

    def lock(self) -> None:
        """Keep other processes from writing here until this one ends or closes it."""
        file = (self.root / "lock").open("a+")
        if not _try_lock(file):
            file.close()
            raise RunDirectoryError(f"{self.root} is in use by another process: wait for its end")
        self._lock = file

    def close(self) -> None:
        """Let others write here again."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def segment(self, key: str) -> SegmentDirectory:
        """The directory of one segment; it need not exist."""
        if not key or not _KEY_CHARACTERS.issuperset(key):
            raise ValueError(f"key={key!r} is not a segment's key")
        return SegmentDirectory(self.root / "segments" / key)

    def write_json(self, name: str, content: Any) -> None:
        """Write a file of the directory as readable JSON."""
        write_atomically(self.root / name, json_text(content).encode())

    def write_text(self, name: str, text: str) -> None:
        """Write a text file of the directory."""
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, text.encode())

    def read_json(self, name: str) -> Any:
        """Read such a file; ``None`` if there is none."""
        path = self.root / name
        return _read_json(path) if path.exists() else None


class SegmentDirectory:
    """The files of one segment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows_path = root / "rows.jsonl"
        self.resume_path = root / "resume.pt"
        self.end_path = root / "end.pt"

    def outcome(self) -> Outcome | None:
        """How the segment ended, or ``None`` if it has not.

        Raises:
            RunDirectoryError: If the outcome and the rows do not belong together.
        """
        path = self.root / "done.json"
        if not path.exists():
            return None
        try:
            outcome = Outcome(**_read_json(path))
        except TypeError as error:
            raise RunDirectoryError(f"{path} is damaged: {error}; delete {self.root}") from error
        if file_digest(self.rows_path) != outcome.rows_digest:
            raise RunDirectoryError(
                f"{self.rows_path} is not what was recorded there: delete {self.root} to train "
                "that part again"
            )
        return outcome

    def finish(self, outcome: Outcome) -> None:
        """Record that the segment is complete."""
        content = json_text(vars(outcome)).encode()
        write_atomically(self.root / "done.json", content)
        self.resume_path.unlink(missing_ok=True)

    def reopen(self) -> None:
        """Make the segment incomplete again, to be trained from its start."""
        (self.root / "done.json").unlink(missing_ok=True)
        self.resume_path.unlink(missing_ok=True)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows so far; a torn last line is left out."""
        return read_rows(self.rows_path)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read JSON lines, leaving out a last line that was torn by a kill.

    Raises:
        RunDirectoryError: If any other line is not JSON.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise RunDirectoryError(f"{path}:{number} is damaged: {error}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it holds, at every moment, its old or its new content."""
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; empty if there is no file."""
    if not path.exists():
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def json_text(content: Any) -> str:
    """Readable, strict JSON (no NaN) with a final line break."""
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"{path} cannot be read ({error}): the directory is damaged or not trainplan's"
        ) from error


def _checksum(manifest: Mapping[str, Any]) -> str:
    canonical = json.dumps(manifest, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _try_lock(file: IO[str]) -> bool:
    with contextlib.suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True  # without fcntl (Windows) there is no lock to take
