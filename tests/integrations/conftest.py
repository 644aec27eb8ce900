"""What all tests of host libraries need."""

from __future__ import annotations

import warnings

import pytest


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums over two threads are not the same every time."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def quiet():
    """Hosts warn of what they will change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
