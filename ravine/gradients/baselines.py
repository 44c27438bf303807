"""Score-function gradients with a baseline that is learned: a running mean, and a network of the row (NVIL)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._tree import Running
from ravine.core import Row, Scalar
from ravine.gradients._classes import zero
from ravine.gradients.score import AbstractScore
from ravine.nets import MLP, tanh


class NVIL(AbstractScore):
    """``(f - c - b(x)) / max(1, s) grad log q``: a running mean c, a network b of the row, a running spread s.

    Mnih & Gregor 2014, arXiv:1402.0030, section 2.3. The network lowers the squared signal. Dividing by the spread s
    scales the gradient of q as a whole, and keeps its direction right on average. All three are learned where the
    estimator is part of what is trained (`Learned`); before that c = b = 0 and s = 1, a plain `ScoreFunction`.

    Parameters
    ----------
    k : number of draws.
    width : of the hidden layer of the network; 0 for a running mean alone.
    decay : of the running numbers, per step.
    normalise : divide by the spread.

    Examples
    --------
    >>> from ravine.dist import Bernoulli
    >>> import jax.random as jr
    >>> learned = NVIL(width=5).learning(4, (2,), key=jr.key(0)).given(Row(jnp.ones(4)))
    >>> float(learned(jnp.max, Bernoulli(jnp.full(2, 50.0)), key=jr.key(0)))
    1.0
    """

    k: int = eqx.field(static=True, default=1)
    width: int = eqx.field(static=True, default=100)
    decay: float = eqx.field(static=True, default=0.9)
    normalise: bool = eqx.field(static=True, default=True)
    net: MLP | None = None
    centre: Running | None = None
    spread: Running | None = None
    level: Float[Array, ""] | None = None

    def signals(self, costs: Float[Array, " k"]) -> Float[Array, " k"]:
        if self.centre is None or self.spread is None:
            return costs
        scale = jnp.sqrt(jnp.maximum(self.spread.value, 1.0)) if self.normalise else 1.0
        return (costs - self.centre.value - self._level()) / scale

    def lessons(self, costs: Float[Array, " k"]) -> Scalar:
        if self.centre is None or self.spread is None:
            return jnp.zeros((), costs.dtype)
        costs, signals = stop_gradient(costs), stop_gradient(self.signals(costs))
        off = jnp.mean((costs - self.centre.value - self._level()) ** 2)
        return self.centre.told(jnp.mean(costs)) + self.spread.told(off) - jnp.mean(signals) * zero(self._level())

    def given(self, row: Row) -> Self:
        if self.net is None:
            return self
        seen = row.x if row.mask is None else jax.tree.map(lambda x, m: jnp.where(m, x, 0), row.x, row.mask)
        x = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(seen)])
        return dataclasses.replace(self, level=self.net(x)[0])

    def learning(self, inputs: int, latents: Sequence[int], *, key: PRNGKeyArray) -> Self:
        net = MLP(inputs, 1, (self.width,), tanh, key=key) if self.width else None
        running = lambda start: Running(jnp.asarray(start), self.decay)  # noqa: E731
        return dataclasses.replace(self, net=net, centre=running(0.0), spread=running(1.0))

    def _level(self) -> Scalar:
        # of the type of the centre, so that single precision stays single
        none = jnp.zeros(()) if self.centre is None else jnp.zeros_like(self.centre.value)
        return none if self.level is None else self.level
