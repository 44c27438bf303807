"""The scikit-learn contract of a recipe that tells the classes of rows, and has no p(x): none of the verbs of one."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any, ClassVar, Self

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from ravine._check import Complaint, require, shown
from ravine._containers import check_names, flattened
from ravine._jax import precision
from ravine._record import remembered
from ravine._tree import as_arrays
from ravine.checkpoint import load_run
from ravine.core import Row
from ravine.data import Schema
from ravine.data import rows as rows_of
from ravine.labels import Classed, parted
from ravine.learner import Learner, Saving


class ClassifierOfRows(Saving, Classed, ClassifierMixin, Learner):
    """A recipe that learns from rows and their labels, and tells the labels of others.

    Parameters
    ----------
    kind, levels, binarise, threshold, dequantise, standardise : how the cells are read, as every recipe for rows reads
        them. With ``binarise="dynamic"`` bits are drawn to learn from, and grey values are told apart.
    label : the column of a data frame that holds the labels where no ``y`` is given; the model never sees it.
    """

    kind: str | None = None
    levels: int | None = None
    binarise: str = "none"
    threshold: float | None = None
    dequantise: str = "none"
    standardise: bool = True
    label: str | None = None

    kinds: ClassVar[tuple[str, ...]] = ("binary", "levels", "real")

    @abc.abstractmethod
    def build(self, schema: Schema, classes: int = 2, *, key: PRNGKeyArray) -> PyTree:
        """The untrained model for data of this schema and so many classes."""

    @classmethod
    def _restore(cls, kept: dict[str, Any], fields: dict[str, Any], folder: Path) -> Self:
        """The fitted estimator a record describes, with the arrays of its folder."""
        made = cls(**fields)
        made.schema_ = Schema.from_json(kept["schema"])
        remembered(made, kept["data"])
        with precision(made.precision):
            made._remember(load_run(folder, made._blank()))
        return made

    @abc.abstractmethod
    def _remember(self, model: PyTree) -> None:
        """Keep the model, and what follows from it."""

    def _labelled(self, X: Any, y: Any) -> tuple[Any, Any]:
        """The rows and their labels, which may be a column of the rows."""
        X, y = parted(X, self.label) if y is None and self.label is not None else (X, y)
        if y is None:
            do = "give labels, or the name of their column as label"
            raise Complaint(f"{type(self).__name__} requires y to be passed, but the target y is None: {do}.")
        check_names(X)
        return X, y

    def _blank(self) -> PyTree:
        return eqx.filter_eval_shape(self._built)

    def _built(self) -> PyTree:
        build_key, _ = jr.split(jr.key(self.seed_))
        return as_arrays(self.build(self.schema_, self.class_count(), key=build_key))

    def _ready(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self._cells(X)

    def _cells(self, X: Any, reset: bool = False) -> np.ndarray:
        """The cells of complete rows; infinite ones are left to the schema, whose line names the column."""
        values = validate_data(self, flattened(X), dtype=[np.float64, np.float32], ensure_all_finite=False, reset=reset)
        holes = np.argwhere(np.isnan(values))[:1].tolist()
        names = getattr(self, "feature_names_in_", range(values.shape[1]))
        at = "".join(f"NaN in row {row}, column {shown(names[column])}" for row, column in holes)
        require(not holes, f"{type(self).__name__}, X", "complete rows", at, "fill the cell, or leave the row out")
        return values

    def _row(self, values: np.ndarray, weight: np.ndarray | None = None) -> Row:
        return rows_of(values, self.schema_, weight=weight, dtype=np.dtype(self.precision))
