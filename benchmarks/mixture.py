"""Expectation-maximisation of a Gaussian mixture: one iteration of Ravine's loop against one of scikit-learn's.

Both start from the same weights, means and covariances, add the same ``reg_covar``, compute in the same precision and
never stop early. Of scikit-learn its two steps are timed, without what ``fit`` does around them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from common import (
    Contender,
    Effort,
    fastest,
    ratio,
    report,
    shown,
    single_thread_or_all,
    spread,
    steps,
    take_turns,
    throughput,
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
from ravine.train import Chunk, Stage, train

ROWS, COLUMNS, COMPONENTS = 50_000, 32, 16
REG_COVAR = 1e-6
NEVER, FOREVER = float("-inf"), 2**30
FEW = 6
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
    report("mixture", ["precision", "times scikit-learn"], cells, size | {"sizes": results})


def compare(name: Precision, effort: Effort) -> dict[str, Any]:
    """How many times as many iterations per second, and by how much the log-likelihoods of both differ."""
    start = start_of(name)
    peers = [with_threads("scikit-learn", n, their_pace(start)) for n in single_thread_or_all()]
    contenders = [warmed(Contender("ravine", our_pace(start, name))), fastest(peers)]
    mine, peer = take_turns(contenders, effort).values()
    paces = {contenders[0].name: spread(mine), contenders[1].name: spread(peer)}
    apart = np.max(np.abs(our_history(start, name) - their_history(start)))
    return {
        "ravine / scikit-learn": ratio(mine, peer),
        "iterations per second": paces,
        "greatest difference in nats per row over the first iterations": float(apart),
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


def ours(start: Start, name: Precision, iterations: int) -> Iterator[Chunk]:
    """A fit that goes on for so many iterations."""
    components = FullCovariance.of(jnp.asarray(start.means), jnp.asarray(start.covariances), REG_COVAR)
    model, source = Mixture(jnp.zeros(COMPONENTS, name), components), ArraySource(Row(jnp.asarray(start.data)))
    return train(model, [Stage(EM(NEVER), iterations)], source, key=jr.key(0), seconds=0.3)


def our_pace(start: Start, name: Precision) -> Callable[[float], float]:
    with precision(name):
        pace = steps(ours(start, name, FOREVER))

    def rate(seconds: float) -> float:
        with precision(name):
            return pace(seconds)

    return rate


def our_history(start: Start, name: Precision) -> np.ndarray:
    """The mean log-likelihood before each of a few iterations, in nats."""
    with precision(name):
        return np.concatenate([chunk.metrics["objective"] for chunk in ours(start, name, FEW)])


def theirs(start: Start) -> GaussianMixture:
    """The same for scikit-learn. Its own start is overruled; the cheapest kind is asked for."""
    given = {
        "weights_init": np.full(COMPONENTS, 1 / COMPONENTS, start.data.dtype),
        "means_init": start.means,
        "precisions_init": np.linalg.inv(start.covariances),
        "init_params": "random_from_data",
        "random_state": 0,
    }
    return GaussianMixture(COMPONENTS, tol=0, reg_covar=REG_COVAR, max_iter=FEW, **given)


def their_history(start: Start) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(theirs(start).fit(start.data).lower_bounds_)


def their_pace(start: Start) -> Callable[[float], float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture = theirs(start).fit(start.data)

    def iterate() -> float:
        _, responsibilities = mixture._e_step(start.data)
        mixture._m_step(start.data, responsibilities)
        return 1.0

    return lambda seconds: throughput(iterate, seconds)
