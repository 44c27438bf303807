"""Nets that tell a label, or a feature, by how good their layers are. Hinton 2022, arXiv:2212.13345."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import Row
from ravine.models.goodness import AbstractGoodness, GoodLayer, normalised
from ravine.nets._init import glorot, linear

Cells = Float[Array, " cells"]
Label = Float[Array, " classes"]
Cut = Callable[[Array], Array]  # what is done to activities before another layer sees them


def whole(x: Array) -> Array:
    """The activities as they are: slopes pass."""
    return x


class AbstractLabelPlace(eqx.Module):
    """Where the label of a row is shown to a net."""

    @abc.abstractmethod
    def inputs(self, cells: int, classes: int) -> int:
        """How many numbers the net sees.

        Raises
        ------
        ValueError
            When the label does not fit.
        """

    @abc.abstractmethod
    def __call__(self, x: Cells, label: Label) -> Float[Array, " inputs"]:
        """The row with its label, which weighs as much as the largest cell of the row, whatever its unit."""


class FirstCells(AbstractLabelPlace):
    """In the first cells, whose own content is not seen: the dark corner of a picture."""

    def inputs(self, cells: int, classes: int) -> int:
        if cells < classes:
            raise ValueError(f"FirstCells needs {classes} cells for as many classes, got {cells}: use Appended().")
        return cells

    def __call__(self, x: Cells, label: Label) -> Float[Array, " inputs"]:
        return x.at[: label.size].set(_largest(x) * label)


class Appended(AbstractLabelPlace):
    """Behind the cells of the row.

    Parameters
    ----------
    scale : how much more a label of 1 weighs than the largest cell of the row.
    """

    scale: float = 1.0

    def inputs(self, cells: int, classes: int) -> int:
        return cells + classes

    def __call__(self, x: Cells, label: Label) -> Float[Array, " inputs"]:
        return jnp.concatenate([x, self.scale * _largest(x) * label])


def _largest(x: Cells) -> Float[Array, ""]:
    """The largest size of a cell; 1 where all of them are 0."""
    most = jnp.max(jnp.abs(x))
    return jnp.where(most > 0, most, jnp.ones_like(most))


class Nowhere(AbstractLabelPlace):
    """Nowhere: the net learns without labels."""

    def inputs(self, cells: int, classes: int) -> int:
        return cells

    def __call__(self, x: Cells, label: Label) -> Float[Array, " inputs"]:
        return x


class AbstractReadOut(eqx.Module):
    """How a net tells the label of a row.

    Attributes
    ----------
    skip : how many of the lowest layers have no say.
    affine : class variable; whether it needs the affine map that learns beside the layers.
    """

    skip: eqx.AbstractVar[int]
    affine: ClassVar[bool]

    @abc.abstractmethod
    def __call__(self, net: AbstractGoodNet, x: Cells) -> Label:
        """A score of each label, whose softmax stands for p(y | x)."""


class GoodnessReadOut(AbstractReadOut):
    """The sum of the log odds of the layers with each label shown; the first ``skip`` layers have no say.

    The largest tells the label. Their softmax is far too sure of itself: the layers all judge the same row.
    """

    skip: int = eqx.field(static=True, default=0)
    affine: ClassVar[bool] = False

    def __call__(self, net: AbstractGoodNet, x: Cells) -> Label:
        return jax.vmap(lambda label: jnp.sum(net.goodness_of(x, label)[self.skip :]))(jnp.eye(net.classes))


class SoftmaxReadOut(AbstractReadOut):
    """An affine map of the directions of the layers but the first ``skip``, in one pass with a neutral label shown."""

    skip: int = eqx.field(static=True, default=1)
    affine: ClassVar[bool] = True

    def __call__(self, net: AbstractGoodNet, x: Cells) -> Label:
        return net.read(x)


class AbstractGoodNet(eqx.Module):
    """Layers with a goodness each, and a label that is shown to them.

    Attributes
    ----------
    layers : the lowest first.
    head : from the directions of all layers but the first ones to the label; None where nobody asks for it.
    goodness : of one layer, as log odds.
    read_out : what tells the label.
    classes : how many labels there are.
    image : (height, width[, channels]) of a row that is one, else None.
    """

    layers: eqx.AbstractVar[tuple[GoodLayer, ...]]
    head: eqx.AbstractVar[eqx.nn.Linear | None]
    goodness: eqx.AbstractVar[AbstractGoodness]
    read_out: eqx.AbstractVar[AbstractReadOut]
    classes: eqx.AbstractVar[int]
    image: eqx.AbstractVar[tuple[int, ...] | None]

    @abc.abstractmethod
    def shown(self, x: Cells, label: Label) -> Array:
        """What the net sees of a row with a label."""

    @abc.abstractmethod
    def activities(self, seen: Array, cut: Cut = whole) -> tuple[Array, ...]:
        """What every layer does, wherever it is asked to be good; ``cut`` is between any two of them."""

    @abc.abstractmethod
    def told_from(self, activities: tuple[Array, ...]) -> tuple[Array, ...]:
        """Of these, one for each layer, by which the label is told."""

    @abc.abstractmethod
    def goodness_of(self, x: Cells, label: Label) -> Float[Array, " layers"]:
        """The log odds of each layer."""

    def neutral(self) -> Label:
        """No label more than another."""
        return jnp.full(self.classes, 1 / self.classes)

    def directions(self, x: Cells, skip: int = 0) -> Float[Array, " features"]:
        """The normalised activities of the layers but the first ones, with a neutral label shown."""
        done = self.told_from(self.activities(self.shown(x, self.neutral())))
        return jnp.concatenate([normalised(y) for y in done[skip:]])

    def read(self, x: Cells) -> Label:
        """What the affine map says of each label, with a neutral one shown."""
        if self.head is None:
            raise ValueError("a net without an affine read-out was asked for it; build it with SoftmaxReadOut().")
        return self.head(self.directions(x, self.read_out.skip))

    def features(self, row: Row) -> Float[Array, " features"]:
        """The directions of all layers that the head sees."""
        return self.directions(row.x.ravel(), self.read_out.skip)

    def logits(self, row: Row) -> Label:
        """A score of each label."""
        return self.read_out(self, row.x.ravel())


def affine_head(layers: tuple[GoodLayer, ...], skip: int, classes: int, wanted: bool) -> eqx.nn.Linear | None:
    """An affine map from the directions of the layers but the first ones, which begins at 0; None unless wanted."""
    inputs = sum(layer.usual.value.size for layer in layers[skip:])
    return linear(jnp.zeros((classes, inputs))) if wanted else None


class GoodNet(AbstractGoodNet):
    """Layers one above the other, each of which sees the direction of the one below."""

    layers: tuple[GoodLayer, ...]
    head: eqx.nn.Linear | None
    place: AbstractLabelPlace
    goodness: AbstractGoodness
    read_out: AbstractReadOut
    classes: int = eqx.field(static=True)
    image: tuple[int, ...] | None = eqx.field(static=True, default=None, kw_only=True)

    def shown(self, x: Cells, label: Label) -> Array:
        return self.place(x, label)

    def activities(self, seen: Array, cut: Cut = whole) -> tuple[Array, ...]:
        done = []
        for layer in self.layers:
            done.append(layer(cut(seen)))
            seen = done[-1]
        return tuple(done)

    def told_from(self, activities: tuple[Array, ...]) -> tuple[Array, ...]:
        return activities

    def goodness_of(self, x: Cells, label: Label) -> Float[Array, " layers"]:
        return jnp.stack([self.goodness(y) for y in self.activities(self.shown(x, label))])


class RecurrentNet(AbstractGoodNet):
    r"""Layers that see both neighbours as they were a moment ago; on top stands the label, below the row.

    .. math:: y_l^{t+1} = \rho \, y_l^t + (1 - \rho) \, f(W_l \hat y_{l-1}^t + V_l \hat y_{l+1}^t + b_l)

    They begin with one pass upwards. Goodness is that of every layer at every moment, and for telling labels the mean
    over the moments ``heard``. The paper's section 3.4 has 8 moments, a damping of 0.3, and hears moments 3 to 5.

    Parameters
    ----------
    downs : the maps V, each from the layer above; that of the topmost layer from the label.
    moments : how often all layers move at once.
    damping : :math:`\rho`.
    heard : the first and the last of the moments that count, from 1.
    """

    layers: tuple[GoodLayer, ...]
    downs: tuple[eqx.nn.Linear, ...]
    head: eqx.nn.Linear | None
    goodness: AbstractGoodness
    read_out: AbstractReadOut
    classes: int = eqx.field(static=True)
    image: tuple[int, ...] | None = eqx.field(static=True, default=None, kw_only=True)
    moments: int = eqx.field(static=True, default=8)
    damping: float = eqx.field(static=True, default=0.3)
    heard: tuple[int, int] = eqx.field(static=True, default=(3, 5))

    def __check_init__(self):
        if not 1 <= self.heard[0] <= self.heard[1] <= self.moments:
            raise ValueError(f"heard must name two of the moments 1 to {self.moments}, in order, got {self.heard}.")

    def shown(self, x: Cells, label: Label) -> Array:
        return jnp.concatenate([x, label])

    def activities(self, seen: Array, cut: Cut = whole) -> tuple[Array, ...]:
        # row and label stay as they are: what their neighbours hear of them is the same at every moment
        ends = self.layers[0].affine(normalised(cut(seen[: -self.classes]))), self.downs[-1](cut(seen[-self.classes :]))
        state = [self.layers[0].rectifier(ends[0])]
        for layer in self.layers[1:]:
            state.append(layer(cut(state[-1])))
        done = []
        for _ in range(self.moments):
            state = self._moved(ends, state, cut)
            done += state
        return tuple(done)

    def _moved(self, ends: tuple[Array, Array], state: list[Array], cut: Cut) -> list[Array]:
        """All layers a moment later; none of them passes slopes to what it saw, nor to what it was."""
        before = [cut(y) for y in state]
        seen = [normalised(y) for y in before]
        ups = [ends[0], *(layer.affine(y) for layer, y in zip(self.layers[1:], seen[:-1], strict=True))]
        downs = [*(down(y) for down, y in zip(self.downs[:-1], seen[1:], strict=True)), ends[1]]
        new = [layer.rectifier(up + down) for layer, up, down in zip(self.layers, ups, downs, strict=True)]
        return [self.damping * old + (1 - self.damping) * y for old, y in zip(before, new, strict=True)]

    def told_from(self, activities: tuple[Array, ...]) -> tuple[Array, ...]:
        moments, (first, last) = self._by_moment(activities), self.heard
        return tuple(jnp.mean(jnp.stack(each), axis=0) for each in zip(*moments[first - 1 : last], strict=True))

    def goodness_of(self, x: Cells, label: Label) -> Float[Array, " layers"]:
        moments, (first, last) = self._by_moment(self.activities(self.shown(x, label))), self.heard
        each = [jnp.stack([self.goodness(y) for y in moment]) for moment in moments[first - 1 : last]]
        return jnp.mean(jnp.stack(each), axis=0)

    def _by_moment(self, activities: tuple[Array, ...]) -> list[tuple[Array, ...]]:
        n = len(self.layers)
        return [activities[i : i + n] for i in range(0, len(activities), n)]


def from_above(layers: tuple[GoodLayer, ...], classes: int, *, key: PRNGKeyArray) -> tuple[eqx.nn.Linear, ...]:
    """Maps into every layer from the one above it, into the topmost from the label."""
    sizes = [layer.usual.value.size for layer in layers]
    shapes = tuple(zip(sizes, [*sizes[1:], classes], strict=True))
    return tuple(linear(weight) for weight in glorot(shapes, key=key))
