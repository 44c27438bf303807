"""Fails the build when a page would load a script, a style, a font or a picture from another machine."""

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

TAG = r"<(?:script|link|img|iframe|source|video|audio|embed|object)\b[^>]*?"
LOADED = re.compile(TAG + r"""\b(?:src|href|data)\s*=\s*["']?(?:https?:)?//[^\s"'>]+""")
IMPORTED = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])(?:https?:)?//[^\s"')]+""")
READERS = {".html": LOADED, ".css": IMPORTED}


def requests_outside(folder: Path) -> list[str]:
    """Each place where a built page asks another machine for something: `page: what`."""
    pages = sorted(p for p in folder.rglob("*") if p.suffix in READERS)
    return [
        f"{page.relative_to(folder)}: {found.group()}"
        for page in pages
        for found in READERS[page.suffix].finditer(page.read_text(encoding="utf-8"))
    ]


def refuse_requests(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and (found := requests_outside(Path(app.outdir))):
        raise ExtensionError("pages must open offline, but these load something: " + "; ".join(found[:5]))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", refuse_requests)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
