"""Linear dynamical systems by exact EM. Kalman 1960; Shumway & Stoffer 1982, Journal of Time Series Analysis 3, 253.

The latter: *An approach to time series smoothing and forecasting using the EM algorithm*.
No number is reported to aim at: every number here is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ravine._check import whole
from ravine._jax import Precision
from ravine._tree import AbstractSchedule
from ravine.data import AnySchema
from ravine.dist import FullGaussian
from ravine.information import Information
from ravine.models.first_models import DynamicalStart
from ravine.models.linear_dynamical import LinearDynamical
from ravine.models.linear_gaussian import AbstractNoise, DiagonalNoise, IsotropicNoise
from ravine.rules import EM
from ravine.sequence_model import SequenceModel
from ravine.train import Stage

NOISES: Mapping[str, type[AbstractNoise]] = {"diagonal": DiagonalNoise, "isotropic": IsotropicNoise}


class LinearDynamicalSystem(Information, SequenceModel):
    """Few hidden numbers that move linearly from step to step, and what is seen of them, with Gaussian noise.

    Kalman filter and smoother, with missing cells and missing steps exactly; every answer is in closed form.

    Parameters
    ----------
    latents : how many numbers are hidden.
    noise : of the cells given these: ``"diagonal"``, a variance for each column, or ``"isotropic"``, one for all.
    tol : learning stops when the mean log-likelihood of a sequence rises by less than this many nats.
    iterations : passes over the data at most.
    batch_size : sequences at a time; None takes all. Passes in batches give the same result.
    rate : step size of online EM (a schedule such as ``Power(-0.6)``); None is ordinary EM.

    Examples
    --------
    >>> import numpy as np
    >>> waves = np.sin(np.arange(50) / 4) + 0.1 * np.random.default_rng(0).normal(size=50)
    >>> model = LinearDynamicalSystem(latents=2, iterations=20, random_state=0).fit(waves)
    >>> model.transform(waves).shape, model.forecast(waves, 5).shape
    ((50, 2), (1, 5, 1))
    """

    latents: int = 2
    noise: Literal["diagonal", "isotropic"] = "diagonal"
    tol: float = 1e-3
    iterations: int = 200
    batch_size: int | None = None
    rate: float | AbstractSchedule | None = None
    standardise: bool = True
    validation: float = 0.0
    precision: Precision = "float64"

    kinds: ClassVar[tuple[str, ...]] = ("real",)

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> LinearDynamical:
        """A model of the right shape; `stages` puts it where learning starts."""
        d, k = schema.width, whole("latents", self.latents)
        first = FullGaussian(jnp.zeros(k), jnp.eye(k))
        shown = jnp.zeros((d, k)), jnp.zeros(d), NOISES[self.noise].of(jnp.ones(d))
        return LinearDynamical(first, jnp.eye(k), jnp.eye(k), *shown)

    def stages(self, rows: int) -> list[Stage]:
        """Passes over the sequences."""
        batches = -(-rows // (self.batch_size or rows))
        rule = EM(self.tol, self.rate, jnp.asarray(batches))
        start = DynamicalStart(NOISES[self.noise])
        return [Stage(rule, self.iterations * batches, self.batch_size, ordered=True, prepare=start)]
