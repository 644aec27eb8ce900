"""Makes the catalogue's pages from the papers' TOML files when the documentation is built."""

from __future__ import annotations

from typing import Any

from mkdocs.structure.files import File, Files

from trainplan import papers


def on_files(files: Files, config: Any) -> Files:
    """Add an index of all papers and one page for each."""
    files.append(File.generated(config, "catalogue/index.md", content=index()))
    for paper in papers.all():
        page = papers.markdown(paper)
        files.append(File.generated(config, f"catalogue/{paper.slug}.md", content=page))
    return files


def index() -> str:
    """The table of all papers."""
    rows = [
        f"| [{paper.slug}]({paper.slug}.md) | {paper.lever} | {paper.gist} | {paper.status} |"
        for paper in papers.all()
    ]
    head = (
        "# Catalogue\n\nEvery method, what it changes during training, and whether it is built. "
        "A card says what was read, what the claim is, and what our own study measured.\n\n"
        "| method | changes | idea | status |\n|---|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"
