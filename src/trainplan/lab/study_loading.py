"""Find and load studies: by slug in a checkout, by file, or as ``package.module:STUDY``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from trainplan import papers
from trainplan.errors import PlanError, nearest
from trainplan.lab.study import Study

_CHECKOUT = Path(__file__).parents[3]
_VARIABLE = "STUDY"


def studies_folder() -> Path | None:
    """The folder of the repository's own studies, if there is one here."""
    for root in (Path.cwd(), _CHECKOUT):
        if (root / "studies").is_dir() and (root / "src" / "trainplan").is_dir():
            return root / "studies"
    return None


def study_slugs() -> tuple[str, ...]:
    """The slugs of the repository's own studies, in alphabetical order."""
    return tuple(sorted(_studies()))


def find_study(name: str) -> str:
    """Where a study is: a file, or ``package.module:NAME``.

    Args:
        name: A slug, a path that ends in ``.py``, or ``package.module:NAME``.

    Raises:
        PlanError: If there is no such study.
    """
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise PlanError("no such file", place="study", value=name)
        return str(Path(name).resolve())
    if ":" in name:
        return name
    known = _studies()
    if not known:
        remedy = "Run inside a checkout of the repository, or give a file or package.module:STUDY"
        raise PlanError("there are no studies here", place="study", value=name, remedy=remedy)
    if name not in known:
        raise PlanError("no such study", place="study", value=name, remedy=nearest(name, known))
    return str(known[name].resolve())


@lru_cache(maxsize=8)
def load_study(source: str) -> Study:
    """The study at a place that `find_study` gave.

    Raises:
        PlanError: If it cannot be imported or defines no study.
    """
    module, name = _import_file(Path(source)) if source.endswith(".py") else _import_name(source)
    found = getattr(module, name, None)
    if not isinstance(found, Study):
        remedy = f"Define {name} = Study(...)"
        raise PlanError("defines no study", place=source, value=found, remedy=remedy)
    return found


def _import_file(path: Path) -> tuple[ModuleType, str]:
    name = f"_trainplan_study_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PlanError("not a Python file", place="study", value=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module, _VARIABLE


def _import_name(source: str) -> tuple[ModuleType, str]:
    module_name, _, name = source.partition(":")
    try:
        return importlib.import_module(module_name), name or _VARIABLE
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        remedy = "Run from the folder it lies in, or install it"
        raise PlanError(
            f"no module named {error.name!r}", place="study", value=source, remedy=remedy
        ) from error


def _studies() -> dict[str, Path]:
    """The files of the repository's own studies by slug: ``wsd-s`` is in ``wsd_s.py``."""
    folder = studies_folder()
    if folder is None:
        return {}
    slug_of = {slug.replace("-", "_").replace(".", "_"): slug for slug in papers.slugs()}
    files = (path for path in folder.glob("*.py") if not path.name.startswith("_"))
    return {slug_of.get(p.stem, p.stem.replace("_", "-")): p for p in files}
