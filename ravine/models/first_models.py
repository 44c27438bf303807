"""Where learning starts from an untrained model: sequences from their steps as rows, classes from rows of any cells."""

from __future__ import annotations

from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine._check import complaint
from ravine._tree import Fixed
from ravine.core import Row, weights
from ravine.models.components import AbstractComponents
from ravine.models.discrete_components import BitComponents, CodeComponents, CountComponents, MixedComponents
from ravine.models.families import AbstractFamily, some_rows
from ravine.models.hidden_markov import HiddenMarkov
from ravine.models.linear_dynamical import LinearDynamical
from ravine.models.linear_gaussian import AbstractNoise
from ravine.models.mixture import Mixture
from ravine.models.restarts import BestOf
from ravine.models.starts import nearest_seeds

OF_CELLS = (BitComponents, CodeComponents, CountComponents)


def laws_of(schema: Any, family: AbstractFamily, smoothing: float, k: int, parts: int = 1) -> AbstractComponents:
    """``k`` equal laws of one step for the cells that a schema tells of, each a mixture of so many parts.

    Read are its ``kind``, its ``width``, and for discrete cells ``levels`` and ``base``.
    """
    laws = _laws(schema, family, smoothing, k * parts)
    return laws if parts == 1 else MixedComponents(jnp.zeros((k, parts)), laws)


def _laws(schema: Any, family: AbstractFamily, smoothing: float, k: int) -> AbstractComponents:
    d, prior = schema.width, Fixed(float(smoothing))
    if schema.kind == "binary":
        return BitComponents(jnp.zeros((k, d)), prior)
    if schema.kind == "levels":
        return CodeComponents(jnp.zeros((k, d, schema.levels)), prior)
    if schema.kind == "count":
        typical = jnp.maximum(jnp.asarray(schema.base, jnp.asarray(0.0).dtype), 1e-3)
        return CountComponents(jnp.broadcast_to(jnp.log(typical), (k, d)), prior, Fixed(typical))
    if schema.kind == "real":
        return family(Row(jnp.zeros((2, d)), weight=jnp.ones(2)), k)
    do = "leave out the other columns"
    raise complaint("laws of states or classes", "columns of one kind", schema.describe(), do)


class HiddenStart(eqx.Module):
    """What turns an untrained hidden Markov model into one that learning starts from: steps that lie close together.

    Each state begins with the steps nearest to one of several that were drawn far apart, and each part of a state in
    the same way among its steps. Of ``count`` starts the one that leads to the highest likelihood is taken.
    """

    family: AbstractFamily = eqx.field(static=True)
    count: int = eqx.field(static=True, default=1)
    tol: float = eqx.field(static=True, default=1e-3)
    iterations: int = eqx.field(static=True, default=200)
    rows: int = eqx.field(static=True, default=10_000)

    def __call__(self, model: HiddenMarkov, source, *, key: PRNGKeyArray) -> HiddenMarkov:
        return _hidden(self, model, some_rows(source, self.rows), key)

    def one(self, model: HiddenMarkov, batch: Row, key: PRNGKeyArray) -> HiddenMarkov:
        """A start by chance."""
        steps, k = _as_rows(batch), model.start.size
        first, second = jax.random.split(key)
        shares = nearest_seeds(steps, k, key=first)
        laws = self._fresh(model.components, steps)
        shares = _softened(shares) if isinstance(laws, OF_CELLS) else shares
        if isinstance(laws, MixedComponents):
            laws = _mixed(laws, steps, shares, second)
        return HiddenMarkov.from_responsibilities(batch, shares.reshape(*batch.x.shape[:2], k), laws)

    def _fresh(self, laws: AbstractComponents, steps: Row) -> AbstractComponents:
        if isinstance(laws, MixedComponents):
            return MixedComponents(laws.logits, self._fresh(laws.parts, steps))
        return laws if isinstance(laws, OF_CELLS) else self.family(steps, laws.size())


