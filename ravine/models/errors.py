r"""What it costs a layer to be away from its prediction: an energy, and the law whose energy it is.

With an error :math:`e = z - f` and a precision :math:`\Pi`,

.. math:: F(z, f) = \tfrac12 e^\top \Pi e - \tfrac12 \log|\Pi|

which is minus the log of a Gaussian density, but for :math:`\tfrac12 \log 2\pi` for each cell. Friston 2005, *A theory
of cortical responses*; Millidge, Seth & Buckley 2021, arXiv:2107.12979.
"""

from __future__ import annotations

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from ravine._tree import Fixed, unfix
from ravine.core import AbstractDistribution, Scalar
from ravine.dist import Bernoulli, FullGaussian, Gaussian, OneHot
from ravine.dist._cells import filled, total

Vector = Float[Array, "..."]
Directions = Float[Array, "cells many"]


class AbstractErrors(eqx.Module):
    """How a layer is compared with its prediction."""

    @abc.abstractmethod
    def __call__(self, value: Array, prediction: Vector, mask: Array | None = None) -> Scalar:
        """What the error costs, in nats up to a constant; cells with ``mask=False`` cost nothing."""

    @abc.abstractmethod
    def law(self, prediction: Vector) -> AbstractDistribution:
        """The law of the layer given its prediction; the energy is minus its log density up to a constant."""

    @abc.abstractmethod
    def curved(self, directions: Directions, prediction: Vector, mask: Array | None = None) -> Directions:
        """The curvature of the energy in the prediction, as a matrix on the left of these directions.

        Never negative: second derivatives of the prediction itself have no part in it.
        """


class AbstractRealErrors(AbstractErrors):
    """Errors of real cells, with a precision: layers with such errors can settle."""

    @abc.abstractmethod
    def weighted(self, error: Vector) -> Vector:
        """The error times the precision."""

    @abc.abstractmethod
    def moved(self, force: Vector) -> Vector:
        """The error at which the weighted error equals a force: the precision's inverse times it."""


class AbstractDiagonalErrors(AbstractRealErrors):
    """Real cells with a precision each."""

    @abc.abstractmethod
    def log_precision(self, like: Vector) -> Vector:
        """Log of the precision of each cell, in the shape of ``like``."""

    def __call__(self, value: Array, prediction: Vector, mask: Array | None = None) -> Scalar:
        log_precision = self.log_precision(prediction)
        error = filled(value, mask, prediction) - prediction
        return total(0.5 * jnp.exp(log_precision) * error**2 - 0.5 * log_precision, mask)

    def law(self, prediction: Vector) -> Gaussian:
        return Gaussian(prediction, jnp.exp(-0.5 * self.log_precision(prediction)))

    def curved(self, directions: Directions, prediction: Vector, mask: Array | None = None) -> Directions:
        precision = jnp.exp(self.log_precision(prediction))
        return (precision if mask is None else jnp.where(mask, precision, 0)).ravel()[:, None] * directions

    def weighted(self, error: Vector) -> Vector:
        return jnp.exp(self.log_precision(error)) * error

    def moved(self, force: Vector) -> Vector:
        return jnp.exp(-self.log_precision(force)) * force


class UnitErrors(AbstractDiagonalErrors):
    """Real cells, all of precision 1.

    Examples
    --------
    >>> float(UnitErrors()(jnp.array([1.0, 2.0]), jnp.zeros(2)))
    2.5
    """

    def log_precision(self, like: Vector) -> Vector:
        return jnp.zeros_like(like)


class WeightedErrors(AbstractDiagonalErrors):
    """Real cells whose precision no rule changes: one number for all, or one for each.

    Examples
    --------
    >>> round(float(WeightedErrors(4.0)(jnp.ones(1), jnp.zeros(1))), 4)  # 2 - log(4) / 2
    1.3069
    """

    precision: Fixed

    def __init__(self, precision: float | Array | Fixed):
        self.precision = precision if isinstance(precision, Fixed) else Fixed(jnp.asarray(precision, float))

    def log_precision(self, like: Vector) -> Vector:
        return jnp.broadcast_to(jnp.log(unfix(self.precision)).astype(like.dtype), like.shape)


