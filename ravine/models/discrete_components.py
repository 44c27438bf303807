"""Components whose cells are bits, codes or counts, independent given the component; and mixtures as components."""

from __future__ import annotations

from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Bool, Float, PyTree

from ravine._tree import Fixed, unfix
from ravine.core import AbstractDistribution, Row, Scalar
from ravine.dist import Bernoulli, Codes, Poisson
from ravine.dist.markov import safe_log
from ravine.models.components import AbstractComponents, Collect, supported
from ravine.models.laws import MixtureLaw


class CellCounts(NamedTuple):
    """Sums over the observed cells of each column: of the shares, and of the shares times what the cell says."""

    counts: Float[Array, "k d"]
    sums: Float[Array, "k d *c"]


class BitComponents(AbstractComponents):
    r"""k laws of independent bits, :math:`P(x_i = 1 \mid c) = \sigma(l_{ci})`: latent class analysis.

    Parameters
    ----------
    logits : log odds of a one, shape (k, d).
    smoothing : how often each value is counted besides what was seen, so that nothing is impossible; a Beta prior of
        parameters 1 + ``smoothing``, whose log density is the penalty.

    Examples
    --------
    >>> two = BitComponents(jnp.array([[-2.0], [2.0]]))
    >>> [round(float(value), 3) for value in two.log_prob_all(Row(jnp.ones(1)))]
    [-2.127, -0.127]
    """

    logits: Float[Array, "k d"]
    smoothing: Fixed = Fixed(0.0)

    def size(self) -> int:
        return self.logits.shape[0]

    def law(self, z: Float[Array, " k"]) -> Bernoulli:
        return Bernoulli(_log_odds(z @ jax.nn.sigmoid(self.logits), z @ jax.nn.sigmoid(-self.logits)))

    def given(self, row: Row) -> Bernoulli:
        return Bernoulli(self.logits)

    def log_prob_all(self, row: Row) -> Float[Array, " k"]:
        return _by_law(self.given(row), row)

    def statistics(self, row: Row, share: Float[Array, " k"]) -> CellCounts:
        x, seen = _cells(row, share.dtype)
        return CellCounts(jnp.outer(share, seen), jnp.outer(share, x))

    def evaluate(self, batch: Row) -> tuple[Float[Array, "n k"], Collect]:
        x, seen = _cells(batch, self.logits.dtype)
        log_prob = x @ self.logits.T - seen @ jax.nn.softplus(self.logits).T
        return log_prob, lambda shares: CellCounts(shares.T @ seen, shares.T @ x)

    def maximise(self, statistics: CellCounts, counts: Float[Array, " k"]) -> Self:
        alive, more = _told(self, statistics), _smoothing(self)
        total = jnp.where(alive, statistics.counts + 2 * more, 1)
        up, down = statistics.sums + more, statistics.counts - statistics.sums + more
        return type(self)(jnp.where(alive, _log_odds(up / total, down / total), self.logits), self.smoothing)

    def log_penalty(self) -> Scalar:
        both = jax.nn.log_sigmoid(self.logits) + jax.nn.log_sigmoid(-self.logits)
        return _smoothing(self) * jnp.sum(both)


class CodeComponents(AbstractComponents):
    r"""k laws of independent codes 0 .. classes - 1, :math:`P(x_i = v \mid c) = \mathrm{softmax}(l_{ci})_v`.

    Parameters
    ----------
    logits : unnormalised log probabilities, shape (k, d, classes).
    smoothing : as in `BitComponents`; a Dirichlet prior of parameters 1 + ``smoothing``.

    Examples
    --------
    >>> one = CodeComponents(jnp.log(jnp.array([[[0.5, 0.25, 0.25]]])))
    >>> round(float(one.log_prob_all(Row(jnp.array([2.0])))[0]), 3)
    -1.386
    """

    logits: Float[Array, "k d c"]
    smoothing: Fixed = Fixed(0.0)

    def size(self) -> int:
        return self.logits.shape[0]

    def law(self, z: Float[Array, " k"]) -> Codes:
        return Codes(safe_log(jnp.tensordot(z, jax.nn.softmax(self.logits), 1)))

    def given(self, row: Row) -> Codes:
        return Codes(self.logits)

    def log_prob_all(self, row: Row) -> Float[Array, " k"]:
        return _by_law(self.given(row), row)

    def statistics(self, row: Row, share: Float[Array, " k"]) -> CellCounts:
        values = self._one_hot(row)
        return CellCounts(jnp.outer(share, _seen(row, share.dtype)), share[:, None, None] * values[None])

    def evaluate(self, batch: Row) -> tuple[Float[Array, "n k"], Collect]:
        seen, values = _seen(batch, self.logits.dtype), self._one_hot(batch)
        flat, (k, d, c) = values.reshape(values.shape[0], -1), self.logits.shape
        log_prob = flat @ jax.nn.log_softmax(self.logits).reshape(k, d * c).T
        return log_prob, lambda shares: CellCounts(shares.T @ seen, (shares.T @ flat).reshape(k, d, c))

    def maximise(self, statistics: CellCounts, counts: Float[Array, " k"]) -> Self:
        alive = _told(self, statistics)[..., None]
        total = statistics.counts[..., None] + self.logits.shape[2] * _smoothing(self)
        shares = (statistics.sums + _smoothing(self)) / jnp.where(alive, total, 1) + jnp.finfo(total.dtype).eps
        return type(self)(jnp.where(alive, jnp.log(shares), self.logits), self.smoothing)

    def log_penalty(self) -> Scalar:
        return _smoothing(self) * jnp.sum(jax.nn.log_softmax(self.logits))

    def _one_hot(self, row: Row) -> Float[Array, "*n d c"]:
        """Which value each observed cell has; zeros for a missing one."""
        seen = _seen(row, self.logits.dtype)[..., None]
        return seen * jax.nn.one_hot(row.x.astype(jnp.int32), self.logits.shape[2], dtype=self.logits.dtype)


