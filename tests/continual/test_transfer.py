"""Transfer between tasks: measures of a table of accuracies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainplan import continual
from trainplan.continual import transfer
from trainplan.errors import PlanError


def test_no_module_hides_a_function_of_its_name():
    assert not set(continual._HOME) & set(continual._HOME.values())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_nothing_forgotten_is_a_backward_transfer_of_zero(learned):
    table = np.tril(np.ones((len(learned), 1)) * np.asarray(learned))
    found = transfer(table)
    assert found.average_backward == 0
    assert not found.backward.any()
    assert found.accuracy == pytest.approx(np.mean(learned))
    assert found.incremental[-1] == pytest.approx(found.accuracy)


def test_accuracies_that_nobody_measured_spoil_only_what_needs_them():
    found = transfer([[0.9, np.nan], [0.6, 0.8]])
    assert found.average_backward == pytest.approx(-0.3)
    assert np.isnan(found.average_forward)


@pytest.mark.parametrize("table", [[], [1.0], [[1.0, 2.0]]])
def test_only_square_tables_are_accepted(table):
    with pytest.raises(PlanError, match="square"):
        transfer(table)