@eqx.filter_jit
def _hidden(start: HiddenStart, model: HiddenMarkov, batch: Row, key: PRNGKeyArray) -> HiddenMarkov:
    one = lambda batch, *, key: start.one(model, batch, key)  # noqa: E731
    return cast(HiddenMarkov, BestOf(one, start.count, start.tol, start.iterations)(batch, key=key))


def _softened(groups: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """Shares of a quarter spread over all groups: a value that a whole group lacks would be impossible for ever."""
    return 0.75 * groups + 0.25 / groups.shape[1]


def _mixed(laws: MixedComponents, steps: Row, shares: Float[Array, "n k"], key: PRNGKeyArray) -> MixedComponents:
    """Laws whose parts have learned from the steps nearest to each, of those of their state."""
    k, m = laws.logits.shape
    own = lambda share, key: nearest_seeds(_weighing(steps, weights(steps) * share), m, key=key)  # noqa: E731
    groups = jax.vmap(own, in_axes=(1, 0), out_axes=1)(shares, jax.random.split(key, k))
    parts = (weights(steps)[:, None, None] * shares[:, :, None] * groups).reshape(-1, k * m)
    _, collect = laws.parts.evaluate(steps)
    return MixedComponents(laws.logits, laws.parts.maximise(collect(parts), jnp.sum(parts, axis=0)))


def _as_rows(batch: Row) -> Row:
    """Every step as a row; those that do not exist, and those where nothing was seen, have no weight."""
    n, t, d = batch.x.shape
    there = jnp.ones((n, t), bool) if batch.length is None else jnp.arange(t)[None] < batch.length[:, None]
    told = there if batch.mask is None else there & jnp.any(batch.mask, axis=-1)
    weight = jnp.where(told, weights(batch)[:, None], 0).reshape(-1)
    mask = None if batch.mask is None else batch.mask.reshape(n * t, d)
    return Row(jnp.where(there[..., None], batch.x, 0).reshape(n * t, d), mask, weight=weight)


def _weighing(rows: Row, weight: Float[Array, " n"]) -> Row:
    return eqx.tree_at(lambda r: r.weight, rows, weight)


class ClassStart(eqx.Module):
    """What turns an untrained mixture of laws of cells into one that learning starts from: rows that are near.

    Of ``count`` starts the one that leads to the highest likelihood is taken.
    """

    count: int = eqx.field(static=True, default=1)
    tol: float = eqx.field(static=True, default=1e-3)
    iterations: int = eqx.field(static=True, default=200)
    rows: int = eqx.field(static=True, default=10_000)

    def __call__(self, model: Mixture, source, *, key: PRNGKeyArray) -> Mixture:
        return _classes(self, model, some_rows(source, self.rows), key)


@eqx.filter_jit
def _classes(start: ClassStart, model: Mixture, batch: Row, key: PRNGKeyArray) -> Mixture:
    def one(batch: Row, *, key: PRNGKeyArray) -> Mixture:
        groups = _softened(nearest_seeds(batch, model.logits.size, key=key))
        return Mixture.from_responsibilities(batch, groups, model.components)

    return cast(Mixture, BestOf(one, start.count, start.tol, start.iterations)(batch, key=key))


class DynamicalStart(eqx.Module):
    """What turns an untrained linear dynamical system into one that learning starts from; see `from_moments`."""

    noise: type[AbstractNoise] = eqx.field(static=True)
    rows: int = eqx.field(static=True, default=10_000)

    def __call__(self, model: LinearDynamical, source, *, key: PRNGKeyArray) -> PyTree:
        return _dynamical(some_rows(source, self.rows), model.initial.location.size, self.noise)


@eqx.filter_jit
def _dynamical(batch: Row, k: int, noise: type[AbstractNoise]) -> LinearDynamical:
    return LinearDynamical.from_moments(batch, k, noise)