class CountComponents(AbstractComponents):
    r"""k laws of independent counts, :math:`x_i \mid c \sim \mathrm{Poisson}(e^{r_{ci}})`.

    Parameters
    ----------
    log_rate : logarithms of the expected counts, shape (k, d).
    smoothing : how many rows of ``typical`` counts, shape (d,), are seen besides the others: a Gamma prior.
    typical : the mean of each column; 1 unless given.

    Examples
    --------
    >>> round(float(CountComponents(jnp.zeros((1, 2))).log_prob_all(Row(jnp.array([0.0, 1.0])))[0]), 3)
    -2.0
    """

    log_rate: Float[Array, "k d"]
    smoothing: Fixed
    typical: Fixed

    def __init__(self, log_rate: Array, smoothing: Fixed | None = None, typical: Fixed | None = None):
        self.log_rate = log_rate
        self.smoothing = Fixed(0.0) if smoothing is None else smoothing
        self.typical = Fixed(jnp.ones(log_rate.shape[1], log_rate.dtype)) if typical is None else typical

    def size(self) -> int:
        return self.log_rate.shape[0]

    def law(self, z: Float[Array, " k"]) -> Poisson:
        return Poisson(safe_log(z @ jnp.exp(self.log_rate)))

    def given(self, row: Row) -> Poisson:
        return Poisson(self.log_rate)

    def log_prob_all(self, row: Row) -> Float[Array, " k"]:
        return _by_law(self.given(row), row)

    def statistics(self, row: Row, share: Float[Array, " k"]) -> CellCounts:
        x, seen = _cells(row, share.dtype)
        return CellCounts(jnp.outer(share, seen), jnp.outer(share, x))

    def evaluate(self, batch: Row) -> tuple[Float[Array, "n k"], Collect]:
        x, seen = _cells(batch, self.log_rate.dtype)
        constant = jnp.sum(gammaln(x + 1), axis=1, keepdims=True)
        log_prob = x @ self.log_rate.T - seen @ jnp.exp(self.log_rate).T - constant
        return log_prob, lambda shares: CellCounts(shares.T @ seen, shares.T @ x)

    def maximise(self, statistics: CellCounts, counts: Float[Array, " k"]) -> Self:
        alive, more = _told(self, statistics), _smoothing(self)
        rate = statistics.sums + more * unfix(self.typical)[None]
        rate = jnp.where(alive, rate / jnp.where(alive, statistics.counts + more, 1), 1)
        log_rate = jnp.log(jnp.maximum(rate, jnp.finfo(rate.dtype).eps))
        return type(self)(jnp.where(alive, log_rate, self.log_rate), self.smoothing, self.typical)

    def log_penalty(self) -> Scalar:
        return _smoothing(self) * jnp.sum(unfix(self.typical)[None] * self.log_rate - jnp.exp(self.log_rate))


