"""Reads `name : what it is` in a docstring as a description. Types stand in the signature, so none is repeated here."""

import re

from sphinx.application import Sphinx

SECTION = re.compile(r"^(Parameters|Attributes)$")
ENTRY = re.compile(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*) : (.+)$")


def described(lines: list[str]) -> list[str]:
    """The lines with each one-line entry of a Parameters or Attributes section split into name and description."""
    out, inside = [], False
    for i, line in enumerate(lines):
        if re.match(r"^-{3,}$", "".join(lines[i + 1 : i + 2])):
            inside = bool(SECTION.match(line))
        entry = ENTRY.match(line) if inside else None
        out += [entry[1], f"    {entry[2]}"] if entry else [line]
    return out


def describe(app: Sphinx, what, name, obj, options, lines: list[str]) -> None:
    lines[:] = described(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", describe, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
