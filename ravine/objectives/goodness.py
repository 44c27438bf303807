"""Learning every layer by itself: good at real rows, bad at others. Hinton 2022, arXiv:2212.13345."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ravine.core import Metrics, Row, Scalar, weights

Pair = tuple[Float[Array, "n inputs"], Float[Array, "n inputs"]]


@runtime_checkable
class GoodLayers(Protocol):
    """A net whose layers may be good: `ravine.models.forward_forward.AbstractGoodNet`."""

    layers: tuple[Any, ...]
    head: eqx.nn.Linear | None
    goodness: Callable[[Array], Scalar]
    read_out: Any
    classes: int
    image: tuple[int, ...] | None

    def shown(self, x: Array, label: Array) -> Array:
        """What the net sees of a row with a label."""
        ...

    def neutral(self) -> Array:
        """No label more than another."""
        ...

    def activities(self, seen: Array, cut: Callable[[Array], Array]) -> tuple[Array, ...]:
        """What every layer does, wherever it is asked to be good."""
        ...

    def told_from(self, activities: tuple[Array, ...]) -> tuple[Array, ...]:
        """Of these, one for each layer."""
        ...

    def directions(self, x: Array, skip: int) -> Array:
        """The normalised activities with a neutral label shown."""
        ...

    def read(self, x: Array) -> Array:
        """What the affine read-out says of each label."""
        ...


class AbstractOthers(eqx.Module):
    """What layers learn to be bad at, made from the rows of a batch.

    Attributes
    ----------
    asks : class variable; whether it needs the affine read-out of the net.
    by_label : class variable; whether rows and others differ in nothing but the label that is shown with them.
    """

    asks: ClassVar[bool] = False
    by_label: ClassVar[bool] = True

    @abc.abstractmethod
    def __call__(self, model: GoodLayers, batch: Row, *, key: PRNGKeyArray) -> Pair:
        """What the net sees of the rows, and of the others."""


class WrongLabel(AbstractOthers):
    """The same rows with a label that is not theirs, each of the others as often."""

    def __call__(self, model: GoodLayers, batch: Row, *, key: PRNGKeyArray) -> Pair:
        away = jr.randint(key, batch.y.shape, 1, model.classes)
        return _labelled(model, batch, (batch.y + away) % model.classes)


class LikelyWrongLabel(AbstractOthers):
    """The same rows with a label that is not theirs, drawn as the net's own read-out finds it likely.

    The read-out is the affine one, which learns beside the layers.
    """

    asks: ClassVar[bool] = True

    def __call__(self, model: GoodLayers, batch: Row, *, key: PRNGKeyArray) -> Pair:
        def wrong(x: Array, y: Int[Array, ""], key: PRNGKeyArray) -> Int[Array, ""]:
            logits = model.read(x.ravel())
            return jr.categorical(key, jnp.where(jnp.arange(model.classes) == y, -jnp.inf, logits))

        keys = jr.split(key, len(batch.y))
        return _labelled(model, batch, stop_gradient(jax.vmap(wrong)(batch.x, batch.y, keys)))


class Hybrids(AbstractOthers):
    """Each cell from one of two rows of the batch, in patches: they have the texture of real rows, not their shape.

    Random bits are blurred by (1/4, 1/2, 1/4) along every axis, so many times, and the cells above 1/2 come from the
    one row, the others from the other. It needs no labels.

    Parameters
    ----------
    rounds : how often bits are blurred.
    hidden : share of the cells of rows and of hybrids that are made 0, drawn anew each time: layers that never see a
        row twice do not learn the rows by heart.
    """

    rounds: int = eqx.field(static=True, default=8)
    hidden: float = eqx.field(static=True, default=0.0)
    by_label: ClassVar[bool] = False

    def __call__(self, model: GoodLayers, batch: Row, *, key: PRNGKeyArray) -> Pair:
        bits, shift = jr.split(key)
        rows = batch.x.reshape(batch.x.shape[0], -1)
        shape = rows.shape[1:] if model.image is None else model.image
        mask = jax.vmap(lambda k: self.mask(shape, key=k).ravel())(jr.split(bits, len(rows)))
        others = jnp.roll(rows, jr.randint(shift, (), 1, max(len(rows), 2)), axis=0)
        show = jax.vmap(lambda x: model.shown(x, model.neutral()))
        kept = jr.bernoulli(jr.fold_in(key, 2), 1 - self.hidden, rows.shape)
        return show(jnp.where(kept, rows, 0)), show(jnp.where(kept & mask, rows, jnp.where(kept, others, 0)))

    def mask(self, shape: tuple[int, ...], *, key: PRNGKeyArray) -> Bool[Array, "..."]:
        """Which cells come from the one row; all channels of a pixel alike."""
        grid = shape[:2]
        noise = jr.bernoulli(key, 0.5, grid).astype(float)
        for _ in range(self.rounds):
            for axis in range(len(grid)):
                noise = blurred(noise, axis)
        return jnp.broadcast_to((noise > 0.5).reshape(grid + (1,) * (len(shape) - len(grid))), shape)


def blurred(image: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """An image after a blur by (1/4, 1/2, 1/4) along an axis; beyond the edge it is as at the edge.

    Examples
    --------
    >>> blurred(jnp.array([0.0, 4.0, 0.0, 0.0]), 0).tolist()
    [1.0, 2.0, 1.0, 0.0]
    """
    moved = jnp.moveaxis(image, axis, 0)
    wide = jnp.concatenate([moved[:1], moved, moved[-1:]])
    return jnp.moveaxis(0.25 * wide[:-2] + 0.5 * wide[1:-1] + 0.25 * wide[2:], 0, axis)


class LocalGoodness(eqx.Module):
    r"""Every layer tells real rows from others by its goodness g, as log odds; no slope crosses layers.

    .. math:: \sum_l \log(1 + e^{-g_l^+}) + \log(1 + e^{g_l^-}) + \frac \lambda 2 \sum_j (\bar y_{lj} - \bar y_l)^2

    The last term keeps units from being silent, or busy, for all rows: :math:`\bar y_{lj}` is the mean activity of unit
    j over real rows, which follows the batches and whose slope is that of this batch, and :math:`\bar y_l` its mean
    over the layer. Beside them the affine
    read-out learns the labels of rows that have one from what the layers make of them. Hinton 2022, arXiv:2212.13345.

    Parameters
    ----------
    others : what the rows are to be told from.
    peers : the weight :math:`\lambda`.
    decay : weight of half the sum of the squared weights of the read-out, without its biases.
    """

    others: AbstractOthers = WrongLabel()
    peers: float = 0.0
    decay: float = 0.0

    def __call__(self, model: GoodLayers, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        real, others = self.others(model, batch, key=key)
        share = _shares(batch, jnp.ones(len(real), bool))
        both = jnp.concatenate([real, others])
        done = jax.vmap(lambda seen: model.activities(seen, stop_gradient))(both)
        odds = jnp.stack([jax.vmap(model.goodness)(y) for y in done])
        signed = jnp.where((jnp.arange(len(both)) < len(real))[None], odds, -odds)
        local = jnp.sum(jax.nn.softplus(-signed) @ jnp.tile(share, 2))
        kept = [y[: len(real)] for y in model.told_from(done)]
        head = {} if model.head is None else self._read(model, batch, kept)
        peers = sum((_peers(layer, share @ y, self.peers) for layer, y in zip(model.layers, kept, strict=True)), 0.0)
        parted = 0.5 * jnp.mean((signed > 0).astype(odds.dtype) @ jnp.tile(share, 2))
        return local + peers + head.get("label", 0.0), {"local": local, "parted": parted} | head

    def _read(self, model: GoodLayers, batch: Row, kept: list[Array]) -> Metrics:
        """The loss of the affine read-out, and how often it is right; it sees no label."""
        if not self.others.by_label:
            seen = jnp.concatenate([_directions(y) for y in kept[model.read_out.skip :]], axis=1)
        else:
            seen = jax.vmap(lambda x: model.directions(x.ravel(), model.read_out.skip))(batch.x)
        assert model.head is not None
        logits = jax.vmap(model.head)(stop_gradient(seen))
        y = jnp.maximum(batch.y, 0)
        share = _shares(batch, jnp.ones(len(y), bool) if batch.y_mask is None else batch.y_mask)
        losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)[:, 0]
        squares = jnp.sum(model.head.weight**2)
        right = share @ (jnp.argmax(logits, axis=1) == y).astype(share.dtype)
        return {"label": share @ losses + 0.5 * self.decay * squares, "accuracy": right}


def _labelled(model: GoodLayers, batch: Row, wrong: Int[Array, " n"]) -> Pair:
    """The rows with their own labels, and with others."""
    show = jax.vmap(lambda x, y: model.shown(x.ravel(), jax.nn.one_hot(y, model.classes, dtype=x.dtype)))
    return show(batch.x, batch.y), show(batch.x, wrong)


def _directions(y: Float[Array, "n units"]) -> Float[Array, "n units"]:
    return y * jax.lax.rsqrt(jnp.mean(y**2, axis=1, keepdims=True) + 1e-8)


def _shares(batch: Row, known: Bool[Array, " n"]) -> Float[Array, " n"]:
    """How much each row counts; they sum to 1."""
    weight = weights(batch) * known
    return weight / jnp.maximum(jnp.sum(weight), jnp.finfo(weight.dtype).tiny)


def _peers(layer: Any, mean: Float[Array, " units"], weight: float | Array) -> Scalar:
    """What pulls the usual activity of units together, and tells it the mean of this batch."""
    usual, held = layer.usual, stop_gradient(mean)
    now = usual.decay * stop_gradient(usual.value) + (1 - usual.decay) * held + mean - held
    return 0.5 * weight * jnp.sum((now - jnp.mean(now)) ** 2) + usual.told(held)