class MixedComponents(AbstractComponents):
    r"""k laws that are mixtures of m parts each, :math:`p(x \mid c) = \sum_j w_{cj}\, p_{cj}(x)`.

    Parameters
    ----------
    logits : unnormalised log weights of the parts, shape (k, m).
    parts : the k m laws, those of the first component first.

    Examples
    --------
    >>> parts = BitComponents(jnp.array([[0.0], [9.0]]))
    >>> MixedComponents(jnp.zeros((1, 2)), parts).law(jnp.ones(1)).mean().round(2).tolist()
    [0.75]
    """

    logits: Float[Array, "k m"]
    parts: AbstractComponents

    def __check_init__(self) -> None:
        if self.logits.size != self.parts.size():
            want = f"as many parts as logits, {self.logits.shape[0]} x {self.logits.shape[1]}"
            raise ValueError(f"MixedComponents needs {want}; got {self.parts.size()} parts.")

    def size(self) -> int:
        return self.logits.shape[0]

    def law(self, z: Float[Array, " k"]) -> MixtureLaw:
        each = jax.vmap(self.parts.law)(jnp.eye(self.logits.size, dtype=self.logits.dtype))
        return MixtureLaw(safe_log(z[:, None] * jax.nn.softmax(self.logits)).reshape(-1), each)

    def given(self, row: Row) -> AbstractDistribution:
        by_part = jax.tree.map(lambda leaf: leaf.reshape(*self.logits.shape, *leaf.shape[1:]), self.parts.given(row))
        return jax.vmap(MixtureLaw)(self._joint(self.parts.log_prob_all(row)), by_part)

    def log_prob_all(self, row: Row) -> Float[Array, " k"]:
        return jax.nn.logsumexp(self._joint(self.parts.log_prob_all(row)), axis=-1)

    def statistics(self, row: Row, share: Float[Array, " k"]) -> PyTree[Array]:
        shares = share[:, None] * jax.nn.softmax(self._joint(self.parts.log_prob_all(row)))
        return shares, self.parts.statistics(row, shares.reshape(-1))

    def evaluate(self, batch: Row) -> tuple[Float[Array, "n k"], Collect]:
        log_prob, collect = self.parts.evaluate(batch)
        joint = self._joint(log_prob)

        def shared(shares: Float[Array, "n k"]) -> PyTree[Array]:
            each = shares[..., None] * jax.nn.softmax(joint)
            return jnp.sum(each, axis=0), collect(each.reshape(each.shape[0], -1))

        return jax.nn.logsumexp(joint, axis=-1), shared

    def maximise(self, statistics: PyTree[Array], counts: Float[Array, " k"]) -> Self:
        shares, sums = statistics
        alive = supported(counts)[:, None]
        floor = jnp.finfo(shares.dtype).eps * jnp.where(alive, counts[:, None], 1)
        logits = jnp.where(alive, jnp.log(jnp.where(alive, shares, 1) + floor), self.logits)
        return type(self)(logits, self.parts.maximise(sums, shares.reshape(-1)))

    def log_penalty(self) -> Scalar:
        return self.parts.log_penalty()

    def _joint(self, log_prob: Float[Array, "*n p"]) -> Float[Array, "*n k m"]:
        """log p(x, part | component)."""
        shares = jax.nn.log_softmax(self.logits)
        by_part = log_prob.reshape(*log_prob.shape[:-1], *shares.shape)
        return by_part + jnp.broadcast_to(shares, by_part.shape)


def _seen(row: Row, dtype: jnp.dtype) -> Float[Array, "*n d"]:
    """1 for an observed cell, 0 for a missing one."""
    return jnp.ones(row.x.shape, dtype) if row.mask is None else row.mask.astype(dtype)


def _cells(row: Row, dtype: jnp.dtype) -> tuple[Float[Array, "*n d"], Float[Array, "*n d"]]:
    """The cells, 0 where missing, and which were observed."""
    seen = _seen(row, dtype)
    return jnp.where(seen > 0, row.x, 0), seen


def _by_law(laws: AbstractDistribution, row: Row) -> Float[Array, " k"]:
    """log p(observed cells) under each of k laws."""
    return jax.vmap(lambda law: law.log_prob(row.x, row.mask))(laws)


def _smoothing(components: BitComponents | CodeComponents | CountComponents) -> Scalar:
    return jnp.asarray(unfix(components.smoothing), float)


def _told(components: BitComponents | CodeComponents | CountComponents, statistics: CellCounts) -> Bool[Array, "k d"]:
    """Whether rows or the prior say anything of a cell."""
    return supported(statistics.counts) | (_smoothing(components) > 0)


def _log_odds(up: Float[Array, "..."], down: Float[Array, "..."]) -> Float[Array, "..."]:
    """Logarithm of the ratio of two probabilities, both at least as large as the number type tells from nothing."""
    least = jnp.finfo(up.dtype).eps
    return jnp.log(jnp.maximum(up, least)) - jnp.log(jnp.maximum(down, least))
