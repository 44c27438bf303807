"""Gaussian mixture by expectation-maximisation. Dempster, Laird & Rubin 1977; Makin 2022, arXiv:2207.10185, chapter 2.

No number is reported to aim at: every number here is exact, and equals scikit-learn's from the same start.
"""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ravine._check import whole
from ravine._jax import Precision
from ravine._tree import AbstractSchedule
from ravine.answers import Clusters
from ravine.core import Row
from ravine.data import AnySchema
from ravine.estimator import LatentVariableModel
from ravine.information import Information
from ravine.models.families import AbstractFamily, AbstractStart, Full, MixtureStart, Prepare, Spread
from ravine.models.mixture import Mixture
from ravine.models.restarts import BestOf
from ravine.rules import EM
from ravine.train import Stage


class GaussianMixture(Clusters, Information, LatentVariableModel):
    """A hidden class per row and a Gaussian per class; missing cells are marginalised exactly.

    Parameters
    ----------
    components : number of classes.
    covariance : `Full()`, `Tied()`, `Diagonal()` or `Spherical()`, each with its ``reg_covar``.
    start : `Spread()` or `Given(weights, means, covariances)`.
    n_init : how many starts are learned from, on 10,000 rows at most; learning goes on from the best of their ends.
    tol : learning stops when the mean log-likelihood rises by less than this many nats.
    iterations : passes over the data at most.
    batch_size : rows at a time; None takes all. Passes in batches give the same result, for data larger than memory.
    rate : step size of online EM (a schedule such as ``Power(-0.6)``); None is ordinary EM.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.concatenate([np.random.default_rng(0).normal(m, 1, size=(50, 2)) for m in (-4, 4)])
    >>> GaussianMixture(components=2, random_state=0).fit(X).predict_proba(X).shape
    (100, 2)
    """

    components: int = 2
    covariance: AbstractFamily = Full()
    start: AbstractStart = Spread()
    n_init: int = 1
    tol: float = 1e-3
    iterations: int = 200
    batch_size: int | None = None
    rate: float | AbstractSchedule | None = None
    validation: float = 0.0
    precision: Precision = "float64"

    kinds: ClassVar[tuple[str, ...]] = ("real",)

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> Mixture:
        """A mixture of the right shape; `stages` puts it where learning starts."""
        blank = Row(jnp.zeros((2, schema.width)), weight=jnp.ones(2))
        return Mixture(jnp.zeros(self.components), self.covariance(blank, self.components))

    def stages(self, rows: int) -> list[Stage]:
        """Passes over the data."""
        batches = -(-rows // (self.batch_size or rows))
        start = MixtureStart(self.start, self.covariance, self.components)
        best = Prepare(BestOf(start, whole("n_init", self.n_init), float(self.tol), self.iterations))
        rule = EM(self.tol, self.rate, jnp.asarray(batches))
        return [Stage(rule, self.iterations * batches, self.batch_size, ordered=True, prepare=best)]
