"""Workloads: pure functions of (seed, step), and clear errors for those that are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import trainplan as tp
from trainplan.lab.checkpoint import weights_digest
from trainplan.lab.corpus import split_documents, standard_library
from trainplan.lab.workload import Task, WorkloadSpec, check_knobs, check_task

from .conftest import TINY_TEXT

SPECS = [
    WorkloadSpec("text", TINY_TEXT),
    WorkloadSpec("digits"),
    WorkloadSpec("lab.lab_workloads:build"),
]
by_path = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.path)


def flat(batch):
    return torch.cat(
        [part.double().flatten() for part in (batch if isinstance(batch, tuple) else [batch])]
    )


@by_path
def test_a_batch_depends_on_seed_and_step_alone(spec):
    torch.manual_seed(7)
    one, two, other = (spec.load().build(seed) for seed in (3, 3, 4))
    for step in (5, 0, 5):
        assert torch.equal(flat(one.batch(step)), flat(two.batch(step)))
    assert not torch.equal(flat(one.batch(0)), flat(one.batch(1)))
    assert not torch.equal(flat(one.batch(0)), flat(other.batch(0)))


@pytest.mark.parametrize("spec", SPECS[:2], ids=lambda spec: spec.path)
def test_the_built_in_models_depend_on_the_seed_alone(spec):
    torch.manual_seed(1)
    first = weights_digest(spec.load().build(0).model)
    torch.manual_seed(2)
    assert weights_digest(spec.load().build(0).model) == first
    assert weights_digest(spec.load().build(1).model) != first


@by_path
def test_evaluating_changes_nothing(spec):
    task = spec.load().build(0)
    before = weights_digest(task.model), torch.get_rng_state()
    assert task.evaluate() == task.evaluate()
    assert weights_digest(task.model) == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert task.model.training


@by_path
def test_the_built_in_and_the_users_tasks_meet_the_protocol(spec):
    assert isinstance(spec.load().build(0), Task)


@pytest.mark.parametrize("spec", SPECS[:2], ids=lambda spec: spec.path)
def test_a_larger_batch_begins_with_the_smaller_one(spec):
    small, large = spec.load().build(0), spec.load().build(0)
    large.apply({"batch_size": 2 * small.tokens_per_batch})
    a, b = small.batch(3), large.batch(3)
    a, b = (a[0], b[0]) if isinstance(a, tuple) else (a, b)
    assert len(b) > len(a)
    assert torch.equal(b[: len(a)], a)


def test_the_untrained_text_model_knows_nothing(tiny_text):
    assert tiny_text.load().build(0).evaluate()["loss"] == pytest.approx(np.log(256), rel=0.05)


def test_the_corpus_is_split_by_file():
    corpus = standard_library()
    assert corpus.documents[0] > 5 * corpus.documents[1] > 0
    assert corpus.train.size > 1_000_000
    assert b"def " in corpus.train.tobytes()
    # No validation document occurs in the training part.
    documents = corpus.validation.tobytes().split(b"\0")
    train = corpus.train.tobytes()
    assert not any(text in train for text in documents)


def test_a_document_is_in_the_same_part_whatever_else_there_is():
    documents = [(f"file{i}", b"text %d" % i) for i in range(60)]
    few, many = split_documents(documents[:40]), split_documents(documents)
    assert set(few.validation.tobytes().split(b"\0")) <= set(many.validation.tobytes().split(b"\0"))


def test_the_digest_of_a_corpus_covers_names_and_content():
    documents = [(f"file{i}", b"text") for i in range(40)]
    digests = {
        split_documents(documents).digest,
        split_documents([*documents[:-1], ("file39", b"texts")]).digest,
        split_documents([*documents[:-1], ("file40", b"text")]).digest,
    }
    assert len(digests) == 3


def test_a_corpus_without_validation_is_refused():
    with pytest.raises(ValueError, match="both parts need at least one"):
        split_documents([("file0", b"text")])


def test_the_digest_of_a_workload_covers_options_and_code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    source = tmp_path / "my_workload_digest_test.py"
    source.write_text("def build(seed, width=1): ...\n")
    spec = WorkloadSpec("my_workload_digest_test:build")
    before = spec.digest()
    assert WorkloadSpec(spec.path, {"width": 2}).digest() != before
    source.write_text("def build(seed, width=1): return 1\n")
    assert spec.digest() != before


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("txt", {}, r"Did you mean 'text'\?"),
        ("no.such.module:build", {}, "No module named 'no"),
        ("lab.lab_workloads:bild", {}, "Did you mean 'build'"),
        ("lab.lab_workloads:NOT_CALLABLE", {}, "no function or class"),
        ("lab.lab_workloads:build", {"widht": 3}, "widht"),
        ("text", {"widht": 3}, "widht"),
        ("text", {"width": -8}, r"above zero \(got -8\)"),
        ("text", {"width": 10}, "multiple of heads"),
        ("digits", {"optimizer": "adan"}, "adamw"),
        ("lab.:x", {}, "lab"),
    ],
)
def test_a_workload_that_cannot_be_made_says_why(path, options, message):
    with pytest.raises(tp.PlanError, match=message):
        WorkloadSpec(path, options).load()


def test_a_workload_whose_import_fails_says_how(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_workload.py").write_text("import no_such_library\n")
    with pytest.raises(tp.PlanError, match=r"fails with ModuleNotFoundError: .*no_such_library"):
        WorkloadSpec("broken_workload:build").load()


def test_a_task_that_lacks_something_is_named():
    with pytest.raises(tp.PlanError, match="lacks model"):
        check_task(WorkloadSpec("lab.lab_workloads:incomplete").load().build(0), "workload 'x'")


def test_a_knob_that_nobody_takes_is_an_error_with_the_nearest_one(noisy):
    task = noisy.load().build(0)
    assert check_knobs(["lr", "betas", "dropout"], task) == ("dropout",)
    with pytest.raises(tp.PlanError, match=r"dropuot: .* Did you mean 'dropout'"):
        check_knobs(["lr", "dropuot"], task)
