"""The program of the how-to page does what the page says."""

import pytest

pytest.importorskip("torch")

import with_sample_order as example


def test_the_best_order_by_estimates_is_better_when_really_trained(tmp_path, capsys):
    found = example.main(tmp_path / "reference", budget=40)
    assert found["best order, trained"] < found["recorded order"]
    assert found["best order, estimated"] == pytest.approx(found["best order, trained"], rel=0.02)
    printed = capsys.readouterr().out
    assert "recorded run" in printed
    assert "about 24 gradients (retraining: 12)" in printed
