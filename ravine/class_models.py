"""The scikit-learn contract of a classifier that is made of a model of rows for each class, none of them normalised."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ravine._check import require
from ravine._jax import highest_matmul, key_words, precision
from ravine._record import schema_of
from ravine.core import Row
from ravine.data import ArraySource, Schema
from ravine.fitting import Plan, fit, staged
from ravine.models.experts import ClassExperts
from ravine.row_classifier import ClassifierOfRows
from ravine.verbs import blockwise


class ClassModels(ClassifierOfRows):
    """A recipe that learns a model of the rows of each class, and a logistic regression on what all of them say.

    A recipe defines ``build(schema, classes, *, key) -> ClassExperts`` and ``stages(rows) -> list[Stage]``. All models
    learn in one program; at each step each of them sees as many rows of its class.

    Parameters
    ----------
    strength : inverse of the weight of the penalty of the logistic regression.
    """

    strength: float = 1.0
    validation: float = 0.0

    @abc.abstractmethod
    def build(self, schema: Schema, classes: int = 2, *, key: Any) -> ClassExperts:
        """The untrained model for data of this schema and so many classes."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from rows and their labels.

        Parameters
        ----------
        X : array or DataFrame of shape (rows, columns), without missing cells.
        y : labels of shape (rows,), numbers or text.

        Returns
        -------
        The estimator itself.
        """
        self._settle()
        require(self.strength > 0, "strength", "a number above 0", f"{self.strength}", "raise it")
        do = "choose the steps by cross-validation: contrasts do not tell when to stop"
        require(self.validation == 0, "validation", "0", f"{self.validation}", do)
        X, y = self._labelled(X, y)
        values, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        got = f"1 class in {len(values)} rows"
        require(len(self.classes_) > 1, f"{type(self).__name__}, y", "at least 2 classes", got, "add rows of another")
        self.schema_ = schema_of(self, values, getattr(self, "feature_names_in_", None), None)
        with precision(self.precision):
            row = self._row(values)
            done = fit(self, self._plan(row, codes))
            model = eqx.tree_at(lambda m: m.experts, self._built(), done.state.model)
            self.model_ = calibrated(model, _scored(row, model), codes, self.strength)
        self.history_, self.seconds_, self.complete_ = done.history, done.seconds, done.complete
        return self

    # --- what it says of rows

    def log_scores(self, X: Any) -> np.ndarray:
        """log p(x | class) + log Z of the class in nats, shape (rows, classes): what each model says, unnormalised."""
        check_is_fitted(self)
        values = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        with precision(self.precision):
            return _scored(self._row(values), self.model_)

    def decision_function(self, X: Any) -> np.ndarray:
        """Log odds of the second class, shape (rows,); of each class up to a constant, where there are more."""
        scores = self.log_scores(X).astype(float)
        logits = scores @ np.asarray(self.model_.weight, float).T + np.asarray(self.model_.bias, float)
        return logits if len(self.classes_) > 2 else logits[:, 1] - logits[:, 0]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class, shape (rows, classes)."""
        logits = self.decision_function(X)
        logits = logits if logits.ndim == 2 else np.stack([np.zeros_like(logits), logits], axis=1)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    # --- for the loop

    def _remember(self, model: ClassExperts) -> None:
        self.model_ = model

    def _plan(self, row: Row, codes: np.ndarray) -> Plan:
        key = jr.key(self.seed_)
        source = ArraySource(Row(row.x[side_by_side(codes, key_words(key))]))
        stages = staged(self, self.schema_, source.rows, None, key)
        return Plan(self._built().experts, stages, source, jr.split(key)[1])


def side_by_side(codes: np.ndarray, words: np.ndarray) -> Int[np.ndarray, "n classes"]:
    """Places of rows, a column for each class; smaller classes begin again, at rows that are drawn by lot.

    Examples
    --------
    >>> sorted(side_by_side(np.array([0, 1, 1, 1]), np.zeros(2, int))[:, 1].tolist())
    [1, 2, 3]
    """
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence([*words.tolist(), 2])))
    orders = [stream.permutation(np.flatnonzero(codes == c)) for c in range(codes.max() + 1)]
    return np.stack([np.resize(order, max(map(len, orders))) for order in orders], axis=1)


def calibrated(
    model: ClassExperts, scores: Float[np.ndarray, "n classes"], codes: Int[np.ndarray, " n"], strength: float
) -> ClassExperts:
    """The model whose map is the logistic regression of classes on log scores.

    The scores are counted from their mean over the classes of a row, in units of their deviation.
    """
    centre = np.eye(scores.shape[1]) - 1 / scores.shape[1]
    scale = max(float(np.std(scores @ centre)), 1e-12)
    found = LogisticRegression(C=strength, max_iter=1000).fit(scores @ centre / scale, codes)
    weight, bias = found.coef_ @ centre / scale, found.intercept_
    if len(weight) == 1:  # of two classes scikit-learn has the second one's log odds
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    dtype = model.weight.dtype
    return dataclasses.replace(model, weight=jnp.asarray(weight, dtype), bias=jnp.asarray(bias, dtype))


def _scored(row: Row, model: ClassExperts) -> Float[np.ndarray, "n classes"]:
    with highest_matmul():
        return blockwise(_log_scores, row, model)


def _log_scores(block: Row, model: ClassExperts) -> Float[Array, "n classes"]:
    return jax.vmap(model.log_scores)(block.x)
