"""Laws on top of a net that are normalised: draws of them take one step, and their log Z is 0."""

from __future__ import annotations

import abc
from typing import Any, Self, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractDistribution, AbstractEnergy, Row, Scalar
from ravine.dist import Bernoulli, OneHot
from ravine.kernels import Gibbs
from ravine.models.labelled_energy import energy_beside
from ravine.models.units import SoftmaxUnits

Bits = Float[Array, " units"]
Label = Float[Array, " classes"]
Position = tuple[Bits, Label]


class AbstractNormalisedTop(AbstractEnergy):
    r"""A label and the bits that it tells of, :math:`p(y) \prod_j p(h_j \mid y)`. A position is (bits, one-hot label).

    Every step of a chain is a draw of its own.
    """

    label: eqx.AbstractVar[SoftmaxUnits]
    sweeps: eqx.AbstractVar[int]

    @abc.abstractmethod
    def bits_given(self, label: Label) -> AbstractDistribution:
        """p(h | y)."""

    @abc.abstractmethod
    def label_logits(self, h: Any) -> Label:
        """log p(y | h) up to a constant, h being what the way up gives."""

    @abc.abstractmethod
    def cells_energy(self, h: Any) -> Scalar:
        """Minus the log of the law of what the way up gives."""

    @abc.abstractmethod
    def told(self, h: Any, row: Row) -> Any:
        """The topmost states of a row, of which the way up has drawn ``h``."""

    @abc.abstractmethod
    def telling(self, layers: tuple) -> tuple:
        """The layers below, of which only those learn that tell the label."""

    @abc.abstractmethod
    def row_energy(self, h: Any, row: Row) -> Scalar:
        """The energy of the topmost states of a row beside its label."""

    def energy(self, position: Position) -> Scalar:
        h, y = position
        return -self.bits_given(y).log_prob(h) - self.labels().log_prob(y)

    def labels(self) -> OneHot:
        """p(y)."""
        return OneHot(cast(Array, self.label.bias))

    def kernel(self, row: Row | None = None) -> Gibbs:
        return Gibbs(self, row)

    def swept(self, position: Position, row: Row | None, *, key: PRNGKeyArray) -> Position:
        """A draw; given a row, of what it does not hold."""
        first, second = jr.split(key)
        y = self.labels().sample(key=first)
        y = y if row is None else row.clamp((position[0], y))[1]
        drawn = self.bits_given(y).sample(key=second), y
        return drawn if row is None else row.clamp(drawn)

    def at(self, beta: Scalar) -> Self:
        return self

    def start(self, *, key: PRNGKeyArray) -> Position:
        first, second = jr.split(key)
        y = self.labels().sample(key=first)
        return self.bits_given(y).sample(key=second), y

    def log_start(self, row: Row | None = None) -> Scalar:
        if row is None:
            return jnp.zeros(())
        (h, y), (seen, known) = row.x, row.mask
        every = jnp.eye(y.shape[0], dtype=y.dtype)
        each = jax.vmap(lambda label: self.labels().log_prob(label) + self.bits_given(label).log_prob(h, seen))(every)
        return jax.nn.logsumexp(jnp.where(~known | jnp.all(every == y[None], axis=1), each, -jnp.inf))

    def bits(self) -> float:
        """log2 of the number of states that `log_partition` lists: it lists none."""
        return 0.0

    def log_partition(self) -> Scalar:
        """0: the law is normalised."""
        return jnp.zeros(())

    def given(self, label: Label) -> Gibbs:
        """A kernel of the bits given a label."""
        blank = jnp.zeros_like(self.bits_given(label).mean())
        return self.kernel(Row((blank, label), mask=(jnp.zeros(blank.shape, bool), jnp.array(True))))

    def made_from(self, h: Any, label: Label, *, key: PRNGKeyArray) -> Any:
        """What a way down of a label begins with; where the way up has led from noise makes no difference."""
        return self.shown((self.bits_given(label).sample(key=key), label))


class PerClass(AbstractNormalisedTop):
    """Bits that are independent given the label, each with a rate of its own for each label.

    Parameters
    ----------
    logits : of the bits for each label, shape (classes, units).
    label : the units of the label.
    """

    logits: Float[Array, "classes units"]
    label: SoftmaxUnits
    sweeps: int = eqx.field(static=True, default=1, kw_only=True)

    def bits_given(self, label: Label) -> AbstractDistribution:
        return Bernoulli(label @ self.logits)

    def label_logits(self, h: Bits) -> Label:
        each = jax.vmap(lambda logits: h @ logits - jnp.sum(jax.nn.softplus(logits)))(self.logits)
        return cast(Array, self.label.bias) + each

    def cells_energy(self, h: Bits) -> Scalar:
        return jax.nn.logsumexp(cast(Array, self.label.bias)) - jax.nn.logsumexp(self.label_logits(h))

    def row_energy(self, h: Bits, row: Row) -> Scalar:
        return energy_beside(self, h, row)

    def lifted(self, row: Row) -> Row:
        return Row((row.x, self.label.blank()), mask=(jnp.ones(row.x.shape, bool), jnp.array(False)))

    def shown(self, position: Position) -> Bits:
        return position[0]

    def told(self, h: Bits, row: Row) -> Bits:
        return h

    def telling(self, layers: tuple) -> tuple:
        return stop_gradient(layers)


class Factorised(AbstractNormalisedTop):
    """Bits and a label, all independent: the label is one more unit of the layer, and acts on the one below.

    Parameters
    ----------
    logits : of the bits.
    label : the units of the label.
    """

    logits: Bits
    label: SoftmaxUnits
    sweeps: int = eqx.field(static=True, default=1, kw_only=True)

    def bits_given(self, label: Label) -> AbstractDistribution:
        return Bernoulli(self.logits)

    def label_logits(self, h: Position) -> Label:
        return jnp.log(jnp.maximum(h[1], jnp.finfo(h[1].dtype).tiny))

    def cells_energy(self, h: Position) -> Scalar:
        return self.energy(h)

    def row_energy(self, h: Position, row: Row) -> Scalar:
        return self.energy(h)

    def lifted(self, row: Row) -> Row:
        return row

    def shown(self, position: Position) -> Position:
        return position

    def told(self, h: Position, row: Row) -> Position:
        if row.y is None:
            return h
        y = jax.nn.one_hot(row.y, h[1].shape[0], dtype=h[1].dtype)
        return h[0], jnp.where(True if row.y_mask is None else row.y_mask, y, h[1])

    def telling(self, layers: tuple) -> tuple:
        return (*stop_gradient(layers[:-1]), layers[-1])
