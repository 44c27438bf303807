"""Expectation-maximisation of a Gaussian mixture: one iteration of Ravine's loop against one of scikit-learn's.

Both start from the same weights, means and covariances, add the same ``reg_covar``, compute in the same precision and
never stop early. A time per iteration is the difference between two fits of different length.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from common import (
    Contender,
    Effort,
    fastest,
    per_iteration,
    ratio,
    report,
    shown,
    single_thread_or_all,
    spread,
    take_turns,
    warmed,
    with_threads,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from ravine._jax import Precision, precision
from ravine.core import Row
from ravine.data import ArraySource
from ravine.models.correlated_components import FullCovariance
from ravine.models.mixture import Mixture
from ravine.rules import EM
from ravine.train import Stage, train

ROWS, COLUMNS, COMPONENTS = 50_000, 32, 16
REG_COVAR = 1e-6
NEVER = float("-inf")
PRECISIONS: tuple[Precision, ...] = ("float64", "float32")


class Start(NamedTuple):
    """The data, and where both sides begin."""

    data: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


def main(effort: Effort) -> None:
    """Time both precisions and report."""
    results = {name: compare(name, effort) for name in PRECISIONS}
    cells = [[name, shown(result["ravine / scikit-learn"])] for name, result in results.items()]
    size = {"rows": ROWS, "columns": COLUMNS, "components": COMPONENTS, "covariance": "full", "rounds": effort.rounds}
    report("mixture", ["precision", "times scikit-learn"], cells, size | {"precisions": results})


def compare(name: Precision, effort: Effort) -> dict[str, Any]:
    """How many times as many iterations per second, and by how much the log-likelihoods of both differ."""
    start = start_of(name)
    peers = [with_threads("scikit-learn", n, per_iteration(theirs(start))) for n in single_thread_or_all()]
    contenders = [warmed(Contender("ravine", per_iteration(ours(start, name)))), fastest(peers)]
    mine, peer = take_turns(contenders, effort).values()
    steps = {contenders[0].name: spread(mine), contenders[1].name: spread(peer)}
    apart = np.max(np.abs(ours(start, name)(6) - theirs(start)(6)))
    return {
        "ravine / scikit-learn": ratio(mine, peer),
        "iterations per second": steps,
        "greatest difference in nats per row over 6 iterations": float(apart),
    }


def start_of(name: Precision) -> Start:
    """Rows of overlapping clusters, and a start that has them all to learn."""
    rng = np.random.default_rng(0)
    centres, mixing = 2 * rng.normal(size=(COMPONENTS, COLUMNS)), rng.normal(size=(COMPONENTS, COLUMNS, COLUMNS))
    member = rng.integers(COMPONENTS, size=ROWS)
    noise = rng.normal(size=(ROWS, COLUMNS))
    data = centres[member]
    for k in range(COMPONENTS):
        data[member == k] += noise[member == k] @ mixing[k] / np.sqrt(COLUMNS)
    covariances = np.tile(np.cov(data.T), (COMPONENTS, 1, 1))
    return Start(*(part.astype(name) for part in (data, data[:COMPONENTS], covariances)))


def ours(start: Start, name: Precision) -> Any:
    """A fit of so many iterations; returns the mean log-likelihood before each, in nats."""
    with precision(name):
        components = FullCovariance.of(jnp.asarray(start.means), jnp.asarray(start.covariances), REG_COVAR)
        model, source = Mixture(jnp.zeros(COMPONENTS, name), components), ArraySource(Row(jnp.asarray(start.data)))

    def fit(iterations: int) -> np.ndarray:
        with precision(name):
            chunks = list(train(model, [Stage(EM(NEVER), iterations)], source, key=jr.key(0)))
        return np.concatenate([chunk.metrics["objective"] for chunk in chunks])

    return fit


def theirs(start: Start) -> Any:
    """The same by scikit-learn. Its own start is overruled; the cheapest kind is asked for."""
    given = {
        "weights_init": np.full(COMPONENTS, 1 / COMPONENTS, start.data.dtype),
        "means_init": start.means,
        "precisions_init": np.linalg.inv(start.covariances),
        "init_params": "random_from_data",
        "random_state": 0,
    }

    def fit(iterations: int) -> np.ndarray:
        mixture = GaussianMixture(COMPONENTS, tol=0, reg_covar=REG_COVAR, max_iter=iterations, **given)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return np.asarray(mixture.fit(start.data).lower_bounds_)

    return fit
