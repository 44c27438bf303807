"""Estimators of rows of which some have a label."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import jax.random as jr
import numpy as np
from sklearn.utils import Tags

from ravine._check import Absent, Complaint
from ravine._jax import key_words, precision
from ravine.data import ArraySource
from ravine.data.frames import without
from ravine.estimator import LatentVariableModel
from ravine.fitting import Plan, plan, split
from ravine.labels import Classed, coded, evened, label_shares, parted, told
from ravine.train import Subset
from ravine.verbs import blockwise


class LabelledModel(Classed, LatentVariableModel):
    """A recipe that learns from rows of which some are labelled. It is a model of rows, and predicts their labels.

    `score_samples` is log p(x), the label summed over; `predict` and `predict_proba` are q(y | x). In each batch about
    half of the rows are labelled ones, which weigh less in the bound for it. Only rows without a label are held out.

    Parameters
    ----------
    label : the column of a data frame that holds the labels where no ``y`` is given; the model never sees it.
    """

    label: str | None = None

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
        """Learn from rows and from some labels.

        Parameters
        ----------
        X, sample_weight, held_out, folder, resume : as for every recipe.
        y : labels of shape (rows,), numbers or text; None, NaN, and -1 among whole numbers, mark a row without one.

        Returns
        -------
        The estimator itself.
        """
        if y is None and self.label is not None:
            X, y = parted(X, self.label)
            held_out = None if held_out is None else without(held_out, self.label)
        if y is None:
            do = "give labels, or the name of their column as label"
            raise Complaint(f"{type(self).__name__} requires y to be passed, but the target y is None: {do}.")
        self._labels = y
        try:
            return super().fit(X, None, sample_weight, held_out=held_out, folder=folder, resume=resume)
        finally:
            del self._labels

    def predict_proba(self, X: Any) -> np.ndarray:
        """q(y | x), shape (rows, classes)."""
        values = self._ready(X)
        with precision(self.precision):
            row, draw, key = self._row(values), self.schema_.draw(), jr.fold_in(self._key(), 7)
            return np.asarray(blockwise(label_shares, row, self.model_, draw, key), float)

    @property
    def partial_fit(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Absent: labels are spread over all batches."""
        raise Absent(f"{type(self).__name__} learns from all of its labels at once; call fit.")

    @property
    def fit_seeds(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Absent: it takes no labels."""
        raise Absent(f"{type(self).__name__} needs labels: fit clones with different random_state.")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def _weighted(self, values: np.ndarray, sample_weight: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """The rows that count, and how much; their labels are kept beside."""
        self.classes_, codes = coded(self._labels, len(values))
        kept, weight = super()._weighted(values, sample_weight)
        dropped = len(kept) < len(values)
        self._codes = codes[np.asarray(sample_weight, float).ravel() > 0] if dropped else codes
        return kept, weight

    def _plan(self, values: np.ndarray, weight: np.ndarray | None, held_out: Any = None) -> Plan:
        key, codes = jr.key(self.seed_), self._codes
        places, held = split(len(values), 0.0 if held_out is not None else self.validation, key_words(key))
        if (codes[held] < 0).any():  # labels are too few to be held out
            places, held = np.union1d(places, held[codes[held] >= 0]), held[codes[held] < 0]
        kept = None
        if held_out is not None:
            fresh = self._row(self._checked(held_out))
            kept = told(fresh, np.full(len(fresh.x), -1))
        elif len(held):
            kept = told(self._row(values[held], None if weight is None else weight[held]), codes[held])
        places, weight = evened(places, codes, weight)
        row = told(self._row(np.asarray(values), weight), codes)
        return plan(self, self.schema_, Subset(ArraySource(row), places), kept, key=key)
