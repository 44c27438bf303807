"""Estimators of some columns given the others: which are given, and what the verbs then mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool
from sklearn.utils import Tags

from ravine._check import Absent, require, shown
from ravine.core import Row
from ravine.data import AnySchema, ArraySource, TableSchema
from ravine.estimator import LatentVariableModel


class ConditionalModel(LatentVariableModel):
    """A recipe that models some columns given the others. A row holds both; the given ones must be observed.

    `score_samples` is log p(others | given) and `sample_given` draws the others. Rows cannot be drawn without given
    columns: there is no `sample`.

    Parameters
    ----------
    given : the first so many columns, or a list of columns by name or place.
    """

    given: int | tuple[Any, ...] = 1

    @property
    def sample(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Absent: rows are drawn given some of their columns."""
        do = "use sample_given(X)"
        raise Absent(f"{type(self).__name__} has no law of the given columns, from which sample would begin; {do}.")

    @property
    def inverse_transform(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Absent: a row is more than its latents."""
        raise Absent(f"{type(self).__name__} cannot tell the given columns from latents; use reconstruct(X).")

    def reconstruct(self, X: Any) -> Any:
        """Every row with its given columns, and the others as the model expects them from these alone."""
        return self.impute(hidden(X, self.given_columns()))

    def sample_given(self, X: Any, draws: int = 1) -> Any:
        """``draws`` tables like X with its given columns, and draws of all others given these: see `impute`."""
        return self.impute(hidden(X, self.given_columns()), draws=draws)

    def given_columns(self) -> list[int]:
        return places(self.given, self.schema_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = False  # not everywhere
        return tags

    def _seen(self, X: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray | None]:
        values, weight = super()._seen(X, sample_weight)
        drawn = self.schema_.draw() is not None
        require(not drawn, "the data", "cells as they are", self.schema_.describe(), "choose another binarisation")
        return values, weight

    def _row(self, values: np.ndarray, weight: np.ndarray | None = None) -> Row:
        """The given cells as context; no other verb sees them as observed."""
        row = super()._row(np.asarray(values), weight)
        there = cells(self.given_columns(), self.schema_)
        known = np.ones(row.x.shape, bool) if row.mask is None else np.asarray(row.mask)
        lacking = np.flatnonzero(~known[:, there].all(axis=1))
        at = f"NaN in row {lacking[0]}" if len(lacking) else ""
        require(not len(lacking), "the given columns", "no missing cell", at, "fill them first, or do not give them")
        return dataclasses.replace(row, mask=jnp.asarray(known & ~there), context=row.x[:, there])

    def _source(self, values: np.ndarray, weight: np.ndarray | None) -> ArraySource:
        return ArraySource(self._row(values, weight))

    def _latent_like(self) -> Any:
        count, dtype = int(cells(self.given_columns(), self.schema_).sum()), np.dtype(self.precision)
        one, beside = (jax.ShapeDtypeStruct(shape, dtype) for shape in (self.schema_.shape, (count,)))
        return eqx.filter_eval_shape(lambda m, x, c: m.posterior(Row(x, context=c)).mean(), self.model_, one, beside)


def places(given: int | Sequence[Any], schema: AnySchema) -> list[int]:
    """The places of the given columns of the user's table.

    Raises
    ------
    ValueError
        When a column is not there, or is given twice, or none is left.

    Examples
    --------
    >>> from ravine.data import Schema
    >>> places(2, Schema((3,), "real")), places(("c", 0), Schema((3,), "real", ("a", "b", "c")))
    ([0, 1], [0, 2])
    """
    width = len(schema.columns) if isinstance(schema, TableSchema) else schema.width
    known: dict[Any, int] = {name: j for j, name in enumerate(schema.names or ())}
    require(width > 1, "the data", "columns to be given and others", "n_features = 1", "give more")
    wanted = range(given) if isinstance(given, int) else given
    found = [known.get(one, one) for one in wanted]
    bad = [one for one in found if not (isinstance(one, (int, np.integer)) and 0 <= one < width)]
    require(not bad, "given", f"names or places of {width} columns", shown(bad[:1]), "name columns of the table")
    left = len(set(found)) == len(found) < width and bool(found)
    require(left, "given", f"some of {width} columns, each once", shown(given), "leave at least one to be modelled")
    return sorted(int(one) for one in found)


def cells(columns: Sequence[int], schema: AnySchema) -> Bool[np.ndarray, "..."]:
    """Which cells of a row, as a model sees it, belong to these columns.

    Examples
    --------
    >>> from ravine.data import Schema
    >>> cells([1], Schema((3,), "real")).tolist()
    [False, True, False]
    """
    there = np.zeros(schema.width, bool)
    starts = schema.starts if isinstance(schema, TableSchema) else range(schema.width + 1)
    for j in columns:
        there[starts[j] : starts[j + 1]] = True
    both = there.any() and not there.all()
    require(both, "given", "columns that vary, and others", "all or none", "give other columns")
    return there.reshape(schema.shape)


def hidden(X: Any, columns: Sequence[int]) -> Any:
    """The rows with every other column missing; the user's are not altered."""
    if hasattr(X, "iloc"):
        return X.where(np.isin(np.arange(X.shape[1]), columns)[None].repeat(len(X), 0))
    X = np.array(X, float)
    flat = X.reshape(len(X), -1)
    flat[:, np.setdiff1d(np.arange(flat.shape[1]), columns)] = np.nan
    return flat.reshape(X.shape)
