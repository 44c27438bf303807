"""The exact expectation over a discrete node, by listing its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ravine.core import AbstractDiscrete, AbstractDistribution, AbstractGradient, Scalar


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

    def __call__(self, cost: Callable[[Array], Scalar], d: AbstractDistribution, *, key: PRNGKeyArray) -> Scalar:
        values = d.support()  # pyright: ignore[reportAttributeAccessIssue]  (`refuses` has asked)
        mass = jnp.exp(jax.vmap(d.log_prob)(values))
        return mass @ jax.vmap(cost)(values)

    def refuses(self, d: AbstractDistribution) -> str | None:
        return None if isinstance(d, AbstractDiscrete) else "its values cannot be listed; use Pathwise()"
