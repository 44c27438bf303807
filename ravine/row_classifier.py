"""The scikit-learn contract of a recipe that tells the classes of rows, and has no p(x): none of the verbs of one."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from sklearn.base import ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data

from ravine._check import Complaint, require
from ravine._containers import check_names, flattened, image_axes
from ravine._jax import key_words, precision
from ravine._record import remembered, schema_of, texts
from ravine.checkpoint import load_run
from ravine.core import Row
from ravine.data import ArraySource, Schema
from ravine.data import rows as rows_of
from ravine.fitting import Plan, blank, fit, plan, split
from ravine.labels import Classed, Telling, numbered, parted
from ravine.learner import Learner, Saving
from ravine.train import Subset
from ravine.verbs import blockwise


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

    def _cells(self, X: Any, reset: bool = False) -> np.ndarray:
        return validate_data(self, flattened(X), dtype=[np.float64, np.float32], reset=reset)

    def _row(self, values: np.ndarray, weight: np.ndarray | None = None) -> Row:
        return rows_of(values, self.schema_, weight=weight, dtype=np.dtype(self.precision))


class NetworkClassifier(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierOfRows):
    """A recipe whose model tells the label of a row, by ``label_shares(row)``, and has ``features(row)``, a vector.

    A recipe defines ``build(schema, *, key) -> model``, for ``class_count()`` classes, and ``stages(rows)``. The rows
    that it learns from have ``y``, the number of the class, and ``y_mask``, which is False where there is none.
    """

    @abc.abstractmethod
    def build(self, schema: Schema, *, key: PRNGKeyArray) -> Any:
        """The untrained model for data of this schema and the classes that were seen."""

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        folder: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        """Learn from rows and their labels.

        Parameters
        ----------
        X : array or DataFrame of shape (rows, columns), images of shape (rows, height, width); complete.
        y : labels of shape (rows,), numbers or text; None and NaN mark a row without one.
        sample_weight : array of shape (rows,); 0 leaves a row out.
        folder : where metrics and checkpoints are kept while training.
        resume : go on from the checkpoint in ``folder``, to the bit.

        Returns
        -------
        The estimator itself.
        """
        self._settle()
        require(not resume or folder is not None, "resume", "a folder to go on from", "None", "name it: folder=...")
        values, codes, weight = self._seen(*self._labelled(X, y), sample_weight)
        if folder is not None:
            texts(self)  # what cannot be written is refused before training
        with precision(self.precision):
            done = fit(self, self._plan(values, codes, weight), None if folder is None else Path(folder), resume)
            self._remember(done.state.model)
        self.history_, self.seconds_, self.complete_ = done.history, done.seconds, done.complete
        return self

    def _seen(self, X: Any, y: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The rows that count, the numbers of their classes, and their weights; from them, what the columns hold."""
        values, labels = self._cells(X, reset=True), column_or_1d(y, warn=True)
        do = "give one for each row; None where there is none"
        require(len(labels) == len(values), "y", f"{len(values)} labels", f"{len(labels)}", do)
        infinite = labels.dtype.kind == "f" and bool(np.isinf(labels).any())
        require(not infinite, "y", "labels", "infinity", "give one for each row")
        known = ~np.asarray(pd.isna(labels))
        if known.all():
            check_classification_targets(labels)
        weight = np.ones(len(values))
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, values, ensure_non_negative=True)
        counts = weight > 0
        self.classes_, codes = numbered(labels[counts], known[counts])
        names = getattr(self, "feature_names_in_", None)
        self.schema_ = schema_of(self, values[counts], names, image_axes(X))
        return values[counts], codes, None if sample_weight is None else weight[counts]

    def _plan(self, values: np.ndarray, codes: np.ndarray, weight: np.ndarray | None) -> Plan:
        key = jr.key(self.seed_)
        told = {"y": jnp.asarray(codes, jnp.int32), "y_mask": jnp.asarray(codes >= 0)}
        row = dataclasses.replace(self._row(values, weight), **told)
        places, held = split(len(values), self.validation, key_words(key))
        kept = jax.tree.map(lambda leaf: leaf[held], row) if len(held) else None
        return plan(self, self.schema_, Subset(ArraySource(row), places), kept, key=key)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class, shape (rows, classes)."""
        return self._asked(X, _shares)

    def transform(self, X: Any) -> np.ndarray:
        """What the model makes of each row, before it tells the label; shape (rows, features)."""
        return self._asked(X, _features)

    def _asked(self, X: Any, question: Callable[..., Array]) -> np.ndarray:
        check_is_fitted(self)
        values = self._cells(X)
        with precision(self.precision):
            return blockwise(question, self._row(values), self.model_).astype(values.dtype)

    def _remember(self, model: PyTree) -> None:
        one = jax.ShapeDtypeStruct(self.schema_.shape, np.dtype(self.precision))
        self.model_ = model
        self._n_features_out = eqx.filter_eval_shape(lambda m, x: _features_of_one(m, Row(x)), model, one).size

    def _blank(self) -> PyTree:
        return blank(self, self.schema_, jr.key(self.seed_))


def _shares(block: Row, model: Telling) -> Float[Array, "n classes"]:
    return jax.vmap(model.label_shares)(block)


def _features(block: Row, model: Any) -> Float[Array, "n features"]:
    return jax.vmap(lambda row: _features_of_one(model, row))(block)


def _features_of_one(model: Any, row: Row) -> Float[Array, " features"]:
    return model.features(row)
