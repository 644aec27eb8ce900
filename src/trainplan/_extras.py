"""Load optional dependencies, or say which command installs them."""

from __future__ import annotations

import importlib
from typing import Any

from trainplan.errors import MissingExtraError


def require(module: str, *, extra: str) -> Any:
    """Import ``module``, which belongs to the optional dependencies called ``extra``.

    Raises:
        MissingExtraError: If it is not installed; the message names the pip command.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise MissingExtraError(
            f"{error.name!r} is not installed: run  pip install 'trainplan[{extra}]'",
            name=error.name,
        ) from error
