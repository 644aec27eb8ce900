"""Let pytest explain failures of the tests that several optimizers share."""

import pytest

pytest.register_assert_rewrite("optim.optimizer_contract", "optim.update_contract")
