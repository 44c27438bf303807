"""Coupled pairs: a recogniser and a generator of logistic layers whose weights are each other's transpose.

Flach, Shekhovtsov & Fikar 2017, *Generative learning for deep networks*, arXiv:1709.08524.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PRNGKeyArray

from ravine.models.deep_belief import AbstractTwoWay, DeepBelief, Tied, Top, TwoWay, Weights, blank_top
from ravine.models.tops import Factorised, PerClass
from ravine.models.unit_groups import Beside
from ravine.models.units import AbstractUnits, BinaryUnits, SoftmaxUnits

Pairing = Literal["transposed", "separate"]
PAIRINGS: dict[str, Callable[[AbstractUnits, AbstractUnits, Weights], AbstractTwoWay]] = {
    "transposed": Tied,
    "separate": lambda lower, upper, weight: TwoWay(lower, upper, weight, weight),
}


class AbstractOnTop(eqx.Module):
    """What is on top of a coupled pair: the law of its topmost bits, and of the label."""

    @abc.abstractmethod
    def upper(self, units: int, classes: int) -> AbstractUnits:
        """The units of the topmost layer."""

    @abc.abstractmethod
    def law(self, units: int, classes: int, sweeps: int, *, key: PRNGKeyArray) -> Top:
        """The law of their states, before anything is learned."""


class AssociativeMemory(AbstractOnTop):
    """A restricted Boltzmann machine of the topmost bits beside the label. Hinton, Osindero & Teh 2006.

    Parameters
    ----------
    hidden : its hidden units.
    """

    hidden: int = eqx.field(static=True, default=500)

    def upper(self, units: int, classes: int) -> AbstractUnits:
        return BinaryUnits().sized((units,))

    def law(self, units: int, classes: int, sweeps: int, *, key: PRNGKeyArray) -> Top:
        return blank_top(units, self.hidden, classes, sweeps, key=key)


class ClassMeans(AbstractOnTop):
    """The topmost bits are independent, each with a rate for each label."""

    def upper(self, units: int, classes: int) -> AbstractUnits:
        return BinaryUnits().sized((units,))

    def law(self, units: int, classes: int, sweeps: int, *, key: PRNGKeyArray) -> Top:
        logits = 0.01 * jr.normal(key, (classes, units))
        return PerClass(logits=logits, label=SoftmaxUnits().sized((classes,)))


class Independent(AbstractOnTop):
    """The topmost bits are independent, and the label is one more unit beside them."""

    def upper(self, units: int, classes: int) -> AbstractUnits:
        return Beside((BinaryUnits().sized((units,)), SoftmaxUnits().sized((classes,))))

    def law(self, units: int, classes: int, sweeps: int, *, key: PRNGKeyArray) -> Top:
        return Factorised(logits=jnp.zeros(units), label=SoftmaxUnits().sized((classes,)))


def coupled_net(
    lowest: AbstractUnits,
    sizes: tuple[int, ...],
    on_top: AbstractOnTop,
    classes: int,
    sweeps: int,
    pairing: Pairing = "transposed",
    *,
    key: PRNGKeyArray,
) -> DeepBelief:
    """A coupled pair of so many bits above the lowest units, with small weights.

    Examples
    --------
    >>> from ravine.core import Row
    >>> net = coupled_net(BinaryUnits().sized((4,)), (3,), Independent(), 2, 1, key=jr.key(0))
    >>> [leaf.shape for leaf in net.posterior(Row(jnp.ones(4))).mean()[0]]
    [(3,), (2,)]
    """
    layers, lower, *keys = [], lowest, *jr.split(key, len(sizes) + 1)
    for i, size in enumerate(sizes):
        last = i == len(sizes) - 1
        upper = on_top.upper(size, classes) if last else BinaryUnits().sized((size,))
        weight = 0.01 * jr.normal(keys[i], (lower.size, upper.size))
        layers.append(PAIRINGS[pairing](lower, upper, weight))
        lower = upper
    return DeepBelief(tuple(layers), on_top.law(sizes[-1], classes, sweeps, key=keys[-1]))
