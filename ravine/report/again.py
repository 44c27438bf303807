"""The lines that fit the model again: in Python, and in a shell."""

from __future__ import annotations

import importlib
import inspect
import platform
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np

import ravine
from ravine._spell import kebab, spell
from ravine.registry.names import FUNCTIONS, PARTS
from ravine.report.markup import Html, details, joined, section, table, tag, words

_TEXT = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")


@dataclass(frozen=True)
class Origin:
    """Where the rows came from, as far as it is known.

    Attributes
    ----------
    data : name or path of the data, as the shell takes it.
    test_size : share of its rows that was kept for the test; None when the data have test rows of their own.
    folder : where the model is kept.
    checksum : SHA-256 of the training array.
    """

    data: str | None = None
    test_size: float | None = None
    folder: str | None = None
    checksum: str | None = None


def section_again(model: Any, origin: Origin) -> Html:
    """How to make this fit once more, and with what it was made."""
    changed, unwritten = chosen(model)
    sure = model.random_state is not None and not unwritten
    promise = (
        "The same versions, rows and seed give the same model on the same kind of machine."
        if sure
        else "The fit used random numbers, or parts, that cannot be written down as text, so these lines do not "
        "bring the same model back to the bit."
    )
    return section(
        "again",
        "How to reproduce it",
        words(
            promise, None if origin.data else f"Below, {_file(model)} stands for the rows that the model was fitted to."
        ),
        tag("h3", "In Python"),
        _code("Python lines", python_lines(model, changed, origin)),
        tag("h3", "In a shell"),
        _code("Shell lines", shell_lines(model, changed, origin)),
        details("All fields of the recipe", table("Fields", ("Field", "Value", "Set by"), _fields(model, changed))),
        details("Versions and data", table("Versions and data", ("What", "Value"), _versions(model, origin))),
    )


def chosen(model: Any) -> tuple[dict[str, str], list[str]]:
    """The fields that differ from their defaults as text, and the names of those that have no text."""
    changed, unwritten = {}, []
    for name, parameter in inspect.signature(type(model)).parameters.items():
        text = _text(getattr(model, name))
        if text is None:
            unwritten.append(name)
        elif text != _text(parameter.default):
            changed[name] = text
    return changed, unwritten


def _text(value: Any) -> str | None:
    try:
        return spell(value)
    except ValueError:
        return None


def python_lines(model: Any, changed: Mapping[str, str], origin: Origin) -> list[str]:
    """Lines of Python that fit the model to the same rows."""
    recipe = type(model).__name__
    known = hasattr(ravine, recipe)
    first, rows = _rows_lines(model, origin)
    lines = [*first, "import ravine as rv", *imports(changed.values())]
    lines += [] if known else [f"from {type(model).__module__} import {recipe}"]
    arguments = ", ".join(f"{field}={text}" for field, text in changed.items())
    held_out = "" if origin.data is None else ", held_out=held_out"
    return [*lines, "", *rows, f"model = {'rv.' if known else ''}{recipe}({arguments}).fit(X{held_out})"]


def _rows_lines(model: Any, origin: Origin) -> tuple[list[str], list[str]]:
    """What is imported to read the rows, and how they are read."""
    if origin.data is None and hasattr(model, "feature_names_in_"):
        return ["import pandas"], ['X = pandas.read_csv("rows.csv")']
    if origin.data is None:
        return ["import numpy"], ['X = numpy.load("rows.npy")']
    seed = 0 if model.random_state is None else model.random_state
    share = 0.1 if origin.test_size is None else origin.test_size
    return ["from ravine.cli.work import shaped, split"], [
        f"data = rv.load_dataset({origin.data!r})",
        f"train, test = split(data, {share:.9g}, {seed})",
        "X, held_out = shaped(train, data), None if data.valid is None else shaped(data.valid, data)",
    ]


def imports(texts: Any) -> list[str]:
    """The lines that import what the texts of values name.

    Examples
    --------
    >>> imports(["Full(reg_covar=0.1)", "'Full()'", "relu"])
    ['from ravine.models.families import Full', 'from ravine.nets import relu']
    """
    found = {name for text in texts for name in re.findall(r"[A-Za-z]\w*", _TEXT.sub("", text))}
    homes = {name: home for name in sorted(found) if (home := _home(name))}
    return sorted(f"from {home} import {name}" for name, home in homes.items())


def _home(name: str) -> str | None:
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    homes = (module for module, _ in PARTS if name[:1].isupper() and name not in ("None", "True", "False"))
    return next((home for home in homes if hasattr(importlib.import_module(home), name)), None)


def shell_lines(model: Any, changed: Mapping[str, str], origin: Origin) -> list[str]:
    """Lines of a shell that fit the model to the same rows, and report on it."""
    settings = [f"--set {shlex.quote(f'{k}={_bare(v)}')}" for k, v in changed.items() if k != "random_state"]
    data, folder = shlex.quote(origin.data or _file(model)), shlex.quote(origin.folder or "run")
    seed = [] if model.random_state is None else [f"--seed {spell(model.random_state)}"] if _written(model) else []
    share = 0.0 if origin.data is None else origin.test_size
    size = [] if share in (None, 0.1) else [f"--test-size {share:.9g}"]
    head = [f"ravine fit {kebab(type(model).__name__)} {data}", *settings, *seed, *size, f"--out {folder}"]
    return [*" \\\n    ".join(head).split("\n"), f"ravine report {folder}" + ("" if origin.data else f" {data}")]


def _file(model: Any) -> str:
    """What stands for the file of rows when nobody knows it."""
    return "rows.csv" if hasattr(model, "feature_names_in_") else "rows.npy"


def _bare(text: str) -> str:
    word = text[1:-1]
    return word if text[:1] in "'\"" and word.isidentifier() else text


def _written(model: Any) -> bool:
    return _text(model.random_state) is not None


def _code(name: str, lines: list[str]) -> Html:
    return tag("pre", tag("code", "\n".join(lines)), tabindex="0", role="region", aria_label=name)


def _fields(model: Any, changed: Mapping[str, str]) -> Iterator[tuple[Any, ...]]:
    for name in inspect.signature(type(model)).parameters:
        text = _text(getattr(model, name)) or "(an object without a text form)"
        yield name, tag("code", text if len(text) < 200 else f"{text[:199]}…"), "you" if name in changed else "default"


def _versions(model: Any, origin: Origin) -> list[tuple[str, Any]]:
    modules = {"ravine": ravine, "jax": jax, "equinox": eqx, "numpy": np}
    lines: list[tuple[str, Any]] = [(name, module.__version__) for name, module in modules.items()]
    lines.insert(1, ("python", platform.python_version()))
    lines.append(("device", jax.devices()[0].device_kind))
    lines.append(("random_state", _text(model.random_state) or "a stream of random numbers"))
    lines.append(("seed drawn from it", str(model.seed_)))
    known = {"data": origin.data, "checksum of the training array (SHA-256)": origin.checksum}
    return lines + [(name, joined(tag("code", value))) for name, value in known.items() if value]
