"""Transformers' Trainer reads open domains alone, and resumes to the bit with its pseudo-labels."""

import os

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("datasets")

import with_domains as example  # noqa: E402


def test_named_data_sets_open_from_near_to_far_and_a_run_resumes_exactly(tmp_path, monkeypatch):
    seen = []
    forward = example.Reader.forward

    def noting(self, pixels, index):
        if self.training and torch.is_grad_enabled():
            assert (self.marks[index] >= 0).all()  # what is read has been labelled
            seen.append(index.tolist())
        return forward(self, pixels, index)

    monkeypatch.setattr(example.Reader, "forward", noting)
    whole = example.fit(tmp_path / "whole")
    names = np.array(list(example.SHIFTS))
    opened = [set(names[np.array(batch) // 60]) for batch in seen]
    near = ["source", "door", "hall", "roof"]
    assert opened[0] == set(near[:2])
    assert opened[-1] == set(near)
    assert all((np.array(batch) < 60).sum() == 8 for batch in seen)  # half is the source's
    first, seen[:] = list(seen), []
    stop = tmp_path / "whole" / "checkpoint-10"  # inside an epoch
    again = example.fit(tmp_path / "again", resume=stop)
    assert seen == first[10:]
    states = whole.state_dict(), again.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
