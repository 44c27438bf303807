r"""Implicit maximum likelihood: gradients through solvers. Niepert, Minervini & Franceschi 2021, arXiv:2106.01798.

Forwards a state z is the most likely one of noisy logits. Backwards, with the slope g of the cost in z, the logits are
moved against it, and the state found there with the *same* noise is what z should rather have been:

.. math:: \frac1\lambda \big[ \mathrm{MAP}(\theta + \epsilon) - \mathrm{MAP}(\theta - \lambda g + \epsilon) \big]

It is a finite difference: a small :math:`\lambda` gives gradients that are mostly 0 and otherwise large, a large one
gives quiet ones that see only the sign of g. Biased at every :math:`\lambda`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._tree import AbstractSchedule, Steered, number
from ravine.core import AbstractDistribution, AbstractGradient, Scalar
from ravine.gradients.perturbed import AbstractPerturbation, ExactNoise, Logits, map_state, unsolved


class AbstractImplicitMLE(AbstractGradient):
    """Estimators that imitate the state that a solver finds at moved logits; the mean over ``k`` draws."""

    noise: eqx.AbstractVar[AbstractPerturbation]
    symmetric: eqx.AbstractVar[bool]
    k: eqx.AbstractVar[int]
    biased: ClassVar[bool] = True
    differentiates: ClassVar[bool] = True

    @abc.abstractmethod
    def reach(self, logits: Logits, slope: Logits) -> Scalar:
        """lambda: by how many times the slope of the cost in the state the logits are moved."""

    def steered(self) -> Steered | None:
        """A number that is told how many entries of each gradient are not 0."""
        return None

    def __call__(self, cost: Callable[[Array], Scalar], d: AbstractDistribution, *, key: PRNGKeyArray) -> Scalar:
        logits: Logits = d.logits  # pyright: ignore[reportAttributeAccessIssue]  (`refuses` has asked)

        def one(key: PRNGKeyArray) -> Scalar:
            held, how = _held((d, self))
            z, nothing = _imitated((logits, self.steered()), held, how, how.noise.drawn(held, key=key))
            return cost(z) + nothing

        return jnp.mean(jax.vmap(one)(jr.split(key, self.k)))

    def refuses(self, d: AbstractDistribution) -> str | None:
        return unsolved(d)

    def calls(self, d: AbstractDistribution) -> int:
        return self.k

    def difference(self, d: AbstractDistribution, logits: Logits, noise: Logits, slope: Logits) -> Logits:
        """What stands for the slope of the cost in the logits, from that in the state."""
        reach = self.reach(logits, slope)
        state = lambda times: map_state(d, logits + times * reach * slope + noise)  # noqa: E731
        span = jnp.maximum(2 * reach if self.symmetric else reach, jnp.finfo(logits.dtype).tiny)
        return (state(1 if self.symmetric else 0) - state(-1)) / span


def _held(tree: Any) -> Any:
    """The tree with its arrays as constants."""
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.tree.map(stop_gradient, arrays), rest)


# The state, and a 0 to be added to the cost: its cotangent is the weight of this cost in the loss, so that the slope of
# the cost itself is known, whatever the number of rows that it was averaged over.
@eqx.filter_custom_vjp
def _imitated(
    moved: tuple[Logits, Steered | None], d: AbstractDistribution, how: AbstractImplicitMLE, noise: Logits
) -> tuple[Logits, Scalar]:
    z = map_state(d, moved[0] + noise)
    return z, 0 * jnp.sum(z)  # a 0 of each draw: vmap would add up the cotangents of one for all


@_imitated.def_fwd
def _forwards(perturbed, moved, d, how, noise):
    return _imitated.fn(moved, d, how, noise), None


@_imitated.def_bwd
def _backwards(residuals, cotangents, perturbed, moved, d, how, noise):
    (logits, steered), (slope, weight) = moved, cotangents
    slope = jnp.zeros_like(logits) if slope is None else slope  # the cost does not look at the state
    counts = weight != 0  # a row of padding does not
    found = how.difference(d, logits, noise, slope / jnp.where(counts, weight, 1))
    count = jnp.count_nonzero(found)
    # one for each draw: it must depend on the draw, or vmap would pass on one for all
    told = None if steered is None else steered.counted(counts & (count >= 0), count)
    return jnp.where(counts, weight * found, 0), told


class IMLE(AbstractImplicitMLE):
    r"""Implicit maximum likelihood with a fixed :math:`\lambda`, for bits, categoricals, subsets and solvers.

    Niepert, Minervini & Franceschi 2021, arXiv:2106.01798, algorithm 1. With `ExactNoise` the value is right for
    bits, categoricals and subsets; for solvers it is the mean cost at perturbed maxima, a law near that of the node.

    Parameters
    ----------
    step : :math:`\lambda`, a number above 0 or a schedule; the slope it multiplies is that of the cost of one row.
    noise : on the logits, forwards and backwards, such as ``SumOfGamma()``, the paper's for subsets.
    symmetric : the difference of two moved states, one on each side; one solver call more.
    k : number of draws, and of cost evaluations.

    Examples
    --------
    >>> from ravine.dist import Subset
    >>> wanted = jnp.array([1.0, 1.0, 0.0, 0.0])
    >>> off = lambda l: IMLE(20.0)(lambda z: jnp.sum((z - wanted) ** 2), Subset(l, 2), key=jr.key(0))
    >>> print(jax.grad(off)(jnp.array([0.0, 0.0, 9.0, 9.0])).round(4))  # the state less the wanted one, over 20
    [-0.05 -0.05  0.05  0.05]
    """

    step: float | Array | AbstractSchedule = 10.0
    noise: AbstractPerturbation = eqx.field(default=ExactNoise(), kw_only=True)
    symmetric: bool = eqx.field(static=True, default=False, kw_only=True)
    k: int = eqx.field(static=True, default=1, kw_only=True)

    def reach(self, logits: Logits, slope: Logits) -> Scalar:
        return number(self.step).astype(logits.dtype)


class AIMLE(AbstractImplicitMLE):
    r"""`IMLE` whose :math:`\lambda = \beta \|\theta\| / \|g\|` keeps the number of non-zeros near a target.

    Minervini, Franceschi & Niepert 2023, arXiv:2209.04862. :math:`\beta` is raised by ``rate`` after each step when the
    running mean number of non-zero entries of a row's gradient is below ``target``, else lowered, not below 0. It
    learns where the estimator is part of what is trained (`Learned`); elsewhere :math:`\beta` is the number given.
    Norms are those of one node of one row. Logits that are all exactly 0 have no gradient.

    Parameters
    ----------
    beta : where :math:`\beta` starts.
    target : wanted mean number of non-zero entries of the gradient of a row in the logits of a node.
    rate : by how much :math:`\beta` changes in a step.
    decay : of the running mean, per step.
    noise, symmetric, k : as in `IMLE`.

    Examples
    --------
    >>> from ravine.dist import Bernoulli
    >>> value = lambda l: AIMLE(50.0, symmetric=True)(lambda z: 4 * z[0] - 3 * z[1], Bernoulli(l), key=jr.key(0))
    >>> print(jax.grad(value)(jnp.array([0.6, 0.8])).round(4))  # the sign of the slope, times 5 / (2 * 50)
    [ 0.05 -0.05]
    """

    beta: float = 1.0
    target: float = eqx.field(static=True, default=1.0)
    rate: float = eqx.field(static=True, default=1e-4)
    decay: float = eqx.field(static=True, default=0.9)
    noise: AbstractPerturbation = eqx.field(default=ExactNoise(), kw_only=True)
    symmetric: bool = eqx.field(static=True, default=False, kw_only=True)
    k: int = eqx.field(static=True, default=1, kw_only=True)
    learned: Steered | None = eqx.field(default=None, kw_only=True)

    def reach(self, logits: Logits, slope: Logits) -> Scalar:
        beta = jnp.asarray(self.beta if self.learned is None else self.learned.value, logits.dtype)
        length = _norm(slope)
        return jnp.where(length > 0, beta * _norm(logits) / jnp.where(length > 0, length, 1), 0)

    def steered(self) -> Steered | None:
        return self.learned

    def learning(self, inputs: int, latents: Sequence[int], *, key: PRNGKeyArray) -> Self:
        start, mean = jnp.asarray(self.beta), jnp.asarray(self.target)
        return dataclasses.replace(self, learned=Steered(start, mean, self.target, self.rate, self.decay))


def _norm(x: Float[Array, "..."]) -> Scalar:
    """Euclidean, over all cells."""
    return jnp.sqrt(jnp.sum(x**2))
