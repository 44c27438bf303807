"""log p(x) of models whose latents settle: importance sampling around the settled point."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ravine._check import require
from ravine.core import AbstractDistribution, AbstractEvidence, Direction, Latent, Row, Scalar
from ravine.dist import FullGaussian, FullStudentT, Gaussian, StudentT
from ravine.evidence.likelihood import ImportanceWeighted
from ravine.posteriors import OneNode

Values = tuple[Float[Array, " n"], Float[Array, " n"]]
Vector = Float[Array, " n"]
SHARES = (1.0, 0.5, 0.25, 0.125, 0.0)  # of a step of Newton's method, of which the best is taken


@runtime_checkable
class Settling(Protocol):
    """A joint law whose latents settle."""

    def settled(self, row: Row) -> Latent:
        """Where the latents that `log_joint` is a law of have settled."""
        ...

    def log_joint(self, z: Latent, row: Row) -> Scalar:
        """log p(x, z), in nats."""
        ...

    def curvature(self, z: Latent, row: Row) -> Float[Array, "n n"]:
        """A positive definite stand-in for the second derivative of -log p(x, z) in all latents as one vector."""
        ...


class AbstractSpread(eqx.Module):
    """What of a curvature becomes the spread of a proposal."""

    @abc.abstractmethod
    def direction(self, curvature: Float[Array, "n n"], slope: Vector) -> Vector:
        """How far a step of Newton's method would go against a slope."""

    @abc.abstractmethod
    def law(self, centre: Vector, curvature: Float[Array, "n n"], widen: float, freedom: float | None) -> Any:
        """The proposal: normal, or Student's t with these degrees of freedom."""


class FullSpread(AbstractSpread):
    """All of it: the covariance is the inverse. Time grows with the cube of the number of latents."""

    def direction(self, curvature: Float[Array, "n n"], slope: Vector) -> Vector:
        return jnp.linalg.solve(curvature, slope)

    def law(
        self, centre: Vector, curvature: Float[Array, "n n"], widen: float, freedom: float | None
    ) -> AbstractDistribution:
        factor = widen * covariance_factor(curvature)
        if freedom is None:
            return FullGaussian(centre, factor)
        return FullStudentT(centre, factor, jnp.asarray(freedom, centre.dtype))


class DiagonalSpread(AbstractSpread):
    """Its diagonal alone: latents are proposed independently."""

    def direction(self, curvature: Float[Array, "n n"], slope: Vector) -> Vector:
        return slope / jnp.diagonal(curvature)

    def law(
        self, centre: Vector, curvature: Float[Array, "n n"], widen: float, freedom: float | None
    ) -> AbstractDistribution:
        scale = widen / jnp.sqrt(jnp.diagonal(curvature))
        return Gaussian(centre, scale) if freedom is None else StudentT(centre, scale, jnp.full_like(scale, freedom))


class AroundSettled(AbstractEvidence):
    r"""``log 1/k sum_i p(x, z_i) / q(z_i)``, z_i drawn around the settled point: a stochastic lower bound.

    .. math:: q(z) = N(z^*, w^2 H^{-1}), \qquad H \approx -\partial^2 \log p(x, z) / \partial z^2

    A Laplace approximation, widened, or Student's t of the same scale. The mean of the weights is an unbiased estimate
    of p(x), so that its log errs low; the standard error is that of `ImportanceWeighted`. Tierney & Kadane 1986; Geweke
    1989, *Bayesian inference in econometric models using Monte Carlo integration*.

    Parameters
    ----------
    k : draws for each row.
    widen : factor w of the standard deviations, at least 1: thin tails of q make weights that are too large.
    freedom : degrees of freedom of Student's t; None proposes normally.
    spread : ``FullSpread()``, or ``DiagonalSpread()`` where there are very many latents.
    climb : steps of Newton's method on log p(x, z) from the settled point, none of which lowers it; they make up for
        settling that has not ended.
    """

    k: int = eqx.field(static=True, default=1000)
    widen: float = eqx.field(static=True, default=1.1)
    freedom: float | None = eqx.field(static=True, default=None)
    spread: AbstractSpread = FullSpread()
    climb: int = eqx.field(static=True, default=3)
    direction: ClassVar[Direction] = "lower"

    def __call__(self, model: Any, batch: Row, *, key: PRNGKeyArray) -> Values:
        got = type(model).__name__
        require(isinstance(model, Settling), "AroundSettled", "a model of latents that settle", got, "use another way")
        return ImportanceWeighted(self.k)(Around(model, self), batch, key=key)

    def method(self) -> str:
        return f"importance-{self.k} around the settled point"


class Around(eqx.Module):
    """A model with the proposal around its settled point, for `ImportanceWeighted`; latents are one vector."""

    model: Any
    how: AroundSettled

    def posterior(self, row: Row) -> OneNode:
        """The proposal."""
        z, back = ravel_pytree(self.model.settled(row))[0], self.back(row)
        curvature = lambda z: self.model.curvature(back(z), row)  # noqa: E731
        centre = climbed(lambda z: -self.model.log_joint(back(z), row), curvature, z, self.how)
        return OneNode(self.how.spread.law(centre, curvature(centre), self.how.widen, self.how.freedom))

    def log_joint(self, z: Vector, row: Row) -> Scalar:
        """log p(x, z), in nats."""
        return self.model.log_joint(self.back(row)(z), row)

    def back(self, row: Row) -> Callable[[Vector], Latent]:
        """From one vector to latents; nothing is computed to know their shapes."""
        shapes = eqx.filter_eval_shape(self.model.settled, row)
        return ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))[1]


def climbed(energy: Any, curvature: Any, z: Vector, how: AroundSettled) -> Vector:
    """Where steps of Newton's method lead, or such shares of them that the energy does not rise."""
    shares = jnp.asarray(SHARES, z.dtype)

    def one(_: Int[Array, ""], z: Vector) -> Vector:
        step = how.spread.direction(curvature(z), jax.grad(energy)(z))
        tries = z[None] - shares[:, None] * step[None]
        return tries[jnp.nanargmin(jax.vmap(energy)(tries))]

    return jax.lax.fori_loop(0, how.climb, one, z)


def covariance_factor(precision: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The lower Cholesky factor of the inverse of a matrix, which itself is never formed.

    Examples
    --------
    >>> covariance_factor(jnp.diag(jnp.array([4.0, 1.0]))).tolist()
    [[0.5, 0.0], [0.0, 1.0]]
    """
    # turned by half a turn, the transposed inverse of a lower factor is lower again
    lower = jnp.linalg.cholesky(precision[::-1, ::-1])
    inverse = solve_triangular(lower, jnp.eye(len(lower), dtype=lower.dtype), lower=True)
    return inverse.T[::-1, ::-1]
