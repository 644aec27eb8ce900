"""The reference values of every paper that is built."""

from __future__ import annotations

from pathlib import Path

import pytest

import golden

FILES = sorted((Path(__file__).parent / "golden").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_reference_values_are_met(path):
    outcomes = list(golden.check_file(path))
    assert outcomes
    assert [o for o in outcomes if o.status == "failed"] == []
    assert any(o.status == "passed" for o in outcomes)


def test_a_wrong_value_a_missing_output_and_an_unknown_function_fail():
    case = {"name": "x", "function": "f", "inputs": {}, "outputs": {"lr": [1.0]}, "rtol": 1e-9}
    assert golden.check_case("x", lambda _: {"lr": [1.0 + 1e-6]}, case).status == "failed"
    assert golden.check_case("x", lambda _: {"lr": [1.0, 1.0]}, case).status == "failed"
    assert golden.check_case("x", lambda _: {}, case).status == "failed"
    assert golden.check_case("x", lambda _: {"lr": [1.0]}, case).status == "passed"


def test_an_unlisted_function_is_a_failure(tmp_path):
    path = tmp_path / "rex.json"
    path.write_text('{"paper": "rex", "cases": [{"name": "n", "function": "?", "inputs": {}}]}')
    assert [o.status for o in golden.check_file(path)] == ["failed"]
    assert golden.main([str(path)]) == 1
