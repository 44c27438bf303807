"""How much rows that models make of a label are like real ones: told, learned from, spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

JUDGE = "a support vector machine that learned from the training rows"


class Real(NamedTuple):
    """Rows with labels that are not made."""

    train: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    truth: np.ndarray


def likeness(models: Sequence[Any], real: Real, of_each: int) -> dict[str, Any]:
    """What `Trial.dreams` adds to a result: so many rows of each label from each model, beside as many real ones.

    The judge is a support vector machine of the leading principal components of the training rows, which knows nothing
    of the models; how often it is right of test rows is the most that can be asked. Another learns from what was made
    alone, and is tested on real rows. The spread is the mean distance of two rows of a label,
    as a share of that of real ones.

    Parameters
    ----------
    models : fitted, with `dream` and `classes_`.
    real : what they were fitted to, and the test rows.
    of_each : rows of each label.

    Examples
    --------
    >>> class Echo:
    ...     classes_ = np.array([0, 1])
    ...     def dream(self, label, n):
    ...         return np.full((n, 2), label) + np.linspace(0, 0.1, n)[:, None]
    >>> X, y = np.repeat(Echo().dream(0, 4), 2, axis=0) + np.array([0, 1] * 4)[:, None], np.array([0, 1] * 4)
    >>> told = likeness([Echo()], Real(X, y, X, y), 4)
    >>> told["measured"], told["student"]["measured"], round(told["spread"]["measured"], 3)
    (1.0, 1.0, 1.0)
    """
    classes = models[0].classes_
    labels, leading = np.repeat(classes, of_each), PCA(min(50, *real.train.shape), random_state=0)
    judge = make_pipeline(leading, SVC(C=5)).fit(real.train, real.labels)
    some = np.concatenate([np.flatnonzero(real.labels == c)[:of_each] for c in classes])
    apart = _apart(real.train[some], real.labels[some], classes)
    made = [np.concatenate([model.dream(label, of_each) for label in classes]) for model in models]
    told = np.array([judge.predict(rows) == labels for rows in made])
    taught = [_taught(rows, labels, real) for rows in made]
    spread = [_apart(rows, labels, classes) / apart for rows in made]
    return {
        **_over_seeds(told.mean(axis=1)),
        "each label": told.reshape(len(models), len(classes), -1).mean(axis=(0, 2)).tolist(),
        "of each label": of_each,
        "judge": float(np.mean(judge.predict(real.test) == real.truth)),
        "judged by": JUDGE,
        "student": _over_seeds(taught) | {"of real rows": _taught(real.train[some], real.labels[some], real)},
        "spread": _over_seeds(spread),
    }


def _over_seeds(values: Any) -> dict[str, Any]:
    seeds = [float(value) for value in values]
    return {"measured": float(np.mean(seeds)), "seeds": seeds}


def _taught(rows: np.ndarray, labels: np.ndarray, real: Real) -> float:
    """The share of real test rows that are told rightly by what learned from some rows alone."""
    return float(np.mean(SVC(C=5).fit(rows, labels).predict(real.test) == real.truth))


def _apart(rows: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
    """The mean distance of two rows of one label."""
    among = [pairwise_distances(rows[labels == c])[np.triu_indices(np.sum(labels == c), 1)] for c in classes]
    return float(np.mean([np.mean(distances) for distances in among]))
