"""Latent class analysis by expectation-maximisation. Lazarsfeld & Henry 1968; Goodman 1974, Biometrika 61, 215-231.

The latter: *Exploratory latent structure analysis using both identifiable and unidentifiable models*.
No number is reported to aim at: every number here is exact.
"""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ravine._check import whole
from ravine._jax import Precision
from ravine._tree import AbstractSchedule
from ravine.answers import Clusters
from ravine.data import AnySchema
from ravine.estimator import LatentVariableModel
from ravine.information import Information
from ravine.models.families import Full
from ravine.models.first_models import ClassStart, laws_of
from ravine.models.mixture import Mixture
from ravine.rules import EM
from ravine.train import Stage


class LatentClassAnalysis(Clusters, Information, LatentVariableModel):
    """A hidden class per row, and bits, codes or counts that are independent given it; missing cells are summed out.

    `LatentClass` takes columns of several kinds side by side, and learns by gradient.

    Parameters
    ----------
    components : number of classes.
    smoothing : how often each value is counted in each class besides what was seen; 0 is maximum likelihood.
    n_init : how many starts are learned from, on 10,000 rows at most; learning goes on from the best of their ends.
    tol : learning stops when the mean log-likelihood rises by less than this many nats.
    iterations : passes over the data at most.
    batch_size : rows at a time; None takes all. Passes in batches give the same result, for data larger than memory.
    rate : step size of online EM (a schedule such as ``Power(-0.6)``); None is ordinary EM.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).integers(0, 2, size=(100, 1)) ^ np.array([[0, 0, 1, 1]])
    >>> LatentClassAnalysis(components=2, random_state=0).fit(X).predict_proba(X).shape
    (100, 2)
    """

    components: int = 2
    smoothing: float = 0.1
    n_init: int = 1
    tol: float = 1e-5
    iterations: int = 500
    batch_size: int | None = None
    rate: float | AbstractSchedule | None = None
    validation: float = 0.0
    precision: Precision = "float64"

    kinds: ClassVar[tuple[str, ...]] = ("binary", "levels", "count")

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> Mixture:
        """Equal classes; `stages` puts them where learning starts."""
        k = whole("components", self.components)
        return Mixture(jnp.zeros(k), laws_of(schema, Full(), self.smoothing, k))

    def stages(self, rows: int) -> list[Stage]:
        """Passes over the data."""
        batches = -(-rows // (self.batch_size or rows))
        start = ClassStart(whole("n_init", self.n_init), float(self.tol), self.iterations)
        rule = EM(self.tol, self.rate, jnp.asarray(batches))
        return [Stage(rule, self.iterations * batches, self.batch_size, ordered=True, prepare=start)]
