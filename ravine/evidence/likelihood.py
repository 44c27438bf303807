"""log p(x) of a batch: in closed form where the model allows it, by importance sampling elsewhere."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine._tree import row_keys
from ravine.core import (
    AbstractDirected,
    AbstractEvidence,
    AbstractPosterior,
    AbstractTractable,
    Direction,
    Latent,
    Row,
    Scalar,
)
from ravine.recognisers import ExactInference


class Exact(AbstractEvidence):
    """The closed form, for models that have one (`AbstractTractable`). Standard error 0."""

    direction: ClassVar[Direction] = "exact"

    def __call__(
        self, model: AbstractTractable, batch: Row, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        value = jax.vmap(model.log_evidence)(batch)
        return value, jnp.zeros_like(value)

    def method(self) -> str:
        return "closed-form"


class ExactGenerator(AbstractEvidence):
    """The closed form of the generator ``p`` of a pair, whatever its recogniser proposes. Standard error 0."""

    direction: ClassVar[Direction] = "exact"

    def __call__(
        self, model: PyTree, batch: Row, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        return Exact()(model.p, batch, key=key)

    def method(self) -> str:
        return "closed-form"


class EnumeratedLatents(AbstractEvidence):
    """log p(x) = log sum_z p(x, z) of a generator whose latents can be listed, layer by layer. Standard error 0.

    The recogniser of the model plays no part. See `ravine.recognisers.ExactInference`.

    Parameters
    ----------
    bits : log2 of the number of pairs of values of neighbouring layers, at most.

    Raises
    ------
    ValueError
        When there are more, or a layer has values that cannot be listed.
    """

    bits: int = eqx.field(static=True, default=20)
    direction: ClassVar[Direction] = "exact"

    def __call__(
        self, model: AbstractDirected, batch: Row, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        value = jax.vmap(lambda row: ExactInference(self.bits)(model, row).log_bound)(batch)
        value = jnp.where(jax.vmap(Row.is_empty)(batch), 0.0, value)
        return value, jnp.zeros_like(value)

    def method(self) -> str:
        return "enumerated"


@runtime_checkable
class Proposing(Protocol):
    """A joint law of rows and latents, and a proposal of the latents of a row."""

    def posterior(self, row: Row) -> AbstractPosterior:
        """q(z | x)."""
        ...

    def log_joint(self, z: Latent, row: Row) -> Scalar:
        """log p(x, z), in nats."""
        ...


class ImportanceWeighted(AbstractEvidence):
    """``log 1/k sum_i p(x, z_i) / q(z_i | x)``, z_i ~ q: a stochastic lower bound that tightens with ``k``.

    Burda, Grosse & Salakhutdinov 2016, arXiv:1509.00519. The log-sum-exp is accumulated over blocks of draws, so
    that memory does not grow with ``k``. The standard error is that of the mean weight, to first order:
    sd(w) / (mean(w) sqrt(k)). A row without observed cells scores exactly 0.
    """

    k: int = eqx.field(static=True, default=1000)
    block: int = eqx.field(static=True, default=128)
    direction: ClassVar[Direction] = "lower"

    def __call__(
        self, model: Proposing, batch: Row, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        keys = row_keys(key, held_cells(batch))
        return jax.vmap(lambda row, k: self._row(model, row, k))(batch, keys)

    def method(self) -> str:
        return f"importance-{self.k}"

    def _row(self, model: Proposing, row: Row, key: PRNGKeyArray) -> tuple[Scalar, Scalar]:
        posterior = model.posterior(row)
        rounds = -(-self.k // self.block)
        block = -(-self.k // rounds)  # blocks of nearly one size: few draws are thrown away

        def draw(key: PRNGKeyArray) -> Scalar:
            z, log_q = posterior.sample(key=key)
            return model.log_joint(z, row) - log_q

        def more(sums: tuple[Scalar, Scalar, Scalar], i: Array) -> tuple[tuple[Scalar, Scalar, Scalar], None]:
            log_w = jax.vmap(draw)(jr.split(jr.fold_in(key, i), block))
            log_w = jnp.where(i * block + jnp.arange(block) < self.k, log_w, -jnp.inf)
            return _accumulate(sums, log_w), None

        start = (jnp.array(-jnp.inf), jnp.array(0.0), jnp.array(0.0))
        (top, first, second), _ = jax.lax.scan(more, start, jnp.arange(rounds))
        value = top + jnp.log(first) - jnp.log(self.k)
        spread = jnp.maximum(second / first**2 - 1.0 / self.k, 0.0)
        empty = row.is_empty()
        return jnp.where(empty, 0.0, value), jnp.where(empty, 0.0, jnp.sqrt(spread))


def _accumulate(sums: tuple[Scalar, Scalar, Scalar], log_w: Float[Array, " b"]) -> tuple[Scalar, Scalar, Scalar]:
    """Running maximum of log w, and the sums of w and w^2 relative to it."""
    top, first, second = sums
    higher = jnp.maximum(top, jnp.max(log_w))
    safe = jnp.where(jnp.isfinite(higher), higher, 0.0)
    w = jnp.exp(log_w - safe)
    shrink = jnp.exp(top - safe)
    return higher, first * shrink + jnp.sum(w), second * shrink**2 + jnp.sum(w**2)


def held_cells(batch: Row) -> PyTree[Array]:
    """What the key of a row may depend on: its observed values, which they are, and its context."""
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), batch.x)
    return batch.x, ones if batch.mask is None else batch.mask, batch.context
