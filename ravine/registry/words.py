"""What a recipe says of itself, for `ravine list` and `ravine info`."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ravine.registry.catalogue import STUDIES, home, recipe, study
from ravine.registry.names import default_text


def headline(name: str) -> str:
    """The first line of the header of a recipe or a study, read without importing it.

    Examples
    --------
    >>> headline("vae")
    'Variational auto-encoder. Kingma & Welling 2014, arXiv:1312.6114.'
    """
    spec = importlib.util.find_spec(STUDIES.get(name) or home(name)[0])
    assert spec is not None and spec.origin is not None
    source = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return (ast.get_docstring(source) or "").partition("\n")[0]


def describe(name: str) -> str:
    """The header of a recipe, what it reproduces, and its fields with their defaults, as text for a terminal.

    Of a study: its header and its scales.
    """
    if name in STUDIES:
        scales = [f"  {scale}: {_settings(values)}" for scale, values in study(name).SCALES.items()]
        header = inspect.cleandoc(study(name).__doc__ or "")
        return f"{name}: {header}\n\n" + "\n".join([f"Scales, for ravine reproduce {name} --scale:", *scales])
    cls = recipe(name)
    header = inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "")
    about = inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0]
    words, own = _described(cls), vars(cls).get("__annotations__", {})
    fields = sorted(inspect.signature(cls).parameters.values(), key=lambda field: field.name not in own)
    lines = [f"  {f.name} = {default_text(f.default)}\n      {words.get(f.name, '')}".rstrip() for f in fields]
    trials = [f"  {scale}: {_trial(trial)}" for scale, trial in cls.trials.items()]
    blocks = [f"{name}: {header}", about, "\n".join(["Fields, for --set name=value:", *lines])]
    if trials:
        blocks.insert(2, "\n".join([f"Trials, for ravine reproduce {name} --scale:", *trials]))
    return "\n\n".join(blocks)


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _trial(trial: Any) -> str:
    nats = [] if trial.reported is None else [f"{trial.reported} nats"]
    right = [] if trial.accuracy is None else [f"{100 * trial.accuracy:.2f} % right"]
    reported = f"reported {' and '.join(nats + right)}" if nats + right else "no reported number"
    return f"{trial.data}; {reported}" + (f" ({trial.source})" if trial.source else "")


def _described(cls: type) -> dict[str, str]:
    """Field to words, from the Parameters sections of a class and its bases."""
    words: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        section = re.search(r"^Parameters\n-+\n(.*?)(?:\n\n|\Z)", inspect.cleandoc(owner.__doc__ or ""), re.S | re.M)
        entries = re.split(r"\n(?=\S)", section[1]) if section else []
        for names, colon, text in (entry.partition(" : ") for entry in entries):
            words |= {field.strip(): " ".join(text.replace("``", "").split()) for field in names.split(",") if colon}
    return words
