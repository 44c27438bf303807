"""Probabilistic principal components by exact EM. Tipping & Bishop 1999, JRSS B 61, 611-622; Roweis 1997, NIPS 10.

The former: *Probabilistic principal component analysis*; the latter: *EM algorithms for PCA and SPCA*.
No number is reported to aim at: with complete rows the maximum is known in closed form, and is reached.
"""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ravine._jax import Precision
from ravine._tree import AbstractSchedule
from ravine.data import AnySchema
from ravine.estimator import LatentVariableModel
from ravine.information import Information
from ravine.models.families import FactorStart, Prepare
from ravine.models.linear_gaussian import IsotropicNoise, LinearGaussian
from ravine.rules import EM
from ravine.train import Stage


class ProbabilisticPCA(Information, LatentVariableModel):
    """Few Gaussian causes, linear effects, and noise of one size in all columns; missing cells are marginalised.

    The loadings span the leading principal components of complete rows. Units matter: one noise stands for all columns,
    so columns of different units should be standardised. `FactorAnalysis` has a noise for each.

    Parameters
    ----------
    latents : number of causes.
    tol : learning stops when the mean log-likelihood rises by less than this many nats.
    iterations : passes over the data at most.
    batch_size : rows at a time; None takes all. Passes in batches give the same result, for data larger than memory.
    rate : step size of online EM (a schedule such as ``Power(-0.6)``); None is ordinary EM.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(50, 3)).cumsum(axis=1)
    >>> ProbabilisticPCA(latents=1, random_state=0).fit(X).transform(X).shape
    (50, 1)
    """

    latents: int = 2
    tol: float = 1e-7
    iterations: int = 1000
    batch_size: int | None = None
    rate: float | AbstractSchedule | None = None
    validation: float = 0.0
    precision: Precision = "float64"

    kinds: ClassVar[tuple[str, ...]] = ("real",)

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> LinearGaussian:
        """A model of the right shape; `stages` puts it where learning starts."""
        d = schema.width
        return LinearGaussian(jnp.zeros((d, self.latents)), jnp.zeros(d), IsotropicNoise(jnp.array(1.0)))

    def stages(self, rows: int) -> list[Stage]:
        """Passes over the data."""
        batches = -(-rows // (self.batch_size or rows))
        rule = EM(self.tol, self.rate, jnp.asarray(batches))
        start = Prepare(FactorStart(self.latents, IsotropicNoise))
        return [Stage(rule, self.iterations * batches, self.batch_size, ordered=True, prepare=start)]
