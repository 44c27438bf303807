"""Factor analysis: how long Ravine and scikit-learn take to come within 1e-4 nats per row of the same log-likelihood.

The goal is scikit-learn's own final log-likelihood. Each side runs as many iterations as it needs to reach the goal,
from its own start, which is part of the time; each in double precision.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

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
    take_turns,
    throughput,
    warmed,
    with_threads,
)
from sklearn.decomposition import FactorAnalysis as Peer
from sklearn.exceptions import ConvergenceWarning

from ravine._jax import precision
from ravine.core import Row
from ravine.data import ArraySource, Schema
from ravine.models.families import FactorStart, Prepare
from ravine.recipes.factor_analysis import FactorAnalysis
from ravine.rules import EM
from ravine.train import Stage, train

ROWS, COLUMNS, FACTORS = 20_000, 40, 5
CLOSE = 1e-4
AT_MOST = 5_000
NEVER = float("-inf")
STALLED = 1e-9 * ROWS
METHODS = ("lapack", "randomized")

Fit = Callable[[int], np.ndarray]


def main(effort: Effort) -> None:
    """Find how many iterations each side needs, time them, and report."""
    data = generated()
    goal = float(theirs(data, "lapack", STALLED)(AT_MOST)[-1]) - CLOSE
    fit = ours(data)
    needed = {"ravine": iterations_to(goal, fit)}
    needed |= {method: iterations_to(goal, theirs(data, method, STALLED)) for method in METHODS}
    if needed["ravine"] is None:
        raise RuntimeError(f"Ravine did not reach {goal:.6f} nats per row in {AT_MOST} iterations.")
    contenders = [warmed(Contender("ravine", _repeat(fit, needed["ravine"]))), fastest(list(_peers(data, needed)))]
    mine, peer = take_turns(contenders, effort).values()
    result = {
        "iterations": needed,
        "ravine / scikit-learn": ratio(mine, peer),
        "fits per second": {contenders[0].name: spread(mine), contenders[1].name: spread(peer)},
    }
    cells = [shown(result["ravine / scikit-learn"]), str(needed["ravine"]), contenders[1].name]
    columns = ["times scikit-learn", "iterations", "fastest of scikit-learn"]
    size = f"{ROWS} rows, {COLUMNS} columns, {FACTORS} factors"
    report("factor_analysis", columns, [cells], {"rounds": effort.rounds, "sizes": {size: result}})


def _peers(data: np.ndarray, needed: dict[str, int | None]) -> Any:
    for method, threads in itertools.product(METHODS, single_thread_or_all()):
        if needed[method] is not None:
            yield with_threads(f"scikit-learn, {method}", threads, _repeat(theirs(data, method), needed[method]))


def _repeat(fit: Fit, iterations: int) -> Callable[[float], float]:
    return lambda seconds: throughput(lambda: len(fit(iterations)) / iterations, seconds)


def iterations_to(goal: float, fit: Fit) -> int | None:
    """How many iterations bring the mean log-likelihood to the goal; None when that many do not."""
    reached = np.flatnonzero(fit(AT_MOST) >= goal)
    return int(reached[0]) + 1 if len(reached) else None


def generated() -> np.ndarray:
    """Rows of a factor model with noise of unequal size."""
    rng = np.random.default_rng(0)
    causes, loading = rng.normal(size=(ROWS, FACTORS)), rng.normal(size=(FACTORS, COLUMNS))
    return causes @ loading + rng.uniform(0.5, 2.0, COLUMNS) * rng.normal(size=(ROWS, COLUMNS))


def ours(data: np.ndarray) -> Fit:
    """A fit of so many iterations from the recipe's start; returns the mean log-likelihood before each, in nats."""
    with precision("float64"):
        source = ArraySource(Row(jnp.asarray(data)))
        model = FactorAnalysis(latents=FACTORS).build(Schema((COLUMNS,), "real"), key=jr.key(0))

    def fit(iterations: int) -> np.ndarray:
        stage = Stage(EM(NEVER), iterations, prepare=Prepare(FactorStart(FACTORS)))
        with precision("float64"):
            chunks = list(train(model, [stage], source, key=jr.key(0)))
        return np.concatenate([chunk.metrics["objective"] for chunk in chunks])

    return fit


def theirs(data: np.ndarray, method: str, tol: float = 0.0) -> Fit:
    """The same by scikit-learn."""

    def fit(iterations: int) -> np.ndarray:
        peer = Peer(FACTORS, tol=tol, max_iter=iterations, svd_method=method, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return np.asarray(peer.fit(data).loglike_) / ROWS

    return fit
