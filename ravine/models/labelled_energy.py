"""A restricted Boltzmann machine of rows and their labels, and what it may learn from them.

Larochelle & Bengio 2008, *Classification using discriminative restricted Boltzmann machines*.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, Protocol, Self, cast, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from ravine.core import AbstractDistribution, AbstractEnergy, Metrics, Row, Scalar, walk, weights
from ravine.dist import OneHot
from ravine.kernels import Gibbs
from ravine.models.energy import AbstractCoupling, Harmonium
from ravine.models.unit_groups import Beside, total
from ravine.models.units import AbstractUnits, SoftmaxUnits
from ravine.posteriors import Chain

Position = tuple[PyTree[Array], Float[Array, " classes"]]
Positions = tuple[PyTree[Array], Float[Array, "n classes"]]
HIDDEN_BITS = 12.0  # of the hidden units that are listed for a label of a row with holes


class LabelledHarmonium(AbstractEnergy):
    r"""A harmonium whose visible units are those of a row beside one softmax group for its label.

    .. math::
        p(y \mid x) \propto \exp\bigl(b_y + \Phi_h(W^\top s(x) + U^\top e_y)\bigr)

    is exact, for any types of units. A position is (cells, one-hot label). The label of a row without one is summed
    out, or drawn.

    Parameters
    ----------
    pair : the harmonium; its visible units are ``Beside((units of the row, SoftmaxUnits of the label))``.
    sweeps : how many Gibbs sweeps make a draw.

    Examples
    --------
    >>> from ravine._tree import Fixed
    >>> from ravine.models.energy import Dense
    >>> from ravine.models.units import BinaryUnits
    >>> visible = Beside((BinaryUnits().sized((3,)), SoftmaxUnits().sized((2,))))
    >>> pair = Harmonium(visible, BinaryUnits().sized((4,)), Dense(jnp.zeros((5, 4))), Fixed(visible))
    >>> jax.nn.softmax(LabelledHarmonium(pair).label_logits(jnp.ones(3))).tolist()
    [0.5, 0.5]
    """

    pair: Harmonium
    sweeps: int = eqx.field(static=True, default=1000, kw_only=True)

    # --- the law of rows and labels

    @property
    def coupling(self) -> AbstractCoupling:
        """That of the harmonium."""
        return self.pair.coupling

    @property
    def cells(self) -> AbstractUnits:
        """The units of a row."""
        return cast(Beside, self.pair.visible).groups[0]

    @property
    def label(self) -> SoftmaxUnits:
        """The units of its label."""
        return cast(SoftmaxUnits, cast(Beside, self.pair.visible).groups[1])

    def energy(self, position: Position) -> Scalar:
        return self.pair.energy(position)

    def lifted(self, row: Row) -> Row:
        blank = self.label.blank()
        given = blank if row.y is None else jax.nn.one_hot(row.y, blank.shape[0], dtype=blank.dtype)
        if row.mask is None and row.y is not None and row.y_mask is None:
            return dataclasses.replace(row, x=(row.x, given))
        known = jnp.asarray(row.y is not None) if row.y_mask is None else row.y_mask
        seen = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), row.x) if row.mask is None else row.mask
        return dataclasses.replace(row, x=(row.x, given), mask=(seen, known))

    def shown(self, position: Position) -> PyTree[Array]:
        return position[0]

    def kernel(self, row: Row | None = None) -> Gibbs:
        return Gibbs(self, row)

    def swept(self, position: Position, row: Row | None, *, key: PRNGKeyArray) -> Position:
        """A sweep of the pair; given a row, its label is also drawn before and after, the hidden units summed out.

        Without that the label of a row, and its hidden units, would hold each other where they are.
        """
        if row is None:
            return self.pair.swept(position, None, key=key)
        before, between, after = jax.random.split(key, 3)
        position = self.pair.swept(self._relabelled(position, row, before), row, key=between)
        return self._relabelled(position, row, after)

    def _relabelled(self, position: Position, row: Row, key: PRNGKeyArray) -> Position:
        """With a draw of p(y | x) for the label, where the row holds none."""
        return row.clamp((position[0], OneHot(self.label_logits(position[0])).sample(key=key)))

    def at(self, beta: Scalar) -> Self:
        return dataclasses.replace(self, pair=self.pair.at(beta))

    def start(self, *, key: PRNGKeyArray) -> Position:
        return self.pair.start(key=key)

    def log_start(self, row: Row | None = None) -> Scalar:
        return self.pair.log_start(row)

    # --- labels

    def label_logits(self, x: PyTree[Array]) -> Float[Array, " classes"]:
        """log p(y | x) of each label up to a constant: the hidden units are summed out. Exact."""
        hidden = self.pair.hidden
        held = jax.vmap(lambda field: total(hidden.cumulant(field)))(self._fields(x))
        return held - jax.vmap(lambda y: total(self.label.energy(y)))(self._labels())

    def cells_energy(self, x: PyTree[Array]) -> Scalar:
        """The energy of a row, label and hidden units summed out."""
        return total(self.cells.energy(x)) - jax.nn.logsumexp(self.label_logits(x))

    def row_logits(self, row: Row) -> Float[Array, " classes"]:
        """log p(y | observed cells) up to a constant.

        Missing cells are summed out where the hidden units have at most 2^12 states; elsewhere they stand at what the
        mean field expects.
        """
        if row.mask is None or self.pair.hidden_bits() > HIDDEN_BITS:
            return self.label_logits(self.completed(row))
        known = (row.mask, jnp.array(True))
        return jax.vmap(lambda y: self.pair.log_unnormalised(Row((row.x, y), mask=known)))(self._labels())

    def posterior(self, row: Row) -> Chain:
        """p(y | x) and p(h | x, y), see `row_logits`; the latent is (label, hidden units)."""
        x = self.completed(row)
        return Chain(OneHot(self.row_logits(row)), (lambda y: self.pair.hidden(self.pair.up((x, y))),))

    def completed(self, row: Row) -> PyTree[Array]:
        """The cells of a row; the missing ones at what the mean field expects them to be."""
        if row.mask is None:
            return row.x
        hidden = self.pair.hidden.mean(self.pair.coupling.up(self.pair.filled(self.lifted(row))))
        return row.clamp(self.cells(self.pair.coupling.down(hidden)[: self.cells.size]).mean())

    def likelihood(self, z: tuple[Array, PyTree[Array]], context: PyTree = None) -> AbstractDistribution:
        """p(x | h)."""
        return self.cells(self.pair.down(z[1])[: self.cells.size])

    def receptive_fields(self) -> Float[Array, "hidden cells"]:
        """The field on the cells that each hidden statistic makes."""
        return self.pair.receptive_fields()[:, : self.cells.size]

    def made(self, label: Float[Array, " classes"], *, key: PRNGKeyArray) -> PyTree[Array]:
        """The mean of a row of a label given its hidden units, after a chain with the label held."""
        chain, last = jax.random.split(key)
        h = self.pair.hidden(self.pair.up(self.settled(self._held(label), key=chain))).sample(key=last)
        return self.likelihood((label, h)).mean()

    # --- on top of a net

    def given(self, label: Float[Array, " classes"]) -> Gibbs:
        """A kernel of the cells given a label."""
        return self.pair.kernel(self._held(label))

    def made_from(self, h: PyTree[Array], label: Float[Array, " classes"], *, key: PRNGKeyArray) -> PyTree[Array]:
        """The cells after a chain that begins at some, with the label held."""
        return walk(self.kernel(self._held(label)), (h, label), self.sweeps, key=key)[0]

    def told(self, h: PyTree[Array], row: Row) -> PyTree[Array]:
        """The topmost states of a row: what the way up has drawn."""
        return h

    def telling(self, layers: tuple) -> tuple:
        """The layers that learn when the machine alone learns to tell the label: none."""
        return jax.lax.stop_gradient(layers)

    def row_energy(self, h: PyTree[Array], row: Row) -> Scalar:
        """The energy of the cells beside the label of a row; where that is not known it is summed out."""
        return energy_beside(self, h, row)

    def _held(self, label: Float[Array, " classes"]) -> Row:
        blank = self.cells.blank()
        return Row(
            (blank, label), mask=(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, bool), blank), jnp.array(True))
        )

    # --- sums

    def bits(self) -> float:
        """log2 of the number of states that `log_partition` lists."""
        return self.pair.bits()

    def log_partition(self) -> Scalar:
        """log Z in nats, exact, by listing states."""
        return self.pair.log_partition()

    def hidden_bits(self) -> float:
        """log2 of the number of hidden states."""
        return self.pair.hidden_bits()

    def log_unnormalised(self, row: Row) -> Scalar:
        """log of the sum of exp(-E) over all hidden states, which are listed, and what the row does not hold."""
        return self.pair.log_unnormalised(row)

    def completable(self, row: Row) -> Bool[Array, ""]:
        """Whether a row lacks at most its label, and a few cells."""
        return self._unlabelled().completable(_cells_of(row), 6.0)

    def completions(self, row: Row) -> tuple[Positions, Bool[Array, " n"]]:
        """Every completion of a row that is `completable`, and which of them count once."""
        cells, once = self._unlabelled().completions(_cells_of(row), 6.0)
        classes = row.x[1].shape[0]
        y, known = jnp.where(row.mask[1], row.x[1], jnp.eye(classes)), row.mask[1]
        first = ~known | (jnp.arange(classes) == 0)
        many, rows = once.shape[0], jnp.repeat(jnp.arange(once.shape[0]), classes)
        repeated = jax.tree.map(lambda leaf: leaf[rows], cells)
        return (repeated, jnp.tile(y, (many, 1))), jnp.repeat(once, classes) & jnp.tile(first, many)

    def _unlabelled(self) -> Harmonium:
        """What lists the values of the cells: the same units without the label."""
        return dataclasses.replace(self.pair, visible=self.cells)

    def _labels(self) -> Float[Array, "classes classes"]:
        return jnp.eye(self.label.shape[0])

    def _fields(self, x: PyTree[Array]) -> Float[Array, "classes hidden"]:
        """The field on the hidden units under each label; what comes from the cells is computed once."""
        s, labels = self.cells.statistic(x), self._labels()
        common = self.coupling.up(jnp.concatenate([s, jnp.zeros(len(labels))]))
        own = jax.vmap(lambda y: self.coupling.up(jnp.concatenate([jnp.zeros_like(s), y])))(labels)
        return common[None] + own


@runtime_checkable
class Labelling(Protocol):
    """A law of cells and a label."""

    @property
    def label(self) -> SoftmaxUnits:
        """The units of the label."""
        ...

    def energy(self, position: Any, /) -> Scalar:
        """Minus the log of the unnormalised density of (cells, label)."""
        ...

    def cells_energy(self, x: Any, /) -> Scalar:
        """The same of the cells alone."""
        ...


def energy_beside(law: Labelling, h: PyTree[Array], row: Row) -> Scalar:
    """The energy of cells beside the label of a row; where that is not known it is summed out."""
    alone = law.cells_energy(h)
    if row.y is None:
        return alone
    y = jax.nn.one_hot(row.y, law.label.shape[0], dtype=alone.dtype)
    return jnp.where(True if row.y_mask is None else row.y_mask, law.energy((h, y)), alone)


def _cells_of(row: Row) -> Row:
    return Row(row.x[0], mask=row.mask[0])


# What is lowered. Positions are (cells, labels); a row keeps its ``y`` and ``y_mask``, which say whether its label was
# given, or drawn to fill the position.


class AbstractLabelContrast(eqx.Module):
    """A loss of rows, some with labels, and of positions to tell them from; a `ravine.objectives.ContrastObjective`."""

    @abc.abstractmethod
    def __call__(
        self, model: LabelledHarmonium, batch: Row, negatives: Positions, *, key: PRNGKeyArray
    ) -> tuple[Scalar, Metrics]: ...


class LabelGenerative(AbstractLabelContrast):
    r"""Mean energy of the data less that of the negatives; the label of a row without one is summed out.

    Its slope is that of :math:`-\log p(x, y)` for rows with a label and of :math:`-\log p(x)` for others, where the
    negatives are draws of the model.

    Parameters
    ----------
    decay : weight of half the sum of the squared weights.
    """

    decay: float = 0.0

    def __call__(
        self, model: LabelledHarmonium, batch: Row, negatives: Positions, *, key: PRNGKeyArray
    ) -> tuple[Scalar, Metrics]:
        return _contrast(model, batch, negatives, self.decay)


class LabelDiscriminative(AbstractLabelContrast):
    r"""Minus the mean of :math:`\log p(y \mid x)` of the labels that are known, in nats; it needs no negatives."""

    def __call__(
        self, model: LabelledHarmonium, batch: Row, negatives: Positions, *, key: PRNGKeyArray
    ) -> tuple[Scalar, Metrics]:
        return _untold(model, batch)


class LabelHybrid(AbstractLabelContrast):
    """`LabelDiscriminative`, and ``share`` of `LabelGenerative`: a regulariser of the first that looks at all rows.

    Parameters
    ----------
    share : weight of the generative loss.
    decay : as in `LabelGenerative`.
    """

    share: float = 0.01
    decay: float = 0.0

    def __call__(
        self, model: LabelledHarmonium, batch: Row, negatives: Positions, *, key: PRNGKeyArray
    ) -> tuple[Scalar, Metrics]:
        untold, first = _untold(model, batch)
        contrast, second = _contrast(model, batch, negatives, self.decay)
        return untold + self.share * contrast, first | second


def _contrast(
    model: LabelledHarmonium, batch: Row, negatives: Positions, decay: float | Array
) -> tuple[Scalar, Metrics]:
    value = jnp.where(_known(batch), jax.vmap(model.energy)(batch.x), jax.vmap(model.cells_energy)(batch.x[0]))
    data, other = _mean(value, weights(batch)), jnp.mean(jax.vmap(model.energy)(negatives))
    squares = [jnp.sum(leaf**2) for leaf in jax.tree.leaves(eqx.filter(model.coupling, eqx.is_inexact_array))]
    penalty = 0.5 * decay * sum(squares, jnp.array(0.0))
    return data - other + penalty, {"energy_data": data, "energy_model": other}


def _untold(model: LabelledHarmonium, batch: Row) -> tuple[Scalar, Metrics]:
    cells, labels = batch.x
    log_p = jax.vmap(lambda x: jax.nn.log_softmax(model.label_logits(x)))(cells)
    told = _mean(jnp.sum(labels * log_p, axis=-1), weights(batch) * _known(batch))
    return -told, {"log_label": told}


def _known(batch: Row) -> Bool[Array, " n"]:
    rows = batch.x[1].shape[0]
    if batch.y is None:
        return jnp.zeros(rows, bool)
    return jnp.ones(rows, bool) if batch.y_mask is None else batch.y_mask


def _mean(value: Float[Array, " n"], weight: Float[Array, " n"]) -> Scalar:
    return weight @ value / jnp.maximum(jnp.sum(weight), jnp.finfo(value.dtype).tiny)
