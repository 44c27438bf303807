"""Why cells are missing, as part of a model: p(mask | x). Ipsen, Mattei & Frellsen 2021, arXiv:2006.12871."""

from __future__ import annotations

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ravine.core import AbstractDirected, AbstractLatentModel, Latent, Row, Scalar
from ravine.dist import Ancestral
from ravine.models.laws import Held
from ravine.posteriors import Chain


class AbstractMechanism(eqx.Module):
    """The probability of each cell being missing given the complete row."""

    @abc.abstractmethod
    def logits(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Log odds of each cell being missing."""

    def log_prob(self, mask: Bool[Array, "..."], x: Float[Array, "..."]) -> Scalar:
        """log p(mask | x) in nats; True = observed. Cells are missing independently given the row."""
        logits = self.logits(x)
        return -jnp.sum(jax.nn.softplus(jnp.where(mask, logits, -logits)))


class OwnLogistic(AbstractMechanism):
    """Every cell is missing with log odds ``slope * x + level`` of its own value: self-masking.

    Examples
    --------
    >>> mechanism = OwnLogistic(jnp.array([2.0, 0.0]), jnp.array([0.0, 0.0]))
    >>> mechanism.logits(jnp.array([1.5, 9.0])).tolist()
    [3.0, 0.0]
    """

    slope: Float[Array, "..."]
    level: Float[Array, "..."]

    def logits(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return self.slope * x + self.level


class NotAtRandom(AbstractDirected, AbstractLatentModel):
    r"""A model of rows together with why their cells are missing; the missing cells are part of the latent.

    The latent is ``(z, x)`` with x a complete row drawn from p(x | z), whose observed cells are not used:

    .. math:: \log w = \log p(x_o \mid z) + \log p(\text{mask} \mid x_o, x_m) + \log p(z) - \log q(z \mid x_o),
              \qquad z \sim q, \; x_m \sim p(x_m \mid z)

    (Ipsen, Mattei & Frellsen 2021, arXiv:2006.12871, equation 7). So log p of a row is log p(observed cells, mask), and
    imputations weigh the draws of the missing cells by how well they explain that these are missing.

    Parameters
    ----------
    model : a directed model with one stochastic node and its recogniser.
    mechanism : p(mask | x).

    Examples
    --------
    >>> from ravine.models.linear_gaussian import DiagonalNoise, LinearGaussian
    >>> plain = LinearGaussian(jnp.ones((2, 1)), jnp.zeros(2), DiagonalNoise(jnp.ones(2)))
    >>> model = NotAtRandom(plain, OwnLogistic(jnp.zeros(2), jnp.zeros(2)))
    >>> z = jnp.zeros(1), jnp.zeros(2)
    >>> row = Row(jnp.array([2.0, 0.0]), jnp.array([True, False]))
    >>> round(float(model.log_likelihood(z, row) - plain.log_likelihood(z[0], row)), 4)  # two fair coins
    -1.3863
    """

    model: AbstractLatentModel
    mechanism: AbstractMechanism

    def prior(self, context: PyTree = None) -> Ancestral:
        return Ancestral(self._directed().prior(context), self._directed().likelihood)

    def likelihood(self, z: Latent, context: PyTree = None) -> Held:
        """The complete row of the latent, for certain; p(x | z) stands behind it."""
        return Held(self._directed().likelihood(z[0], context), z[1], jnp.ones(z[1].shape, bool))

    def log_likelihood(self, z: Latent, row: Row) -> Scalar:
        mask = jnp.ones(row.x.shape, bool) if row.mask is None else row.mask
        return self.model.log_likelihood(z[0], row) + self.mechanism.log_prob(mask, row.clamp(z[1]))

    def posterior(self, row: Row) -> Chain:
        (first,) = self.model.posterior(row).nodes()
        return Chain(first, (self._directed().likelihood,))

    def _directed(self) -> AbstractDirected:
        if not isinstance(self.model, AbstractDirected):
            raise TypeError(f"NotAtRandom needs a model with a likelihood p(x | z), got {type(self.model).__name__}.")
        return self.model


class AbstractMissingness(eqx.Module):
    """What is assumed of why cells are missing: completes a model of rows."""

    @abc.abstractmethod
    def __call__(self, model: AbstractLatentModel, width: int) -> AbstractLatentModel:
        """The model with the assumption, for rows of so many cells."""


class AtRandom(AbstractMissingness):
    """Whether a cell is missing depends on observed cells alone; then nothing need be modelled. Rubin 1976, Biometrika.

    Examples
    --------
    >>> AtRandom()
    AtRandom()
    """

    def __call__(self, model: AbstractLatentModel, width: int) -> AbstractLatentModel:
        return model


class SelfMasking(AbstractMissingness):
    """Whether a cell is missing depends on its own value, by a logistic curve per column that is learned.

    ``slope`` is where learning starts, in units of what the model sees: 1 says that large values tend to go missing.

    Examples
    --------
    >>> SelfMasking(1.0)
    SelfMasking(slope=1.0)
    """

    slope: float = 0.0

    def __call__(self, model: AbstractLatentModel, width: int) -> NotAtRandom:
        return NotAtRandom(model, OwnLogistic(jnp.full(width, self.slope), jnp.zeros(width)))
