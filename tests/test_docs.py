"""The code on the pages runs, page by page, as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if re.search(r"```python\n(?!--8<--)", path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_the_code_of_the_page_runs(path):
    pytest.importorskip("torch")
    text = path.read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        if not code.startswith("--8<--"):
            exec(compile(code, str(path), "exec"), names)
