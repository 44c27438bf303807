"""Expectation-maximisation: exact statistics of a pass over the data, then the parameters that fit them best."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from ravine._tree import AbstractSchedule, all_finite, choose, resolve
from ravine.core import AbstractConjugate, AbstractRule, Metrics, Row, Scalar, rows_in, weights


class Sums(eqx.Module):
    """Weighted sums over rows: expected statistics, log p(x) in nats, and the weight itself."""

    statistics: PyTree[Array]
    evidence: Scalar
    weight: Scalar


class EMState(eqx.Module):
    """What `EM` remembers: the sums of this pass so far, the objective of the last one, whether it is over.

    ``undone`` counts the updates that were not taken because they were not finite.
    """

    sums: Sums
    objective: Scalar
    stopped: Bool[Array, ""]
    undone: Int[Array, ""]


class EM(AbstractRule):
    r"""Expectation-maximisation for an `AbstractConjugate` model. Dempster, Laird & Rubin 1977, JRSS B 39, 1-38.

    Without ``rate`` a pass is ``batches`` batches long: statistics are summed over it under one model, and at its end
    the model is replaced by the one that maximises the expected complete-data log-likelihood. The objective, log p(x)
    plus the model's ``log_penalty``, does not fall from pass to pass. When it rises by less than ``tol`` nats per unit
    of weight (scikit-learn's meaning of ``tol``) the rule stops and leaves the model alone from then on.

    With ``rate`` every batch updates a running mean of the statistics, and the model follows it,

    .. math:: s_t = (1 - \gamma_t) s_{t-1} + \gamma_t \bar s(\text{batch}), \; \theta_t = \arg\max_\theta Q(\theta; s_t)

    which is online EM (Cappé & Moulines 2009, JRSS B 71, 593-613, equation 9). It converges for
    :math:`\sum\gamma_t = \infty`, :math:`\sum\gamma_t^2 < \infty`, such as ``Power(-0.6)``. The first step has rate 1,
    and ``tol`` is not used.

    An update that is not finite, or comes from an objective that is not, is not taken. Without ``rate`` the next pass
    would end in the same way, and the rule stops; with it the next batch is another one, and the rule goes on.

    Metrics are ``objective``, in nats per unit of weight and before the update, ``stopped``, and ``undone``, how many
    updates were not taken.

    Parameters
    ----------
    tol : smallest rise of the objective that goes on, in nats per unit of weight.
    rate : step size of online EM, a number or a schedule; None for passes.
    batches : how many batches make one pass.
    block : rows whose statistics are computed at once; bounds memory, and fits the processor's cache.

    Examples
    --------
    >>> import jax.random as jr
    >>> from ravine.models.linear_gaussian import DiagonalNoise, LinearGaussian
    >>> batch = Row(jr.normal(jr.key(0), (50, 3)) * jnp.array([[1.0, 2.0, 3.0]]))
    >>> model = LinearGaussian(jnp.full((3, 1), 0.5), jnp.zeros(3), DiagonalNoise(jnp.ones(3)))
    >>> rule, step = EM(), jnp.array(0)
    >>> state, objective = rule.init(model, batch, key=jr.key(0)), []
    >>> for _ in range(3):
    ...     model, state, metrics = rule.step(model, state, batch, key=jr.key(0), step=step)
    ...     objective.append(float(metrics["objective"]))
    >>> objective == sorted(objective)
    True
    """

    tol: float | Array = 1e-3
    rate: float | AbstractSchedule | Array | None = None
    batches: int | Int[Array, ""] = 1
    block: int = eqx.field(static=True, default=512)

    def init(self, model: AbstractConjugate, batch: Row, *, key: PRNGKeyArray) -> EMState:
        shapes = eqx.filter_eval_shape(in_blocks, model, batch, self.block)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return EMState(nothing, jnp.full((), -jnp.inf, nothing.evidence.dtype), jnp.array(False), jnp.array(0))

    def step(
        self, model: AbstractConjugate, state: EMState, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[AbstractConjugate, EMState, Metrics]:
        sums = in_blocks(model, batch, self.block)
        if self.rate is not None:
            return _follow(model, state, sums, resolve(self.rate, step))
        sums = jax.tree.map(jnp.add, state.sums, sums)
        objective = (sums.evidence + model.log_penalty()) / sums.weight
        state = EMState(sums, state.objective, state.stopped, state.undone)
        ends = (step + 1) % self.batches == 0
        arrays, static = eqx.partition(model, eqx.is_array)
        finish = lambda arrays: self._finish(eqx.combine(arrays, static), state, objective)  # noqa: E731
        arrays, state = jax.lax.cond(ends, finish, lambda arrays: (arrays, state), arrays)
        return eqx.combine(arrays, static), state, _report(objective, state)

    def _finish(self, model: AbstractConjugate, state: EMState, objective: Scalar) -> tuple[PyTree, EMState]:
        """The end of a pass: the next model's arrays, unless the rule had stopped before."""
        after = model.maximise(state.sums.statistics)
        fails = ~(jnp.isfinite(objective) & all_finite(after)) & ~state.stopped
        after = choose(state.stopped | fails, model, after)
        stopped = state.stopped | fails | (objective - state.objective < self.tol)
        nothing = jax.tree.map(jnp.zeros_like, state.sums)
        return eqx.filter(after, eqx.is_array), EMState(nothing, objective, stopped, state.undone + fails)


def _report(objective: Scalar, state: EMState) -> Metrics:
    return {"objective": objective, "stopped": state.stopped, "undone": state.undone}


def _follow(
    model: AbstractConjugate, state: EMState, sums: Sums, rate: float | Array
) -> tuple[AbstractConjugate, EMState, Metrics]:
    """One step of online EM; ``state.sums`` holds running means, of weight 1 as soon as a row was seen."""
    seen = sums.weight > 0
    scale = 1 / jnp.where(seen, sums.weight, 1)
    share = jnp.where(seen, jnp.where(state.sums.weight > 0, rate, 1), 0).astype(scale.dtype)
    mean = jax.tree.map(lambda old, new: old + share * (scale * new - old), state.sums, sums)
    after, objective = model.maximise(mean.statistics), scale * sums.evidence
    good = jnp.isfinite(objective) & all_finite((after, mean))
    model, mean = choose(seen & good, after, model), choose(good, mean, state.sums)
    state = EMState(mean, objective, state.stopped, state.undone + ~good)
    return model, state, _report(objective, state)


def in_blocks(model: AbstractConjugate, batch: Row, block: int) -> Sums:
    """The model's sums over a batch, at most ``block`` rows at a time.

    All blocks have one size; the last reaches back into the one before it, where its rows weigh nothing.
    """
    rows = rows_in(batch)
    count = -(-rows // block)
    size = -(-rows // count)
    weight = weights(batch)
    if count == 1:
        return Sums(*model.expected(batch), jnp.sum(weight))
    batch = eqx.tree_at(lambda b: b.weight, batch, weight, is_leaf=lambda leaf: leaf is None)

    def of_block(i: Int[Array, ""]) -> Sums:
        start = jnp.minimum(i * size, rows - size)
        here = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), batch)
        fresh = jnp.where(start + jnp.arange(size) >= i * size, here.weight, 0)
        here = eqx.tree_at(lambda b: b.weight, here, fresh)
        return Sums(*model.expected(here), jnp.sum(fresh))

    shapes = jax.eval_shape(of_block, jnp.array(0))
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    add = lambda sums, i: (jax.tree.map(jnp.add, sums, of_block(i)), None)  # noqa: E731
    return jax.lax.scan(add, nothing, jnp.arange(count))[0]
