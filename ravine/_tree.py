"""Trees of arrays: which part of a model a rule may touch, what stays fixed, and numbers that change with the step."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, PyTree, UInt32


class Fixed(eqx.Module):
    """A subtree that no rule may change: constants of a model, such as a standard normal prior.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> parameters, rest = trainable(Fixed(jnp.ones(2)))
    >>> jax.tree.leaves(parameters)
    []
    """

    value: Any


def unfix(tree: PyTree) -> PyTree:
    """What a `Fixed` holds; anything else as it is."""
    return tree.value if isinstance(tree, Fixed) else tree


def held(tree: PyTree, fixed: bool) -> PyTree:
    """The subtree, in a `Fixed` if no rule may change it."""
    return Fixed(tree) if fixed else tree


class AbstractMoved(eqx.Module):
    """Numbers that obey no optimiser: `ravine.rules.Descend` moves them by a step of their own."""

    @abc.abstractmethod
    def moved(self, gradient: Any) -> Self:
        """What is to be added to them after a step, given the gradient of the loss."""


class Running(AbstractMoved):
    """Numbers that follow the mean of what they are told: an exponential moving average, of weight ``decay`` per step.

    They are told by a term of the loss, `told`; `ravine.rules.Descend` moves them by a plain step, whatever its
    optimiser.
    """

    value: Float[Array, "..."]
    decay: float = eqx.field(static=True, default=0.9)

    def told(self, mean: Float[Array, "..."]) -> Float[Array, ""]:
        """A term of value 0 whose gradient leads to ``mean``."""
        away = jax.lax.stop_gradient(self.value - mean)
        return jnp.sum(away * (self.value - jax.lax.stop_gradient(self.value)))

    def moved(self, gradient: Running) -> Running:
        """What is to be added to it after a step, given the gradient of the loss."""
        return Running((self.decay - 1) * gradient.value, self.decay)


class Steered(AbstractMoved):
    """A number that moves up by ``rate`` while a mean count is below ``target``, else down, but never below 0.

    ``mean`` follows the mean count per sample of each step with weight ``decay``. The counts come as its gradient, from
    a function with a backward pass of its own, see `counted`: their weights in the loss do not matter.
    """

    value: Float[Array, ""]
    mean: Float[Array, ""]
    target: float = eqx.field(static=True, default=1.0)
    rate: float = eqx.field(static=True, default=1e-4)
    decay: float = eqx.field(static=True, default=0.9)

    def counted(self, samples: Array, count: Array) -> Steered:
        """The gradient that tells it of so many samples and what was counted in them all."""
        heard = jnp.asarray(samples, self.value.dtype)
        return dataclasses.replace(self, value=heard, mean=jnp.asarray(count, self.mean.dtype) * heard)

    def moved(self, gradient: Steered) -> Steered:
        """What is to be added to it after a step that has counted."""
        samples, seen = gradient.value, gradient.value > 0
        mean = self.decay * self.mean + (1 - self.decay) * gradient.mean / jnp.maximum(samples, 1)
        value = jnp.maximum(self.value + jnp.where(mean < self.target, self.rate, -self.rate), 0)
        still = lambda new, old: jnp.where(seen, new - old, 0)  # noqa: E731
        return dataclasses.replace(self, value=still(value, self.value), mean=still(mean, self.mean))


def is_running(node: Any) -> bool:
    """True for numbers that move by a step of their own."""
    return isinstance(node, AbstractMoved)


def trainable(tree: PyTree) -> tuple[PyTree, PyTree]:
    """Split a tree in the floating-point arrays a rule may change, and the rest."""
    return eqx.partition(tree, eqx.is_inexact_array, is_leaf=lambda node: isinstance(node, Fixed))


class Whole(eqx.Module):
    """The whole model: what a rule touches unless told otherwise."""

    def get(self, model: PyTree) -> PyTree:
        """The part of the model that is selected."""
        return model

    def set(self, model: PyTree, part: PyTree) -> PyTree:
        """The model with the selected part replaced."""
        return part


class Part(eqx.Module):
    """The part of a model at an attribute path, such as ``Part("p")`` or ``Part("q.net")``.

    Examples
    --------
    >>> Part("value").get(Fixed(3))
    3
    """

    path: str = eqx.field(static=True)

    def get(self, model: PyTree) -> PyTree:
        """The part of the model that is selected."""
        return functools.reduce(getattr, self.path.split("."), model)

    def set(self, model: PyTree, part: PyTree) -> PyTree:
        """The model with the selected part replaced."""
        return eqx.tree_at(self.get, model, part, is_leaf=lambda node: node is None)


class Layer(eqx.Module):
    """The i-th layer of a model that keeps its layers in a tuple called ``layers``."""

    index: int = eqx.field(static=True)

    def get(self, model: PyTree) -> PyTree:
        """The layer."""
        return model.layers[self.index]

    def set(self, model: PyTree, part: PyTree) -> PyTree:
        """The model with that layer replaced."""
        return eqx.tree_at(self.get, model, part)


class AbstractSchedule(eqx.Module):
    """A number that changes with the step; a leaf of the part that holds it."""

    @abc.abstractmethod
    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The number at this step; steps count from 0."""


