"""Whether the fields of a recipe hold what they are declared to hold: asked once, before training."""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
import types
import typing
from collections.abc import Callable
from typing import Any

import numpy as np

from ravine._check import require, shown


def check_fields(recipe: Any) -> None:
    """Refuse a recipe with a field that does not fit its annotation; whole numbers are counts, and at least 1.

    Raises
    ------
    ValueError
        One line: the recipe and field, what it may hold and what it holds.

    Examples
    --------
    >>> @dataclasses.dataclass
    ... class Recipe:
    ...     latents: int = 0
    >>> check_fields(Recipe())
    Traceback (most recent call last):
    ravine._check.Complaint: Recipe, latents: expected a whole number of at least 1, got 0; change it.
    """
    hints = typing.get_type_hints(type(recipe))
    for name in (field.name for field in dataclasses.fields(recipe)):
        value, what = getattr(recipe, name), f"{type(recipe).__name__}, {name}"
        require(_holds(value, hints[name]), what, _words(hints[name]), shown(value), "change it")


def _holds(value: Any, hint: Any) -> bool:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_holds(value, choice) for choice in inside)
    if origin is typing.Literal:
        return any(value is choice or (isinstance(value, str) and value == choice) for choice in inside)
    if origin in (tuple, list):
        return isinstance(value, (tuple, list)) and all(_holds(item, inside[0]) for item in value)
    if Callable in (hint, origin):
        return callable(value)
    if isinstance(value, (bool, np.bool_)) or hint is bool:
        return hint is bool and isinstance(value, (bool, np.bool_))
    if hint is int:
        return isinstance(value, numbers.Integral) and int(value) >= 1
    if hint is float:
        return isinstance(value, numbers.Real) and math.isfinite(value)
    return isinstance(value, hint) if isinstance(hint, type) else True


_WORDS = {int: "a whole number of at least 1", float: "a finite number", bool: "True or False", str: "text"}


def _words(hint: Any) -> str:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(choice) for choice in inside)
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, inside))}"
    if origin in (tuple, list):
        return f"a {origin.__name__} with each {_words(inside[0])}"
    if Callable in (hint, origin):
        return "a function or a part that is called"
    if hint is type(None):
        return "None"
    return _WORDS.get(hint) or (hint.__name__ if isinstance(hint, type) else re.sub(r"\b(?:\w+\.)+", "", str(hint)))
