"""Writes the pages that are made from the code and from measured results, before Sphinx reads anything."""

from pathlib import Path

import gallery
import measured
import reference
from sphinx.application import Sphinx


def write_pages(app: Sphinx) -> None:
    out = Path(app.srcdir) / "generated"
    pages = gallery.pages() | measured.pages() | reference.pages()
    for stale in set(out.rglob("*.md")) - {out / name for name in pages}:
        stale.unlink()
    for name, text in pages.items():
        page = out / name
        page.parent.mkdir(parents=True, exist_ok=True)
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
