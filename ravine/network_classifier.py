"""The scikit-learn contract of a recipe whose model goes from a row to its class, and makes features on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, assert_all_finite, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight

from ravine._check import require, shown, translated
from ravine._containers import image_axes
from ravine._jax import highest_matmul, key_words, precision
from ravine._record import schema_of, texts
from ravine.core import Row
from ravine.data import ArraySource
from ravine.fitting import Plan, fit, split, staged
from ravine.labels import Classifying, members, numbered, told, unlabelled
from ravine.row_classifier import ClassifierOfRows
from ravine.train import Subset
from ravine.verbs import blockwise

UNKNOWN = "give them their labels, or leave them out"


class NetworkClassifier(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierOfRows):
    """A recipe for a model that tells the class of a row, and has no law of rows: `ravine.labels.Classifying`.

    A recipe defines ``build(schema, classes, *, key) -> Classifying`` and ``stages(rows) -> list[Stage]``; every verb
    follows. As a transformer it gives the features of the model. A row has the number of its class in ``y``, where
    ``y_mask`` says so. Rows are complete: a recipe for rows fills missing cells before.

    Attributes
    ----------
    labels_needed : class variable; False for a recipe that learns from rows without a label too, which None or NaN
        marks, and -1 among whole numbers with two other classes at least. Such rows are never held out.
    """

    labels_needed: ClassVar[bool] = True

    # --- learning

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        held_out: Any = None,
        folder: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        """Learn from rows and their labels.

        Parameters
        ----------
        X : array or DataFrame of shape (rows, columns), or images of shape (rows, height, width[, channels]).
        y : labels of shape (rows,), numbers or text.
        sample_weight : array of shape (rows,), not negative; 0 leaves a row out.
        held_out : rows and their labels, ``(X, y)``, for early stopping, instead of a share of ``X``.
        folder : where metrics and checkpoints are kept while training.
        resume : go on from the checkpoint in ``folder``, to the bit.

        Returns
        -------
        The estimator itself.

        Raises
        ------
        ValueError
            One line: a field, a cell or a label is not what it has to be.
        """
        require(not resume or folder is not None, "resume", "a folder to go on from", "None", "name it: folder=...")
        self._settle()
        X, y = self._labelled(X, y)
        values, codes, weight = self._seen(self._cells(X, reset=True), y, sample_weight)
        self.schema_ = schema_of(self, values, getattr(self, "feature_names_in_", None), image_axes(X))
        apart = None if held_out is None else self._apart(*_pair(held_out))
        if folder is not None:
            texts(self)  # what cannot be written is refused before training
        with precision(self.precision):
            done = fit(self, self._plan(values, codes, weight, apart), None if folder is None else Path(folder), resume)
            self._remember(done.state.model)
        self.history_, self.seconds_, self.complete_ = done.history, done.seconds, done.complete
        return self

    def _seen(
        self, values: np.ndarray, y: Any, sample_weight: Any
    ) -> tuple[np.ndarray, Int[np.ndarray, " n"], np.ndarray | None]:
        """The rows that count, the numbers of their classes, -1 for those without, and how much they count."""
        labels, weight = _labels(y, len(values)), None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, values, ensure_non_negative=True)
            values, labels, weight = values[weight > 0], labels[weight > 0], weight[weight > 0]
        lacking = unlabelled(labels)
        rows = f"none in {lacking.sum()} rows"
        require(not (self.labels_needed and lacking.any()), "y", "a label for every row", rows, UNKNOWN)
        with translated("y", "labels that are all numbers, or all text", "correct them"):
            classes, codes = numbered(labels, ~lacking)
        self.classes_ = _plain(classes)
        check_classification_targets(self.classes_)
        return values, codes, weight

    def _apart(self, X: Any, y: Any) -> tuple[np.ndarray, Int[np.ndarray, " n"]]:
        """Rows that are held out by the user, and the numbers of their classes."""
        values = self._cells(X)
        labels = _labels(y, len(values))
        found = members(self.classes_, labels)
        unknown = labels[~found.any(axis=1)][:1].tolist()
        known = f"labels among {shown(self.classes_.tolist())}"
        require(not unknown, "held_out, y", known, shown(unknown), "leave out other rows")
        return values, np.argmax(found, axis=1)

    def _plan(
        self, values: np.ndarray, codes: np.ndarray, weight: np.ndarray | None, apart: tuple[np.ndarray, Any] | None
    ) -> Plan:
        key, known = jr.key(self.seed_), np.flatnonzero(codes >= 0)
        held = known[split(len(known), self.validation if apart is None else 0.0, key_words(key))[1]]
        places = np.setdiff1d(np.arange(len(values)), held)
        kept = None
        if apart is not None:
            kept = told(self._row(apart[0]), apart[1])
        elif len(held):
            kept = told(self._row(values[held], None if weight is None else weight[held]), codes[held])
        source = Subset(ArraySource(told(self._row(values, weight), codes)), places)
        stages = staged(self, self.schema_, source.rows, kept, key)
        return Plan(self._built(), stages, source, jr.split(key)[1])

    def _remember(self, model: Classifying) -> None:
        one = jax.ShapeDtypeStruct(self.schema_.shape, np.dtype(self.precision))
        (self._n_features_out,) = eqx.filter_eval_shape(lambda model, x: model.features(Row(x)), model, one).shape
        self.model_ = model

    # --- what it says of rows

    def predict_proba(self, X: Any) -> np.ndarray:
        """p(y | x), shape (rows, classes)."""
        return np.exp(self._log_shares(X))

    def log_loss(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Mean of -log p(y | x) over rows, in nats; of labels that are among the classes of the fit."""
        log_shares = self._log_shares(X)
        labels = _labels(y, len(log_shares))
        found = members(self.classes_, labels)
        unknown = labels[~found.any(axis=1)][:1].tolist()
        require(not unknown, "y", f"one of {shown(self.classes_.tolist())}", shown(unknown), "leave these rows out")
        return -float(np.average(log_shares[found], weights=sample_weight))

    def transform(self, X: Any) -> np.ndarray:
        """The features that the model makes of each row, shape (rows, features)."""
        values = self._ready(X)
        with precision(self.precision):
            return blockwise(_features, self._row(values), self.model_).astype(values.dtype)

    def _log_shares(self, X: Any) -> Float[np.ndarray, "rows classes"]:
        values = self._ready(X)
        with precision(self.precision), highest_matmul():
            logits = blockwise(_logits, self._row(values), self.model_).astype(float)
        return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _pair(held_out: Any) -> tuple[Any, Any]:
    """Held-out rows and their labels."""
    good = isinstance(held_out, (tuple, list)) and len(held_out) == 2
    require(good, "held_out", "a pair (X, y)", type(held_out).__name__, "give rows and their labels")
    return held_out[0], held_out[1]


def _labels(y: Any, rows: int) -> np.ndarray:
    """One label for each row; those that are missing as they came."""
    labels = column_or_1d(y, warn=True)
    require(len(labels) == rows, "y", f"{rows} labels, one for each row", f"{len(labels)}", "give one for each")
    if labels.dtype.kind == "f":
        assert_all_finite(labels, allow_nan=True, input_name="y")
    return labels


def _plain(labels: np.ndarray) -> np.ndarray:
    """Numbers that came as objects, as they do beside None, as numbers."""
    plain = np.asarray(labels.tolist()) if labels.dtype == object else labels
    return plain if plain.dtype.kind in "biuf" else labels


def _logits(block: Row, model: Classifying) -> Float[Array, "n classes"]:
    return jax.vmap(model.logits)(block)


def _features(block: Row, model: Classifying) -> Float[Array, "n features"]:
    return jax.vmap(model.features)(block)
