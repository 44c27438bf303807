"""Cells of several kinds side by side in one vector: the law of a row of a table."""

from __future__ import annotations

import math
from itertools import chain

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._check import require, shown
from ravine.core import AbstractDistribution, Scalar
from ravine.dist._cells import check
from ravine.dist.links import AbstractLink, Shape

Places = tuple[tuple[int, ...], ...]


def _partition(owner: str, places: Places, shapes: tuple[Shape, ...]) -> None:
    """Refuse places that are not each cell once, or not as many as a part has."""
    require(len(places) == len(shapes) > 0, owner, "places for each part", f"{len(places)} for {len(shapes)}", "match")
    for i, (place, shape) in enumerate(zip(places, shapes, strict=True)):
        want, do = f"{math.prod(shape)} places for its event of shape {shape}", "list one place per cell, row by row"
        require(len(place) == math.prod(shape), f"part {i} of {owner}", want, f"{len(place)}", do)
    every = list(chain(*places))
    want, do = f"each of 0..{len(every) - 1} once in its places", "give every cell to one part"
    require(sorted(every) == list(range(len(every))), owner, want, shown(places), do)


class Mixed(AbstractDistribution):
    r"""Independent laws over parts of one flat vector of n cells.

    .. math:: \log p(x) = \sum_i \log p_i(x_{\text{places}_i})

    Each part scores its cells in its own shape, so a `OneHot` over (columns, classes) takes columns * classes places
    in row-major order; its mask is the same on all cells of a categorical, which else counts as unobserved. The shape
    of a part is asked of its mean (`jax.eval_shape`, which computes nothing): kept a second time it could contradict.

    Parameters
    ----------
    parts : laws over arrays; those of a row of a table are as a rule one per kind of column.
    places : for each part the cells it describes; together each of 0..n-1 once. Static.

    Raises
    ------
    ValueError
        When the places are not each cell once, or not as many as a part has cells; when a value or a mask is not of
        shape (n,).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ravine.dist import OneHot, Poisson
    >>> d = Mixed((Poisson(jnp.zeros(1)), OneHot(jnp.zeros((1, 4)))), ((2,), (0, 1, 3, 4)))
    >>> d.mean().tolist()
    [0.25, 0.25, 1.0, 0.25, 0.25]
    >>> round(float(d.log_prob(jnp.array([0.0, 1.0, 0.0, 0.0, 0.0]))), 4)  # -1 - log 4
    -2.3863
    """

    parts: tuple[AbstractDistribution, ...]
    places: Places = eqx.field(static=True)

    def __check_init__(self) -> None:
        _partition("a Mixed", self.places, self._shapes())

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """One draw per part, put at its places; all of one type."""
        keys = jr.split(key, len(self.parts))
        return self._flat([part.sample(key=k) for part, k in zip(self.parts, keys, strict=True)])

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density or mass of the observed cells, in nats: the sum over the parts."""
        check(value, mask, (sum(map(len, self.places)),))
        scores = []
        for part, place, shape in zip(self.parts, self.places, self._shapes(), strict=True):
            at = np.asarray(place, int)
            seen = None if mask is None else mask[at].reshape(shape)
            scores.append(part.log_prob(value[at].reshape(shape), seen))
        return jnp.sum(jnp.stack(scores))

    def mean(self) -> Array:
        """The mean of each part at its places; all of one type."""
        return self._flat([part.mean() for part in self.parts])

    def _flat(self, values: list[Array]) -> Array:
        """Arrays in the order of the parts as one vector in the order of the cells."""
        order = np.argsort(np.asarray(list(chain(*self.places))))
        return jnp.concatenate([jnp.ravel(value) for value in values])[order]

    def _shapes(self) -> tuple[Shape, ...]:
        return tuple(jax.eval_shape(lambda part=part: part.mean()).shape for part in self.parts)


class MixedLink(AbstractLink):
    """Cells of several kinds in one vector: the numbers are dealt out to links in their order, see `Mixed`.

    Parameters
    ----------
    links : what makes each part.
    places : for each link the cells it describes, in row-major order of its shape; together each of 0..n-1 once.
    shapes : the shape of each part's event, such as (columns, classes) for `Classes`.

    Raises
    ------
    ValueError
        When the places are not each cell once, or not as many as a shape has cells; when the link is asked for an
        event of another shape than (n,), or given another number of numbers.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ravine.dist import Bits, Classes
    >>> link = MixedLink((Classes(), Bits()), ((0, 2, 3), (1,)), ((1, 3), (1,)))
    >>> link.size((4,)), link(jnp.zeros(4), (4,)).mean()[1]
    (4, Array(0.5, dtype=float32))
    """

    links: tuple[AbstractLink, ...]
    places: Places = eqx.field(static=True)
    shapes: tuple[Shape, ...] = eqx.field(static=True)

    def __check_init__(self) -> None:
        got, do = f"{len(self.links)} and {len(self.shapes)}", "match them"
        require(len(self.links) == len(self.shapes), "links and shapes of a MixedLink", "as many of both", got, do)
        _partition("a MixedLink", self.places, self.shapes)

    def size(self, shape: Shape) -> int:
        """What the links need together."""
        self._fits(shape)
        return sum(self._sizes())

    def __call__(self, raw: Array, shape: Shape) -> Mixed:
        """The links' laws over their places."""
        if jnp.size(raw) != self.size(shape):
            need = self.size(shape)
            raise ValueError(f"an event of shape {shape} needs {need} numbers, got {jnp.size(raw)}; use link.size().")
        dealt = jnp.split(jnp.ravel(raw), np.cumsum(self._sizes())[:-1])
        parts = zip(self.links, dealt, self.shapes, strict=True)
        return Mixed(tuple(link(some, inner) for link, some, inner in parts), self.places)

    def start(self, mean: Float[Array, "..."]) -> Float[Array, " size"]:
        """Where each link should start for the means at its places."""
        self._fits(mean.shape)
        parts = zip(self.links, self.places, self.shapes, strict=True)
        return jnp.concatenate([link.start(mean[np.asarray(at, int)].reshape(shape)) for link, at, shape in parts])

    def locations(self, shape: Shape) -> tuple[int, ...]:
        """Those of the links, each counted from where its numbers begin."""
        self._fits(shape)
        starts = np.cumsum([0, *self._sizes()])[:-1].tolist()
        parts = zip(self.links, self.shapes, starts, strict=True)
        return tuple(at + place for link, inner, at in parts for place in link.locations(inner))

    def _sizes(self) -> list[int]:
        return [link.size(shape) for link, shape in zip(self.links, self.shapes, strict=True)]

    def _fits(self, shape: Shape) -> None:
        cells = sum(map(len, self.places))
        do = "use the link for the table it was made for"
        require(shape == (cells,), "the event of a MixedLink", f"shape ({cells},)", f"{shape}", do)
