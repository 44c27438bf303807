"""Chains along the path of an energy: annealed importance sampling, forwards and back.

Neal 2001, *Annealed importance sampling*; Salakhutdinov & Murray 2008 for restricted Boltzmann machines; Grosse,
Ghahramani & Adams 2015, arXiv:1511.02543, for both directions at once.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ravine.core import AbstractEnergy, Row, Scalar, walk

Betas = Float[Array, " betas"]


def forward(model: AbstractEnergy, betas: Betas, row: Row | None = None, *, key: PRNGKeyArray) -> Scalar:
    r"""log w of one chain from the start of the path to the energy: :math:`E[w] = Z`.

    .. math:: \log w = \log Z_0 + \sum_k E_{k-1}(x_{k-1}) - E_k(x_{k-1}), \quad x_k \sim T_k(x_{k-1})

    By Jensen's inequality the mean of log w is at most log Z. With a row that was `lifted`, Z is the sum over the cells
    that it does not hold.
    """
    begin, go = jr.split(key)
    x = model.start(key=begin)
    return _along(model, betas, x if row is None else row.clamp(x), row, False, key=go)[0]


def backward(
    model: AbstractEnergy, betas: Betas, start: PyTree[Array], row: Row | None = None, *, key: PRNGKeyArray
) -> Scalar:
    r"""log w of one chain from a position of the energy back to the start of the path: :math:`E[1/w] = 1/Z`.

    That holds, and the mean of log w is at least log Z, where ``start`` is an exact draw and the kernels are
    reversible.
    """
    return _along(model, betas, start, row, True, key=key)[0]


def _along(
    model: AbstractEnergy, betas: Betas, x: PyTree[Array], row: Row | None, back: bool, *, key: PRNGKeyArray
) -> tuple[Scalar, Float[Array, " steps"]]:
    """log w of a chain, and what each step adds to it."""

    def one(x: PyTree, at: tuple[Scalar, Scalar, Int[Array, ""]]) -> tuple[PyTree, Scalar]:
        low, high, i = at
        kernel = model.at(high).kernel(row)
        x = walk(kernel, x, 1, key=jr.fold_in(key, i)) if back else x
        gain = model.at(low).energy(x) - model.at(high).energy(x)
        return x if back else walk(kernel, x, 1, key=jr.fold_in(key, i)), gain

    pairs = (betas[:-1], betas[1:], jnp.arange(len(betas) - 1))
    _, gains = jax.lax.scan(one, x, pairs, reverse=back)
    return model.log_start(row) + jnp.sum(gains), gains


def even_betas(steps: int) -> Betas:
    """So many equal steps from 0 to 1."""
    return jnp.linspace(0.0, 1.0, steps + 1)


def adapted_betas(model: AbstractEnergy, steps: int, chains: int = 32, *, key: PRNGKeyArray) -> Betas:
    """Steps whose increments of log w have nearly one standard deviation, as a few chains with fewer steps find it.

    They are wide where the law hardly changes with beta. A tenth is spread evenly. Gelman & Meng 1998, section 4.
    """
    pilot = even_betas(max(50, steps // 10))

    def one(key: PRNGKeyArray) -> Float[Array, " steps"]:
        begin, go = jr.split(key)
        return _along(model, pilot, model.start(key=begin), None, False, key=go)[1]

    gains = jax.vmap(one)(jr.split(key, chains))
    effort = jnp.std(gains, axis=0)
    share = 0.9 * effort / jnp.maximum(jnp.sum(effort), 1e-12) + 0.1 / effort.shape[0]
    reached = jnp.concatenate([jnp.zeros(1), jnp.cumsum(share)])
    return jnp.interp(jnp.linspace(0.0, 1.0, steps + 1), reached / reached[-1], pilot).at[-1].set(1.0)


def log_mean(log_w: Float[Array, " n"]) -> Scalar:
    """log of the mean of exp(log_w)."""
    return jax.nn.logsumexp(log_w) - jnp.log(log_w.shape[0])


def bootstrap_error(log_w: Float[Array, " n"], times: int = 1000, *, key: PRNGKeyArray) -> Scalar:
    """Standard deviation of `log_mean` over resamples of the chains with replacement. Efron 1979."""
    n = log_w.shape[0]
    return jnp.std(jax.vmap(lambda k: log_mean(log_w[jr.randint(k, (n,), 0, n)]))(jr.split(key, times)))
