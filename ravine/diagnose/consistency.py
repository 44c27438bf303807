"""Whether two halves of one model agree: the joint law of data and recogniser beside that of the generator.

The way up as inference: Flach, Shekhovtsov & Fikar 2017, *Generative learning for deep networks*, arXiv:1709.08524.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine._check import require
from ravine.core import Direction, Row, rows_in
from ravine.evidence import Enumerated
from ravine.evidence.annealing import log_mean
from ravine.evidence.normalised import usual_partition
from ravine.models.deep_belief import DeepBelief
from ravine.models.unit_groups import countable, state_count

MOST = 2**16  # states of all layers that are listed
AT_ONCE = 16  # rows


class ConsistencyGap(NamedTuple):
    r"""The divergence of two joint laws, in nats, and its two parts.

    .. math::
        KL(\hat p(x) q(h \mid x) \,\|\, p(x, h))
        = KL(\hat p(x) \,\|\, p(x)) + E_{\hat p}[KL(q(h \mid x) \,\|\, p(h \mid x))]

    where :math:`\hat p` is the law of the rows, as often as they come.

    Attributes
    ----------
    joint : the whole.
    states : its second part, which a better recogniser could win.
    standard_error : of the whole, of these rows: by the draws of the way up, and of log Z; 0 where all are listed.
    direction : of ``states``: ``exact``, or ``lower``, as importance weights leave some of it unseen.
    """

    joint: float
    states: float
    standard_error: float
    direction: Direction

    @property
    def rows(self) -> float:
        """The first part: how far the law of the generator is from that of the rows."""
        return self.joint - self.states


class Approximations(NamedTuple):
    """How far the way up is from the marginals of p(h | x), in each layer: mean absolute differences.

    Attributes
    ----------
    expected : where units have their expectations under q(h | x).
    deterministic : where expectations are moved inside every conditional: the pass of a feed-forward net.
    """

    expected: tuple[float, ...]
    deterministic: tuple[float, ...]


def consistency_gap(model: DeepBelief, batch: Row, draws: int = 1000, *, key: PRNGKeyArray) -> ConsistencyGap:
    """The gap between the two joint laws of a net: exact where at most 2^16 states are to be listed, else by draws.

    Parameters
    ----------
    model : a net with a way up and a way down.
    batch : complete rows of bits.
    draws : of the way up for each row, where states are not listed.
    key : of these, and of annealing log Z.
    """
    require(batch.mask is None, "consistency_gap", "complete rows", "missing cells", "leave such rows out")
    cells = np.asarray(batch.x).reshape(len(batch.x), -1)
    share = np.unique(cells, axis=0, return_counts=True)[1] / len(cells)
    entropy = -float(share @ np.log(share))
    if _states(model) <= MOST:
        bound, log_p = _listed(model, batch)
        return ConsistencyGap(-entropy - float(bound.mean()), float(np.mean(log_p - bound)), 0.0, "exact")
    climb, anneal = jr.split(key)
    log_z = usual_partition(model.top)(model.top, key=anneal)
    bound, log_p, error = (np.asarray(part) for part in _drawn(model, batch, draws, climb))
    error = math.hypot(float(np.sqrt(np.sum(error**2))) / len(error), log_z.standard_error)
    return ConsistencyGap(log_z.value - entropy - float(bound.mean()), float(np.mean(log_p - bound)), error, "lower")


def approximations(model: DeepBelief, batch: Row) -> Approximations:
    """Both ways to read the way up as inference, beside the posterior, of which all states are listed.

    Raises
    ------
    ValueError
        When there are more than 2^16.
    """
    count = _states(model)
    require(
        count <= MOST, "approximations", f"at most {MOST} states of all layers", f"{count:.3g}", "take a smaller net"
    )
    exact, expected = ([np.asarray(layer) for layer in part] for part in _marginals(model, batch))
    passed = [np.asarray(layer) for layer in _passed(model, batch)]
    away = lambda found: tuple(float(np.mean(abs(a - b))) for a, b in zip(found, exact, strict=True))  # noqa: E731
    return Approximations(away(expected), away(passed))


def _states(model: DeepBelief) -> float:
    return math.prod(state_count(layer.upper) for layer in model.layers)


def _all(model: DeepBelief) -> PyTree[Array]:
    """Every state of the latents, on a leading axis."""
    units = [countable(layer.upper) for layer in model.layers]
    each = [[u.state(jnp.array(d)) for d in itertools.product(*map(range, u.choices()))] for u in units]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *itertools.product(*each))


def _listed(model: DeepBelief, batch: Row) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The bound and log p(x) of each row."""
    log_z = Enumerated()(model.top, key=jr.key(0)).value
    joint, q = _laws(model, batch, _all(model))
    bound, log_p = jnp.sum(jnp.exp(q) * (joint - q), axis=1), jax.nn.logsumexp(joint, axis=1)
    return np.asarray(bound) - log_z, np.asarray(log_p) - log_z


@eqx.filter_jit
def _drawn(model: DeepBelief, batch: Row, draws: int, key: PRNGKeyArray) -> tuple[Array, Array, Array]:
    """The mean of log weights of each row, the log of their mean, and the standard error of the first."""

    def one(of: tuple[Row, PRNGKeyArray]) -> tuple[Array, Array, Array]:
        row, key = of
        z, log_q = jax.vmap(lambda k: model.posterior(row).sample(key=k))(jr.split(key, draws))
        log_w = jax.vmap(lambda z: model.log_joint(z, row))(z) - log_q
        return jnp.mean(log_w), log_mean(log_w), jnp.std(log_w) / draws**0.5

    return jax.lax.map(one, (batch, jr.split(key, rows_in(batch))), batch_size=AT_ONCE)


@eqx.filter_jit
def _laws(model: DeepBelief, batch: Row, states: PyTree[Array]) -> tuple[Float[Array, "n s"], Float[Array, "n s"]]:
    """log p(x, h) but for log Z, and log q(h | x)."""

    def one(row: Row) -> tuple[Array, Array]:
        way = model.posterior(row)
        return jax.vmap(lambda z: model.log_joint(z, row))(states), jax.vmap(way.log_prob)(states)

    return jax.vmap(one)(batch)


def _marginals(model: DeepBelief, batch: Row) -> tuple[list[Array], list[Array]]:
    """The mean statistics of each layer under p(h | x) and under q(h | x)."""
    states = _all(model)
    joint, q = _laws(model, batch, states)
    values = [jax.vmap(layer.upper.statistic)(z) for layer, z in zip(model.layers, states, strict=True)]
    expected = lambda share: [share @ value for value in values]  # noqa: E731
    return expected(jax.nn.softmax(joint, axis=1)), expected(jnp.exp(q))


@eqx.filter_jit
def _passed(model: DeepBelief, batch: Row) -> list[Array]:
    depth = range(1, len(model.layers) + 1)
    return [jax.vmap(lambda row, i=i: model.layers[i - 1].upper.statistic(model.climbed(row, i)))(batch) for i in depth]