class Linear(AbstractSchedule):
    """From ``start`` to ``stop`` in a straight line over ``steps`` steps, then constant.

    Examples
    --------
    >>> float(Linear(0.0, 1.0, 100.0)(jnp.array(50)))
    0.5
    """

    start: float
    stop: float
    steps: float

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The number at this step."""
        return self.start + (self.stop - self.start) * jnp.clip(step / self.steps, 0.0, 1.0)


class Decay(AbstractSchedule):
    """``max(floor, start * exp(-rate * step))``."""

    rate: float
    floor: float = 0.0
    start: float = 1.0

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The number at this step."""
        return jnp.maximum(self.floor, self.start * jnp.exp(-self.rate * step))


class Power(AbstractSchedule):
    """``start * (step + 1) ** exponent``: the step sizes of stochastic approximation.

    Examples
    --------
    >>> float(Power(-0.5)(jnp.array(3)))
    0.5
    """

    exponent: float
    start: float = 1.0

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The number at this step."""
        return jnp.asarray(self.start * (step + 1.0) ** self.exponent)


class Staircase(AbstractSchedule):
    """``start * factor ** k`` where k counts the boundaries ``first * ratio**i`` summed so far.

    With ``first=1, ratio=3`` the boundaries lie after 1, 4, 13, 40, ... units of ``unit`` steps.
    """

    start: float
    factor: float
    unit: float
    ratio: float = 3.0

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The number at this step."""
        # sum_{i<k} ratio^i = (ratio^k - 1) / (ratio - 1) units have passed when the k-th boundary is reached
        passed = jnp.log1p((self.ratio - 1.0) * step / self.unit) / jnp.log(self.ratio)
        return self.start * self.factor ** jnp.floor(passed + 1e-6)


class Cosine(AbstractSchedule):
    """From ``start`` down to ``stop`` along half a cosine over ``steps`` steps."""

    start: float
    steps: float
    stop: float = 0.0

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The number at this step."""
        share = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(step / self.steps, 0.0, 1.0)))
        return self.stop + (self.start - self.stop) * share


def resolve(tree: PyTree, step: Int[Array, ""]) -> PyTree:
    """The tree with every schedule replaced by its number at this step."""
    schedule = lambda node: isinstance(node, AbstractSchedule)  # noqa: E731
    return jax.tree.map(lambda node: node(step) if schedule(node) else node, tree, is_leaf=schedule)


def number(value: float | Array | AbstractSchedule) -> Array:
    """A number whose schedule, if it had one, has been resolved."""
    if isinstance(value, AbstractSchedule):
        raise TypeError(f"{type(value).__name__} must be resolved at a step first: use ravine._tree.resolve.")
    return jnp.asarray(value)


def as_arrays(tree: PyTree) -> PyTree:
    """The tree with Python floats as arrays, so that another value does not compile again."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float) else leaf, tree)


def strong(tree: PyTree) -> PyTree:
    """The tree with weakly typed arrays made strong, so that a loop returns what it was given."""
    return jax.tree.map(
        lambda leaf: leaf.astype(leaf.dtype) if isinstance(leaf, jax.Array) and not _is_key(leaf) else leaf, tree
    )


def _is_key(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def stacked(trees: Sequence[Any]) -> Any:
    """Trees of one structure as a single tree with a leading axis on every array."""
    arrays, static = eqx.partition(list(trees), eqx.is_array)
    return eqx.combine(jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays), static[0])


def unstacked(tree: Any, n: int) -> list[Any]:
    """The inverse of `stacked`."""
    return [jax.tree.map(lambda leaf, i=i: leaf[i] if eqx.is_array(leaf) else leaf, tree) for i in range(n)]


def choose(flag: Bool[Array, ""], yes: PyTree, no: PyTree) -> PyTree:
    """``yes`` where the flag is true, else ``no``, array by array; what is no array is taken from ``yes``."""
    arrays, rest = eqx.partition(yes, eqx.is_array)
    others = eqx.filter(no, eqx.is_array)
    return eqx.combine(jax.tree.map(lambda a, b: jnp.where(flag, a, b), arrays, others), rest)


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """True when no floating-point array of the tree holds NaN or infinity."""
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))]
    return functools.reduce(jnp.logical_and, leaves, jnp.array(True))


def parameter_count(tree: PyTree) -> int:
    """How many numbers a rule may change."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(trainable(tree)[0]))


def row_keys(key: PRNGKeyArray, cells: PyTree[Array]) -> Key[Array, " n"]:
    """One key per row that depends on ``key`` and on what that row holds, not on its neighbours.

    ``cells`` has a leading axis of rows on every leaf. Equal rows get equal keys.
    """
    return jax.vmap(jr.fold_in, in_axes=(None, 0))(key, jax.vmap(_hash)(cells))


def _hash(cells: PyTree[Array]) -> UInt32[Array, ""]:
    words = jnp.concatenate([_words(leaf) for leaf in jax.tree.leaves(cells)])
    places = jax.lax.iota(jnp.uint32, words.size)
    mixed = _mix(words ^ _mix(places + jnp.uint32(0x9E3779B9)))
    return _mix(jnp.sum(mixed, dtype=jnp.uint32))


def _mix(word: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    # the finaliser of murmur3: every input bit reaches every output bit
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)


def _words(leaf: Array) -> UInt32[Array, " n"]:
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        # -0.0 and 0.0 are the same value and must hash the same; compilers drop the addition of a zero
        leaf = jnp.where(leaf == 0, 0, leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)))
    if leaf.dtype.itemsize < 4:
        return leaf.astype(jnp.int32).astype(jnp.uint32).ravel()
    return jax.lax.bitcast_convert_type(leaf, jnp.uint32).ravel()
