"""Kernels that follow the gradient of the energy, for positions that are real arrays."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._tree import number
from ravine.core import AbstractKernel, Metrics, Row, Scalar

Point = Float[Array, "..."]


@runtime_checkable
class Energetic(Protocol):
    """What has a differentiable energy."""

    def energy(self, position: Point) -> Scalar:
        """Minus the log of the unnormalised density."""
        ...


def _freed(row: Row | None, push: Point) -> Point:
    """0 where ``row`` holds a cell, whatever pushes it: there a slope may be infinite."""
    if row is None:
        return push
    return jnp.zeros_like(push) if row.mask is None else jnp.where(row.mask, 0, push)


def _placed(row: Row | None, position: Point) -> Point:
    return position if row is None else row.clamp(position)


class Langevin(AbstractKernel):
    r"""Unadjusted Langevin steps, :math:`x - \epsilon \nabla E(x) / 2 + \sqrt{\epsilon}\,\tau\,\xi`.

    Leaves exp(-E) as it is only as ``size`` goes to 0 with ``noise`` 1: its law is wrong in the order of ``size``.
    Welling & Teh 2011. With less noise it is what nets of energies are often trained with.

    Parameters
    ----------
    model : what has an energy.
    row : cells that it holds do not move.
    size : the step :math:`\epsilon`.
    noise : how much of the noise is added, :math:`\tau`; 1 is Langevin's, 0 descends.
    """

    model: Energetic
    row: Row | None = None
    size: Scalar | float = 0.01
    noise: Scalar | float = 1.0

    def init(self, position: Point, *, key: PRNGKeyArray) -> Point:
        return _placed(self.row, position)

    def step(self, state: Point, *, key: PRNGKeyArray) -> tuple[Point, Metrics]:
        size, noise = number(self.size), number(self.noise)
        away = jax.grad(self.model.energy)(state)
        shock = jr.normal(key, state.shape, state.dtype)
        return state + _freed(self.row, noise * jnp.sqrt(size) * shock - 0.5 * size * away), {}

    def position(self, state: Point) -> Point:
        return state


class Metropolis(AbstractKernel):
    r"""Langevin proposals that are accepted as Metropolis & Hastings say, so that exp(-E) is left exactly as it is.

    MALA; Roberts & Tweedie 1996. It is `HMC` with one step of the leapfrog of length :math:`\sqrt\epsilon`.
    """

    model: Energetic
    row: Row | None = None
    size: Scalar | float = 0.01

    def init(self, position: Point, *, key: PRNGKeyArray) -> Point:
        return _placed(self.row, position)

    def step(self, state: Point, *, key: PRNGKeyArray) -> tuple[Point, Metrics]:
        return HMC(self.model, self.row, jnp.sqrt(number(self.size)), 1).step(state, key=key)

    def position(self, state: Point) -> Point:
        return state


class HMC(AbstractKernel):
    """Hamiltonian Monte Carlo with a standard normal momentum: ``steps`` leapfrogs of length ``size``, then a test.

    Duane et al. 1987; Neal 2011, arXiv:1206.1901. Leaves exp(-E) exactly as it is.

    Parameters
    ----------
    model : what has an energy.
    row : cells that it holds do not move.
    size, steps : length of a leapfrog, and how many make a proposal.
    """

    model: Energetic
    row: Row | None = None
    size: Scalar | float = 0.1
    steps: int = eqx.field(static=True, default=10)

    def init(self, position: Point, *, key: PRNGKeyArray) -> Point:
        return _placed(self.row, position)

    def step(self, state: Point, *, key: PRNGKeyArray) -> tuple[Point, Metrics]:
        kick, coin = jr.split(key)
        size = number(self.size)
        slope = lambda x: _freed(self.row, jax.grad(self.model.energy)(x))  # noqa: E731
        push = _freed(self.row, jr.normal(kick, state.shape, state.dtype))

        def leap(i: Array, pair: tuple[Point, Point]) -> tuple[Point, Point]:
            x, p = pair
            x = x + size * p
            return x, p - jnp.where(i < self.steps - 1, size, 0.5 * size) * slope(x)

        x, p = jax.lax.fori_loop(0, self.steps, leap, (state, push - 0.5 * size * slope(state)))
        total = lambda x, p: self.model.energy(x) + 0.5 * jnp.sum(p * p)  # noqa: E731
        rise = total(x, p) - total(state, push)
        taken = jnp.log(jr.uniform(coin, dtype=rise.dtype)) < -rise  # a proposal that is not finite is refused
        return jnp.where(taken, x, state), {"accepted": taken.astype(rise.dtype)}

    def position(self, state: Point) -> Point:
        return state
