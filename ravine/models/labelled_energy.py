"""A restricted Boltzmann machine of rows and their labels. Larochelle & Bengio 2008."""

from __future__ import annotations

import dataclasses
from typing import Self, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from ravine.core import AbstractDistribution, AbstractEnergy, Row, Scalar
from ravine.dist import OneHot
from ravine.kernels import Gibbs
from ravine.models.energy import Harmonium
from ravine.models.unit_groups import Beside
from ravine.posteriors import Chain

Position = tuple[PyTree[Array], Float[Array, " classes"]]


class LabelledHarmonium(AbstractEnergy):
    """A harmonium whose visible units are those of a row beside one softmax group for its label.

    A position is (cells, one-hot label). The label of a row without one is summed out, or drawn.

    Parameters
    ----------
    pair : the harmonium; its visible units are ``Beside((units of the row, SoftmaxUnits of the label))``.
    """

    pair: Harmonium
    sweeps: int = eqx.field(static=True, default=1000, kw_only=True)

    def energy(self, position: Position) -> Scalar:
        return self.pair.energy(position)

    def lifted(self, row: Row) -> Row:
        classes = cast(Beside, self.pair.visible).groups[1].shape[0]
        blank = jnp.zeros(classes) if row.y is None else jax.nn.one_hot(row.y, classes)
        known = jnp.asarray(row.y is not None) if row.y_mask is None else row.y_mask
        seen = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), row.x) if row.mask is None else row.mask
        return dataclasses.replace(row, x=(row.x, blank), mask=(seen, known), y=None, y_mask=None)

    def shown(self, position: Position) -> PyTree[Array]:
        return position[0]

    def kernel(self, row: Row | None = None) -> Gibbs:
        return self.pair.kernel(row)

    def at(self, beta: Scalar) -> Self:
        return dataclasses.replace(self, pair=self.pair.at(beta))

    def start(self, *, key: PRNGKeyArray) -> Position:
        return self.pair.start(key=key)

    def log_start(self, row: Row | None = None) -> Scalar:
        return self.pair.log_start(row)

    def bits(self) -> float:
        """log2 of the number of states that `log_partition` lists."""
        return self.pair.bits()

    def log_partition(self) -> Scalar:
        """log Z in nats, exact, by listing states."""
        return self.pair.log_partition()

    def label_logits(self, x: PyTree[Array]) -> Float[Array, " classes"]:
        """log p(y | x) of each label up to a constant: the hidden units are summed out. Exact."""
        labels = jnp.eye(cast(Beside, self.pair.visible).groups[1].shape[0])
        return -jax.vmap(lambda y: self.pair.energy((x, y)))(labels)

    def posterior(self, row: Row) -> Chain:
        """p(y | x) and p(h | x, y); missing cells at their mean-field values. The latent is (label, hidden units)."""
        x = self.completed(row)
        return Chain(OneHot(self.label_logits(x)), (lambda y: self.pair.hidden.law(self.pair.up((x, y))),))

    def completed(self, row: Row) -> PyTree[Array]:
        """The cells of a row; the missing ones at what the mean field expects them to be."""
        if row.mask is None:
            return row.x
        group, known = cast(Beside, self.pair.visible).groups[0], self.lifted(row)
        hidden = self.pair.hidden.mean(self.pair.coupling.up(self.pair.filled(known)))
        field = self.pair.coupling.down(hidden)[: group.size]
        return row.clamp(group.law(field).mean())

    def likelihood(self, z: tuple[Array, PyTree[Array]], context: PyTree = None) -> AbstractDistribution:
        """p(x | h)."""
        group = cast(Beside, self.pair.visible).groups[0]
        return group.law(self.pair.down(z[1])[: group.size])

    def completable(self, row: Row) -> Bool[Array, ""]:
        """Whether a row lacks at most its label, and a few cells."""
        return self._cells().completable(_cells_of(row), 6.0)

    def completions(self, row: Row) -> tuple[Position, Bool[Array, " n"]]:
        """Every completion of a row that is `completable`, and which of them count once."""
        cells, once = self._cells().completions(_cells_of(row), 6.0)
        classes = row.x[1].shape[0]
        y, known = jnp.where(row.mask[1], row.x[1], jnp.eye(classes)), row.mask[1]
        first = ~known | (jnp.arange(classes) == 0)
        many, rows = once.shape[0], jnp.repeat(jnp.arange(once.shape[0]), classes)
        repeated = jax.tree.map(lambda leaf: leaf[rows], cells)
        return (repeated, jnp.tile(y, (many, 1))), jnp.repeat(once, classes) & jnp.tile(first, many)

    def _cells(self) -> Harmonium:
        """What lists the values of the cells: the same units without the label."""
        return dataclasses.replace(self.pair, visible=cast(Beside, self.pair.visible).groups[0])


def _cells_of(row: Row) -> Row:
    return Row(row.x[0], mask=row.mask[0])