class LearnedErrors(AbstractDiagonalErrors):
    """Real cells whose precision is learned: one number for each.

    Parameters
    ----------
    logs : log of the precision of each cell.

    Examples
    --------
    >>> float(LearnedErrors(jnp.zeros(2))(jnp.array([1.0, 2.0]), jnp.zeros(2)))
    2.5
    """

    logs: Vector

    def log_precision(self, like: Vector) -> Vector:
        return self.logs


class CorrelatedErrors(AbstractRealErrors):
    r"""Real cells with a learned precision matrix :math:`\Pi = R^\top R`.

    Parameters
    ----------
    root : R, shape (cells, cells); its lower triangle is used.

    Examples
    --------
    >>> errors = CorrelatedErrors(jnp.array([[1.0, 9.0], [1.0, 2.0]]))
    >>> errors.weighted(jnp.array([1.0, 0.0])).tolist()
    [2.0, 2.0]
    """

    root: Float[Array, "cells cells"]

    def __call__(self, value: Array, prediction: Vector, mask: Array | None = None) -> Scalar:
        error = filled(value, mask, prediction) - prediction
        if mask is not None:
            return -self.law(prediction).log_prob(value, mask) - 0.5 * jnp.sum(mask) * jnp.log(2 * jnp.pi)
        return 0.5 * jnp.sum((self.lower() @ error) ** 2) - jnp.sum(jnp.log(jnp.abs(jnp.diagonal(self.root))))

    def law(self, prediction: Vector) -> FullGaussian:
        inverse = solve_triangular(self.lower(), jnp.eye(len(self.root), dtype=self.root.dtype), lower=True)
        return FullGaussian(prediction, jnp.linalg.cholesky(inverse @ inverse.T))

    def curved(self, directions: Directions, prediction: Vector, mask: Array | None = None) -> Directions:
        if mask is not None:
            raise ValueError("CorrelatedErrors: expected complete cells, got a mask; use it for hidden layers.")
        return self.lower().T @ (self.lower() @ directions)

    def weighted(self, error: Vector) -> Vector:
        return (self.lower() @ error) @ self.lower()

    def moved(self, force: Vector) -> Vector:
        return solve_triangular(self.lower(), solve_triangular(self.lower().T, force), lower=True)

    def lower(self) -> Float[Array, "cells cells"]:
        """The root with zeros above its diagonal."""
        return jnp.tril(self.root)


class BitErrors(AbstractErrors):
    """Cells that are bits, and predictions that are logits: the cross-entropy, in nats.

    Its slope in the logits is minus the error, bit less probability.

    Examples
    --------
    >>> round(float(BitErrors()(jnp.array([1.0, 0.0]), jnp.zeros(2))), 4)
    1.3863
    """

    def __call__(self, value: Array, prediction: Vector, mask: Array | None = None) -> Scalar:
        return -Bernoulli(prediction).log_prob(value, mask)

    def law(self, prediction: Vector) -> Bernoulli:
        return Bernoulli(prediction)

    def curved(self, directions: Directions, prediction: Vector, mask: Array | None = None) -> Directions:
        variance = jax.nn.sigmoid(prediction) * jax.nn.sigmoid(-prediction)
        return (variance if mask is None else jnp.where(mask, variance, 0)).ravel()[:, None] * directions


class ClassErrors(AbstractErrors):
    """A class as a one-hot vector, and predictions that are logits: the cross-entropy of a softmax, in nats.

    Examples
    --------
    >>> round(float(ClassErrors()(jnp.array([1.0, 0.0]), jnp.zeros(2))), 4)
    0.6931
    """

    def __call__(self, value: Array, prediction: Vector, mask: Array | None = None) -> Scalar:
        return -OneHot(prediction).log_prob(value, mask)

    def law(self, prediction: Vector) -> OneHot:
        return OneHot(prediction)

    def curved(self, directions: Directions, prediction: Vector, mask: Array | None = None) -> Directions:
        share = jax.nn.softmax(prediction)
        bent = share[:, None] * directions - jnp.outer(share, share @ directions)
        return bent if mask is None else jnp.where(jnp.all(mask), bent, 0)
