"""Groups of units whose cells are not of one kind, or not independent: counts of words, several groups side by side."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, Self, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ravine._check import require
from ravine.core import AbstractDistribution, Scalar
from ravine.models.units import LEAST, AbstractCountable, AbstractUnits, Cells, Field, wide

AT_ONCE = 2**13  # states that are listed together


class Tally(AbstractDistribution):
    r"""How often each outcome comes in ``total`` draws of one softmax.

    .. math:: \log p(x) = \log \frac{n!}{\prod_i x_i!} + \sum_i x_i \log\mathrm{softmax}(l)_i
    """

    logits: Float[Array, " outcomes"]
    total: int = eqx.field(static=True)

    def sample(self, *, key: PRNGKeyArray) -> Array:
        drawn = jr.categorical(key, self.logits, shape=(self.total,))
        return jnp.zeros_like(self.logits).at[drawn].add(1)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        ways = gammaln(self.total + 1.0) - jnp.sum(gammaln(value + 1))
        log_p = ways + jnp.sum(value * jax.nn.log_softmax(self.logits))
        return log_p if mask is None else jnp.where(jnp.all(mask), log_p, 0.0)  # one cell: it is known, or not

    def mean(self) -> Array:
        return self.total * jax.nn.softmax(self.logits)


class CountUnits(AbstractUnits):
    r"""Counts that add up to ``total``, such as the words of a document: a replicated softmax.

    .. math:: U(x) = -b \cdot x - \log \frac{n!}{\prod_i x_i!}, \quad \Phi(f) = n \log \sum_i e^{b_i + f_i}

    The counts are one cell: all of them are known, or none. Salakhutdinov & Hinton 2009, *Replicated softmax*.
    """

    shape: tuple[int, ...] = eqx.field(static=True, default=())
    total: int = eqx.field(static=True, default=1)
    bias: Cells | None = None

    def sized(self, shape: tuple[int, ...], base: Float[Array | np.ndarray, "..."] | None = None) -> CountUnits:
        rate = jnp.ones(shape) if base is None else jnp.maximum(jnp.asarray(base).reshape(shape), LEAST**2)
        return CountUnits(shape, self.total, jnp.log(rate / jnp.sum(rate)))

    def statistic(self, x: Cells) -> Field:
        return x

    def energy(self, x: Cells) -> Cells:
        ways = gammaln(self.total + 1.0) - jnp.sum(gammaln(x + 1))
        return -jnp.sum(self._bias() * x) - ways

    def cumulant(self, field: Field) -> Cells:
        return self.total * jax.nn.logsumexp(self._bias() + field)

    def __call__(self, field: Field) -> Tally:
        return Tally(self._bias() + field, self.total)

    def mean(self, field: Field) -> Field:
        return self(field).mean()

    def blank(self) -> Cells:
        return jnp.zeros(self.shape)

    def towards(self, other: Any, share: Scalar) -> Self:
        return dataclasses.replace(self, bias=(1 - share) * self._bias() + share * other._bias())

    def _bias(self) -> Cells:
        return wide(self.bias, self.shape)


class Together(AbstractDistribution):
    """Independent laws; an event is a tuple."""

    laws: tuple[AbstractDistribution, ...]

    def sample(self, *, key: PRNGKeyArray) -> tuple[PyTree[Array], ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        keys = jr.split(key, len(self.laws))
        return tuple(law.sample(key=k) for law, k in zip(self.laws, keys, strict=True))

    def log_prob(self, value: tuple, mask: tuple | None = None) -> Scalar:  # pyright: ignore[reportIncompatibleMethodOverride]
        masks = (None,) * len(self.laws) if mask is None else mask
        return jnp.asarray(sum(law.log_prob(x, m) for law, x, m in zip(self.laws, value, masks, strict=True)))

    def mean(self) -> tuple:  # pyright: ignore[reportIncompatibleMethodOverride]
        return tuple(law.mean() for law in self.laws)


class Beside(AbstractCountable):
    """Groups side by side; a state is the tuple of theirs. It can be listed where all of them can."""

    groups: tuple[AbstractUnits, ...]

    def blank(self) -> tuple:
        return tuple(group.blank() for group in self.groups)

    def sized(self, shape: tuple, base: tuple | None = None) -> Beside:  # pyright: ignore[reportIncompatibleMethodOverride]
        bases = (None,) * len(self.groups) if base is None else base
        return dataclasses.replace(
            self, groups=tuple(g.sized(s, b) for g, s, b in zip(self.groups, shape, bases, strict=True))
        )

    def statistic(self, x: tuple) -> Field:
        return jnp.concatenate([group.statistic(part) for group, part in zip(self.groups, x, strict=True)])

    def energy(self, x: tuple) -> tuple:
        return tuple(group.energy(part) for group, part in zip(self.groups, x, strict=True))

    def cumulant(self, field: Field) -> tuple:
        return tuple(group.cumulant(part) for group, part in zip(self.groups, self._parts(field), strict=True))

    def __call__(self, field: Field) -> Together:
        return Together(tuple(group(part) for group, part in zip(self.groups, self._parts(field), strict=True)))

    def mean(self, field: Field) -> Field:
        parts = zip(self.groups, self._parts(field), strict=True)
        return jnp.concatenate([group.mean(part) for group, part in parts])

    def towards(self, other: Any, share: Scalar) -> Self:
        groups = tuple(a.towards(b, share) for a, b in zip(self.groups, other.groups, strict=True))
        return dataclasses.replace(self, groups=groups)

    def choices(self) -> tuple[int, ...]:
        return tuple(itertools.chain(*(group.choices() for group in self._listed())))

    def state(self, digits: Int[Array, " cells"]) -> tuple:
        groups = self._listed()
        parts = jnp.split(digits, np.cumsum([len(g.choices()) for g in groups])[:-1].tolist())
        return tuple(group.state(part) for group, part in zip(groups, parts, strict=True))

    def pushed(self, field: Field) -> Beside:
        parts = zip(self.groups, self._parts(field), strict=True)
        return dataclasses.replace(self, groups=tuple(group.pushed(part) for group, part in parts))

    def spread(self, cells: tuple) -> Field:
        return jnp.concatenate([group.spread(part) for group, part in zip(self.groups, cells, strict=True)])

    def _listed(self) -> list[AbstractCountable]:
        return [group for group in self.groups if isinstance(group, AbstractCountable)]

    def _parts(self, field: Field) -> list[Field]:
        return jnp.split(field, np.cumsum([group.size for group in self.groups])[:-1].tolist())


def state_count(units: AbstractUnits) -> float:
    """How many states units have, as a float, which does not overflow; infinity where they cannot be listed."""
    if isinstance(units, Beside):
        return math.prod(map(state_count, units.groups))
    return math.prod(map(float, units.choices())) if isinstance(units, AbstractCountable) else math.inf


def total(cells: PyTree[Float[Array, "..."]]) -> Scalar:
    """The sum of everything."""
    return sum((jnp.sum(leaf) for leaf in jax.tree.leaves(cells)), jnp.array(0.0))


def countable(units: AbstractUnits) -> AbstractCountable:
    """The units, if all of their states can be listed.

    Raises
    ------
    ValueError
        In one line, when they cannot.
    """
    got, do = type(units).__name__, "estimate it by annealing"
    known = isinstance(units, AbstractCountable) and not math.isinf(state_count(units))
    require(known, "an exact partition function", "a group of units of finitely many states", got, do)
    return cast(AbstractCountable, units)


def log_sum(units: AbstractCountable, value: Callable[[PyTree], Scalar], at_once: int = AT_ONCE) -> Scalar:
    """log of the sum of exp(value(state)) over all states of the units, some at a time."""
    choices = units.choices()
    count = math.prod(choices)
    strides = np.cumprod([1, *choices[:-1]])

    def block(top: Scalar, first: Int[Array, ""]) -> tuple[Scalar, None]:
        places = first + jnp.arange(min(at_once, count))
        digits = (places[:, None] // jnp.asarray(strides)[None]) % jnp.asarray(choices)[None]
        values = jax.vmap(lambda d: value(units.state(d)))(digits)
        return jnp.logaddexp(top, jax.nn.logsumexp(jnp.where(places < count, values, -jnp.inf))), None

    starts = jnp.arange(0, count, min(at_once, count))
    return jax.lax.scan(block, jnp.array(-jnp.inf), starts)[0]
