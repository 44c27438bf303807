"""Several starts, each learned from until nothing is gained any more, and the best of what they led to."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from ravine.core import AbstractConjugate, Row, Scalar, weights


class BestOf(eqx.Module):
    """What expectation-maximisation makes of ``count`` starts, the one of highest likelihood (plus `log_penalty`).

    Only one start leads where it leads, and no run from it is made here. A start that ends in what is no number is
    never the best, unless all do.

    Parameters
    ----------
    start : ``start(batch, key=key)``, a conjugate model before learning.
    count : how many starts are tried.
    tol : a run is over when the mean log-likelihood rises by less than this many nats.
    iterations : passes over the rows at most.

    Examples
    --------
    >>> import jax.random as jr
    >>> from ravine.models.families import Diagonal, MixtureStart, Spread
    >>> batch = Row(jr.normal(jr.key(0), (40, 2)), weight=jnp.ones(40))
    >>> best = BestOf(MixtureStart(Spread(), Diagonal(), 2), count=3)
    >>> best(batch, key=jr.key(1)).components.size()
    2
    """

    start: Callable[..., AbstractConjugate] = eqx.field(static=True)
    count: int = eqx.field(static=True, default=1)
    tol: float = eqx.field(static=True, default=1e-3)
    iterations: int = eqx.field(static=True, default=200)

    def __call__(self, batch: Row, *, key: PRNGKeyArray) -> AbstractConjugate:
        if self.count == 1:
            return self.start(batch, key=key)
        static = eqx.filter_eval_shape(lambda: self.start(batch, key=key))
        static = eqx.partition(static, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))[1]

        def run(key: PRNGKeyArray) -> tuple[PyTree[Array], Scalar]:
            model, objective = self._learned(self.start(batch, key=key), batch)
            return eqx.filter(model, eqx.is_array), objective

        arrays, objective = jax.lax.map(run, jax.random.split(key, self.count))
        best = jnp.argmax(jnp.where(jnp.isfinite(objective), objective, -jnp.inf))
        return eqx.combine(jax.tree.map(lambda leaf: leaf[best], arrays), static)

    def _learned(self, model: AbstractConjugate, batch: Row) -> tuple[AbstractConjugate, Scalar]:
        """The model where learning ends, and what was gained last: log p(rows) plus penalty per unit of weight."""
        arrays, static = eqx.partition(model, eqx.is_array)
        total = jnp.sum(weights(batch))

        def goes_on(state: tuple) -> Array:
            _, now, before, passes = state
            return (now - before >= self.tol) & (passes < self.iterations)

        def once(state: tuple) -> tuple:
            model, now, _, passes = eqx.combine(state[0], static), *state[1:]
            statistics, evidence = model.expected(batch)
            after = eqx.filter(model.maximise(statistics), eqx.is_array)
            return after, (evidence + model.log_penalty()) / total, now, passes + 1

        never = jnp.full((), -jnp.inf, total.dtype)
        start = once((arrays, never, never, jnp.array(0)))
        arrays, objective, *_ = jax.lax.while_loop(goes_on, once, start)
        return eqx.combine(arrays, static), objective
