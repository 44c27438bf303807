"""Small fitted estimators whose outputs have slopes, and the rows that they know."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import ravine as rv

ROWS = 60
DOUBLE: dict[str, Any] = {"precision": "float64", "random_state": 0, "progress": False}


def table(classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Rows of four columns in unlike units, of classes that overlap."""
    stream = np.random.default_rng(0)
    y = np.arange(ROWS) % classes
    X = 1.2 * np.stack([y == 1, y == 2, y == 0, y >= 1], axis=1) + 0.7 * stream.normal(size=(ROWS, 4))
    return X * [1.0, 10.0, 0.1, 2.0] + [0.0, 50.0, 0.0, -3.0], y


def grey() -> tuple[np.ndarray, np.ndarray]:
    """Images of 2 x 3 grey values from 0 to 255."""
    stream = np.random.default_rng(1)
    y = np.arange(ROWS) % 2
    X = np.where((np.arange(6) < 3) == (y[:, None] == 0), 200, 40) + stream.integers(-40, 40, size=(ROWS, 6))
    return X.astype(float).reshape(ROWS, 2, 3), y


DEEP: dict[str, Any] = {"layers": (5, 4), "greedy": 600, "greedy_rate": 0.3, "steps": 30, "binarise": "dynamic"}
CLASSIFIERS = {
    "net": lambda: rv.EnergyClassifier(hidden=(8,), steps=150, **DOUBLE).fit(*table()),
    "rbm": lambda: rv.ClassificationRBM(hidden=5, steps=300, rate=0.05, **DOUBLE).fit(*table()),
    "experts": lambda: rv.ProductOfExpertsClassifier(hidden=3, steps=100, rate=0.01, **DOUBLE).fit(*table()),
    "deep": lambda: rv.DeepBeliefClassifier(**DEEP, **DOUBLE).fit(*grey()),
    "gumbel": lambda: rv.SemiSupervisedGumbel(latents=1, hidden=(6,), steps=100, **DOUBLE).fit(*table()),
    "mixture": lambda: rv.GaussianMixture(components=3, iterations=20, random_state=0).fit(table()[0]),
    "explainer": lambda: rv.LearningToExplain(k=2, hidden=(6,), steps=60, **DOUBLE).fit(*table()),
}
ENCODERS = {
    "vae": lambda: rv.VAE(latents=2, hidden=(6,), steps=40, **DOUBLE).fit(table()[0]),
    "factors": lambda: rv.FactorAnalysis(latents=2, iterations=20, random_state=0).fit(table()[0]),
    "gaussian-rbm": lambda: rv.GaussianRBM(hidden=4, steps=100, **DOUBLE).fit(table()[0]),
    "net": CLASSIFIERS["net"],
}


@functools.cache
def classifier(name: str) -> Any:
    return CLASSIFIERS[name]()


@functools.cache
def encoder(name: str) -> Any:
    return classifier(name) if name in CLASSIFIERS else ENCODERS[name]()


def rows_for(name: str) -> tuple[np.ndarray, np.ndarray]:
    return grey() if name == "deep" else table()


@functools.cache
def linear(classes: int = 2) -> Any:
    """Logits that are linear in the row: a net without a hidden layer."""
    return rv.EnergyClassifier(hidden=(), steps=300, **DOUBLE).fit(*table(classes))


def weights_of(fitted: Any) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset of the log odds of class 1 against class 0, in the units of the table."""
    zero, unit = np.zeros((1, 4)), np.eye(4)
    odds = lambda X: np.diff(np.log(fitted.predict_proba(X)), axis=1)[:, 0]  # noqa: E731
    middle = table(2)[0].mean(axis=0)
    step = np.array([1.0, 10.0, 0.1, 2.0])
    slope = (odds(middle + step * unit) - odds(middle + zero)) / step
    return slope, odds(middle[None]) - middle @ slope


def margins(fitted: Any, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Log odds of the label of each row, of two."""
    return np.diff(np.log(fitted.predict_proba(X)), axis=1)[:, 0] * np.where(y == 1, 1, -1)
