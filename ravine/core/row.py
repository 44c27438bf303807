"""One datum, and batches of such."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

Scalar = Float[Array, ""]
Metrics = dict[str, Array]


class Row(eqx.Module):
    """One datum: what was observed, what was not, and what it is conditioned on.

    Attributes
    ----------
    x : the values, an array or a pytree of arrays; 0 where not observed.
    mask : same structure as ``x``, True where observed; None when every cell was observed.
    y, y_mask : what is modelled jointly with ``x`` (labels), and which of it is known.
    context : conditioned on, never modelled.
    length : number of steps that exist, for sequences; a gap inside is ``mask=False``.
    index : place in the data set, for rules that keep a memory per row.
    weight : sample weight; 0 marks padding. None means 1.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> row = Row(jnp.array([1.0, 0.0]), mask=jnp.array([True, False]))
    >>> int(row.observed())
    1
    """

    x: PyTree[Shaped[Array, "..."]]
    mask: PyTree[Bool[Array, "..."]] = None
    y: PyTree = None
    y_mask: PyTree = None
    context: PyTree = None
    length: Int[Array, "..."] | None = None
    index: Int[Array, "..."] | None = None
    weight: Float[Array, "..."] | None = None

    def observed(self) -> Int[Array, ""]:
        """Number of observed cells."""
        cells = self.x if self.mask is None else self.mask
        counts = [c.size if self.mask is None else jnp.sum(c) for c in jax.tree.leaves(cells)]
        return jnp.asarray(sum(counts))

    def is_empty(self) -> Bool[Array, ""]:
        """True when nothing was observed: such a row has log-likelihood exactly 0."""
        return self.observed() == 0

    def clamp(self, x: PyTree[Array]) -> PyTree[Array]:
        """``x`` with every observed cell put back to its observed value."""
        if self.mask is None:
            return self.x
        return jax.tree.map(jnp.where, self.mask, self.x, x)

    def after(self, earlier: Array) -> Row:
        """The same row, whose mask is known only when ``earlier`` is; nothing is observed where that holds NaN.

        What reads the mask runs later. On a processor, factorisations of many matrices at once share them out to the
        threads that run programs and wait: as many as there are threads, started at once, would wait for ever.
        """
        mask = jax.tree.map(lambda x: jnp.ones(x.shape, bool), self.x) if self.mask is None else self.mask
        known = jnp.all(earlier == earlier)
        return eqx.tree_at(lambda r: r.mask, self, jax.tree.map(lambda m: m & known, mask), is_leaf=lambda n: n is None)


def weights(batch: Row) -> Float[Array, " n"]:
    """The weight of each row of a batch; 1 where none was given."""
    if batch.weight is not None:
        return batch.weight
    leaf = jax.tree.leaves(batch.x)[0]
    return jnp.ones(leaf.shape[0], leaf.dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else float)


def rows_in(batch: Row) -> int:
    """Number of rows of a batch, padding included."""
    return int(jax.tree.leaves(batch.x)[0].shape[0])


def averaged(per_row: Callable[..., Any], batch: Row, *, key: PRNGKeyArray) -> Any:
    """Weighted mean over the batch of ``per_row(row, key=...)``, leaf by leaf."""
    keys = jr.split(key, rows_in(batch))
    values = jax.vmap(lambda row, k: per_row(row, key=k))(batch, keys)
    if batch.weight is None:
        return jax.tree.map(lambda v: jnp.mean(v, axis=0), values)
    share = batch.weight / jnp.maximum(jnp.sum(batch.weight), jnp.finfo(batch.weight.dtype).tiny)
    return jax.tree.map(lambda v: jnp.tensordot(share, v, 1), values)
