"""The run directory: nothing foreign is touched, and nothing in it is ever half-written."""

from __future__ import annotations

import json
import os

import pytest

from trainplan.lab.store import (
    Outcome,
    RunDirectory,
    RunDirectoryError,
    read_rows,
    write_atomically,
)


def test_a_new_directory_can_be_opened_again(tmp_path):
    RunDirectory.create(tmp_path / "run", {"experiment": {"a": 1}}).close()
    directory, manifest = RunDirectory.open(tmp_path / "run")
    directory.close()
    assert manifest["experiment"] == {"a": 1}


def test_an_existing_comparison_is_not_written_over(tmp_path):
    RunDirectory.create(tmp_path / "run", {}).close()
    with pytest.raises(RunDirectoryError, match="--resume"):
        RunDirectory.create(tmp_path / "run", {})


def test_a_directory_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunDirectoryError, match="not a directory of trainplan"):
        RunDirectory.create(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RunDirectoryError, match="another --out"):
        RunDirectory.create(tmp_path / "run", {})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[1, 2]", "another tool"),
        ('{"format": "other/9"}', "another tool"),
        ('{"format": "trainplan-comparison/1"}', "changed after it was written"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_foreign_or_damaged_manifest_is_refused(tmp_path, content, reason):
    raw = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "manifest.json").write_bytes(raw)
    with pytest.raises(RunDirectoryError, match=reason):
        RunDirectory.open(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == raw


def test_a_manifest_that_someone_edited_is_refused(tmp_path):
    RunDirectory.create(tmp_path / "run", {"seeds": [0, 1]}).close()
    path = tmp_path / "run" / "manifest.json"
    path.write_text(path.read_text().replace("1\n ]", "2\n ]"))
    assert json.loads(path.read_text())["seeds"] == [0, 2]
    with pytest.raises(RunDirectoryError, match="changed after it was written"):
        RunDirectory.open(tmp_path / "run")


@pytest.mark.parametrize("exists", [True, False])
def test_there_must_be_something_to_resume(tmp_path, exists):
    root = tmp_path if exists else tmp_path / "nowhere"
    with pytest.raises(RunDirectoryError, match="nothing to resume"):
        RunDirectory.open(root)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no flock")
def test_two_processes_do_not_write_to_one_directory(tmp_path):
    first = RunDirectory.create(tmp_path / "run", {})
    with pytest.raises(RunDirectoryError, match="in use"):
        RunDirectory.open(tmp_path / "run")
    first.close()
    RunDirectory.open(tmp_path / "run")[0].close()


@pytest.mark.parametrize("key", ["", "..", "../../etc", "abc/def", "ABC"])
def test_segments_lie_inside_the_directory(tmp_path, key):
    with pytest.raises(ValueError, match="not a segment's key"):
        RunDirectory(tmp_path).segment(key)


def test_a_torn_last_line_is_left_out(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"step": 1}\n{"step": 2}\n{"ste')
    assert list(read_rows(tmp_path / "rows.jsonl")) == [{"step": 1}, {"step": 2}]


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(RunDirectoryError, match=r"rows.jsonl:2 is damaged"):
        list(read_rows(tmp_path / "rows.jsonl"))


def test_rows_that_do_not_fit_their_outcome_are_refused(tmp_path):
    segment = RunDirectory(tmp_path).segment("ab12")
    segment.root.mkdir(parents=True)
    segment.rows_path.write_text('{"step": 1}\n')
    segment.finish(Outcome(1, None, "w", "0" * 64, 0.0, 1))
    with pytest.raises(RunDirectoryError, match="to train that part again"):
        segment.outcome()


def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_atomically(path, b"old")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"
