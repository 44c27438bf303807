"""Subsets of fixed size: exactly k of n items, with exact normaliser, draws and marginals."""

from __future__ import annotations

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractDiscrete, Scalar
from ravine.dist._cells import check, floating, grid

NEVER = -1e30  # log of an impossible event; finite, so that no gradient is NaN


def _taken(log_ways: Float[Array, "... sizes"], logit: Float[Array, "..."]) -> Float[Array, "... sizes"]:
    """Log weight of the subsets of each size that contain one more item."""
    none = jnp.full_like(log_ways[..., :1], NEVER)
    return jnp.concatenate([none, log_ways[..., :-1] + logit[..., None]], axis=-1)


def _ways(
    logits: Float[Array, "... n"], k: int, free: Array | None = None
) -> tuple[Float[Array, "... sizes"], Float[Array, "n ... sizes"]]:
    """Log elementary symmetric polynomials 0..k of exp(logits), and before them those of the items after each.

    Only items that are ``free`` take part.
    """
    free = jnp.ones(logits.shape, bool) if free is None else free
    start = jnp.full((*logits.shape[:-1], k + 1), NEVER, logits.dtype).at[..., 0].set(0)

    def add(log_ways: Array, item: tuple[Array, Array]) -> tuple[Array, Array]:
        logit, may = item
        more = jax.nn.logsumexp(jnp.stack([log_ways, _taken(log_ways, logit)]), axis=0)
        return jnp.where(may[..., None], more, log_ways), log_ways

    return jax.lax.scan(add, start, (jnp.moveaxis(logits, -1, 0), jnp.moveaxis(free, -1, 0)), reverse=True)


class Subset(AbstractDiscrete):
    r"""Independent groups of exactly k of n items as k-hot vectors; the last axis of the event lists the items.

    .. math:: \log p(z) = \sum_i z_i l_i - \log e_k(e^{l_1}, \ldots, e^{l_n})

    with :math:`e_k` the elementary symmetric polynomial, computed by its recursion in log space in O(n k): also known
    as conditional Bernoulli (Chen and Liu 1997, *Statistica Sinica* 7) or k-subset (Ahmed et al. 2023, *SIMPLE*,
    arXiv:2210.01941). ``log_prob`` is linear in the value where all of it is observed, so relaxed vectors have a score;
    a value that is not k-hot is not refused. Missing items are summed out exactly.

    Parameters
    ----------
    logits : one per item, finite, shape (..., n); a constant added to a group changes nothing.
    k : number of items in the subset, a static integer from 0 to n.

    Raises
    ------
    ValueError
        When k is not between 0 and n, a value or mask has another shape, or `support` would list more than 2^20 values.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = Subset(jnp.zeros(4), 2)
    >>> round(float(jnp.exp(-d.log_prob(jnp.array([1.0, 0.0, 1.0, 0.0])))), 4)
    6.0
    >>> print(d.mean().round(4))
    [0.5 0.5 0.5 0.5]
    """

    logits: Float[Array, "... n"]
    k: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not 0 <= self.k <= self.logits.shape[-1]:
            raise ValueError(f"k of a Subset must be from 0 to {self.logits.shape[-1]} items, got {self.k}.")

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """k-hot vectors of the logits' type: each item in turn, given how many are still wanted."""
        log_ways, after = _ways(self.logits, self.k)
        wanted = jnp.full(self.logits.shape[:-1], self.k)
        u = jr.uniform(key, self.logits.shape, self.logits.dtype)

        def visit(carry: tuple[Array, Array], item: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
            (log_ways, wanted), (rest, logit, u) = carry, item
            share = jnp.exp(_taken(rest, logit) - log_ways)
            take = u < jnp.take_along_axis(share, wanted[..., None], axis=-1)[..., 0]
            return (rest, wanted - take), take

        # the ways at an item are those before the next one: walk with both
        items = (after, jnp.moveaxis(self.logits, -1, 0), jnp.moveaxis(u, -1, 0))
        taken = jax.lax.scan(visit, (log_ways, wanted), items)[1]
        return jnp.moveaxis(taken, 0, -1).astype(self.logits.dtype)

    def log_normaliser(self) -> Float[Array, "..."]:
        """Log sum over all subsets of exp(z . logits) for each group, in nats."""
        return _ways(self.logits, self.k)[0][..., self.k]

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log mass of the observed items, in nats; minus infinity where they are too many or too few."""
        check(value, mask, self.logits.shape)
        z = floating(value, self.logits)
        if mask is None:
            return jnp.sum(z * self.logits) - jnp.sum(self.log_normaliser())
        z = jnp.where(mask, z, 0)
        log_ways = _ways(self.logits, self.k, ~mask)[0]
        wanted = self.k - jnp.round(jnp.sum(z, axis=-1)).astype(int)
        rest = jnp.take_along_axis(log_ways, jnp.clip(wanted, 0, self.k)[..., None], axis=-1)[..., 0]
        possible = (wanted >= 0) & (wanted <= jnp.sum(~mask, axis=-1))
        group = jnp.sum(z * self.logits, axis=-1) + rest - self.log_normaliser()
        return jnp.sum(jnp.where(possible, group, -jnp.inf))

    def mean(self) -> Array:
        """Probability that each item is in the subset: the derivative of the log normaliser."""
        return jax.grad(lambda logits: jnp.sum(_ways(logits, self.k)[0][..., self.k]))(self.logits)

    def mode(self) -> Array:
        """The most likely subset, that of the k largest logits; the first of equal ones."""
        rank = jnp.argsort(jnp.argsort(-self.logits, axis=-1, stable=True), axis=-1)
        return (rank < self.k).astype(self.logits.dtype)

    def support(self) -> Array:
        """Every combination of subsets, shape (choose(n, k)^groups, ..., n)."""
        *groups, n = self.logits.shape
        codes = grid(math.comb(n, self.k), math.prod(groups))
        subsets = np.zeros((math.comb(n, self.k), n))
        for row, chosen in zip(subsets, itertools.combinations(range(n), self.k), strict=True):
            row[list(chosen)] = 1
        return jnp.asarray(subsets[codes], self.logits.dtype).reshape(-1, *groups, n)
