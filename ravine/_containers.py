"""The containers a user brings, and gets back: tables, images, data frames."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from ravine._check import require, shown


def image_axes(X: Any) -> tuple[int, ...] | None:
    """The shape of one row when rows are images, else None.

    Examples
    --------
    >>> image_axes(np.zeros((5, 8, 8))), image_axes([[1.0]])
    ((8, 8), None)
    """
    return tuple(X.shape[1:]) if getattr(X, "ndim", 2) > 2 else None


def check_names(X: Any) -> None:
    """Refuse a data frame with two columns of one name, or some called by text and others not: no name would tell.

    Examples
    --------
    >>> check_names(np.zeros((2, 2)))
    """
    names = list(getattr(X, "columns", ()))
    twice = [name for name, count in Counter(names).items() if count > 1]
    require(not twice, "the columns", "distinct names", f"{shown(twice[:1])} twice", "rename one")
    texts, others = ([name for name in names if isinstance(name, str) == is_text] for is_text in (True, False))
    got = f"{shown(texts[:1])} and {shown(others[:1])}"
    do = "rename them, as by X.columns = X.columns.astype(str)"
    require(not texts or not others, "the columns", "names that are all text, or none", got, do)


def flattened(X: Any) -> Any:
    """Images as rows of a table, a mapped file staying one; anything else as it is."""
    return X if image_axes(X) is None else X.reshape(len(X), -1)


def as_given(X: Any, values: np.ndarray) -> Any:
    """Values in the kind of container that X is: a data frame with its index and columns, images, or a table.

    ``values`` has the shape of the flattened X, perhaps after more axes, which only arrays can have.

    Examples
    --------
    >>> as_given(np.zeros((5, 8, 8)), np.zeros((2, 5, 64))).shape
    (2, 5, 8, 8)
    """
    if hasattr(X, "iloc") and values.ndim == 2:
        return type(X)(values, index=X.index, columns=X.columns)
    axes = image_axes(X)
    return values if axes is None else values.reshape(*values.shape[:-1], *axes)


def framed(values: Any, names: Iterable[str] | None) -> Any:
    """A data frame with columns of these names; an array where there are none, or pandas is not installed."""
    if names is not None:
        with contextlib.suppress(ImportError):
            import pandas

            return pandas.DataFrame(values, columns=list(names))
    return values
