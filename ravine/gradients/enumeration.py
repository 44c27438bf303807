"""Expectations over a discrete node by listing values: all of them, the most likely ones, or those of one cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractDiscrete, AbstractDistribution, AbstractGradient, Scalar
from ravine.gradients._classes import logits_of, not_classes, value_of, zero

OneCost = Callable[[Array], Scalar]


class Enumerate(AbstractGradient):
    """Sum over every value: sum_z p(z) cost(z). Exact value and gradient; as many cost evaluations as values.

    Examples
    --------
    >>> import jax.numpy as jnp, jax.random as jr
    >>> from ravine.dist import Bernoulli
    >>> float(Enumerate()(jnp.sum, Bernoulli(jnp.zeros(3)), key=jr.key(0)))
    1.5
    """

    biased: ClassVar[bool] = False

    def __call__(self, cost: OneCost, d: AbstractDistribution, *, key: PRNGKeyArray) -> Scalar:
        values = d.support()  # pyright: ignore[reportAttributeAccessIssue]  (`refuses` has asked)
        mass = jnp.exp(jax.vmap(d.log_prob)(values))
        return mass @ jax.vmap(cost)(values)

    def refuses(self, d: AbstractDistribution) -> str | None:
        return _unlisted(d)

    def calls(self, d: AbstractDistribution) -> int:
        return _states(d)


class PartialEnumerate(AbstractGradient):
    """The ``top`` most likely values are summed, one of the others is drawn: ``sum_top p f + p_rest f(z_rest)``.

    Liu, Regier, Tripuraneni, Jordan & McAuliffe 2019, arXiv:1810.04777. Unbiased; ``top + 1`` cost evaluations, or as
    many as there are values.

    Examples
    --------
    >>> import jax.numpy as jnp, jax.random as jr
    >>> from ravine.dist import Bernoulli
    >>> sure = Bernoulli(jnp.full(3, 40.0))
    >>> round(float(PartialEnumerate(1)(jnp.sum, sure, key=jr.key(0))), 4)
    3.0
    """

    top: int = eqx.field(static=True, default=1)
    biased: ClassVar[bool] = False

    def __call__(self, cost: OneCost, d: AbstractDistribution, *, key: PRNGKeyArray) -> Scalar:
        if self.top >= _states(d):
            return Enumerate()(cost, d, key=key)
        values = d.support()  # pyright: ignore[reportAttributeAccessIssue]  (`refuses` has asked)
        log_mass = jax.vmap(d.log_prob)(values)
        listed = jax.lax.top_k(log_mass, self.top)[1]
        log_others = log_mass.at[listed].set(-jnp.inf)
        drawn = jr.categorical(key, stop_gradient(log_others))
        rest = jax.nn.logsumexp(log_others)
        kept = jnp.append(listed, drawn)
        share = jnp.exp(jnp.append(log_mass[listed], rest))
        costs = jax.vmap(cost)(values[kept])
        # the draw among the others has a law of its own: p(z) / p_rest
        return share @ costs + stop_gradient(share[-1] * costs[-1]) * zero(log_mass[drawn] - rest)

    def refuses(self, d: AbstractDistribution) -> str | None:
        return _unlisted(d)

    def calls(self, d: AbstractDistribution) -> int:
        return min(self.top + 1, _states(d))


class LocalExpectation(AbstractGradient):
    """Every value of each cell in turn, the other cells as drawn: ``sum_c f(z with z_i = c) grad p(z_i = c)``.

    Titsias & Lázaro-Gredilla 2015, "Local expectation gradients for black box variational inference". Unbiased, no
    derivative of the cost; one cost evaluation, and one for each other class of each cell.

    Examples
    --------
    >>> import jax.numpy as jnp, jax.random as jr
    >>> from ravine.dist import Bernoulli
    >>> jax.grad(lambda l: LocalExpectation()(jnp.sum, Bernoulli(l), key=jr.key(0)))(jnp.zeros(2)).tolist()
    [0.25, 0.25]
    """

    biased: ClassVar[bool] = False

    def __call__(self, cost: OneCost, d: AbstractDistribution, *, key: PRNGKeyArray) -> Scalar:
        logits = logits_of(d)
        classes = logits.shape[-1]
        flat = logits.reshape(-1, classes)
        code = jr.categorical(key, flat)
        at = lambda codes: value_of(d, jax.nn.one_hot(codes, classes, dtype=flat.dtype).reshape(logits.shape))  # noqa: E731
        value = cost(at(code))
        # the other classes are the drawn one plus 1, 2, ..., modulo their number
        cells, steps = jnp.meshgrid(jnp.arange(code.size), jnp.arange(1, classes), indexing="ij")

        def changed(cell: Array, step: Array) -> Float[Array, ""]:
            return cost(at(code.at[cell].set((code[cell] + step) % classes)))

        others = jax.vmap(jax.vmap(changed))(cells, steps)
        costs = jnp.concatenate([jnp.broadcast_to(value, (code.size, 1)), others], axis=1)
        share = zero(jax.nn.softmax(flat))
        turned = jnp.take_along_axis(share, (code[:, None] + jnp.arange(classes)[None, :]) % classes, axis=1)
        return value + jnp.sum(stop_gradient(costs) * turned)

    def refuses(self, d: AbstractDistribution) -> str | None:
        return not_classes(d)

    def calls(self, d: AbstractDistribution) -> int:
        logits = logits_of(d)
        return 1 + logits.size - logits.size // logits.shape[-1]


def _unlisted(d: AbstractDistribution) -> str | None:
    if not isinstance(d, AbstractDiscrete):
        return "its values cannot be listed"
    try:
        _states(d)
    except ValueError as error:
        return str(error).rstrip(".")
    return None


def _states(d: AbstractDistribution) -> int:
    return jax.eval_shape(d.support).shape[0]  # pyright: ignore[reportAttributeAccessIssue]
