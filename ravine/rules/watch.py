"""Rules that watch another rule: early stopping on held-out rows, and a brake on steps that are not finite."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from ravine._tree import all_finite, choose, resolve
from ravine.core import AbstractRule, Metrics, Objective, Row, Scalar

LEAST_SHARE = 2.0**-10  # a share that fell to zero would never grow back


class BestState(eqx.Module):
    """What `Best` remembers: the model in training, its rule's state, and how the held-out loss went."""

    working: PyTree
    inner: PyTree
    key: PRNGKeyArray
    loss: Scalar
    waited: Int[Array, ""]
    stopped: Bool[Array, ""]


class Best(AbstractRule):
    """Train with ``rule``; the model is the one with the lowest ``objective`` on ``held_out`` so far.

    Every ``every`` steps the objective is evaluated on the held-out rows, always with the same key, so that two
    evaluations differ by the model alone (give a schedule in the objective resolved, or it moves the yardstick).
    After ``patience`` evaluations without a better one training is over. Until an evaluation is finite the model is
    the one that was evaluated last, and before the first the start; `BestState.working` is always the latest.
    Metrics are the rule's own, ``held_out``, the lowest loss so far, and ``stopped``.
    """

    rule: AbstractRule
    objective: Objective
    held_out: Row
    every: int | Int[Array, ""]
    patience: int | Int[Array, ""]

    def init(self, model: PyTree, batch: Row, *, key: PRNGKeyArray) -> BestState:
        inner = self.rule.init(model, batch, key=key)
        infinite = jnp.array(jnp.inf)
        return BestState(model, inner, key, infinite, jnp.array(0), jnp.array(False))

    def step(
        self, model: PyTree, state: BestState, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[PyTree, BestState, Metrics]:
        working, inner, metrics = self.rule.step(state.working, state.inner, batch, key=key, step=step)
        due = (step + 1) % self.every == 0
        arrays, static = eqx.partition((working, model), eqx.is_array)

        def look(arrays: PyTree) -> tuple[PyTree, Scalar, Bool[Array, ""]]:
            working, model = eqx.combine(arrays, static)
            loss = self._held_out_loss(working, state.key, step)
            better = (loss < state.loss) & ~state.stopped
            best = choose((better | jnp.isinf(state.loss)) & ~state.stopped, working, model)
            return eqx.filter(best, eqx.is_array), jnp.where(better, loss, state.loss), better

        # between two looks the best model must not be copied: a step is short, the model large. When to look is the
        # same for all runs side by side; a condition that differed between them would look at every step
        best, loss, better = jax.lax.cond(due, look, lambda arrays: (arrays[1], state.loss, jnp.array(False)), arrays)
        waited = jnp.where(better, 0, state.waited + due)
        stopped = state.stopped | (waited >= self.patience)
        state = BestState(working, inner, state.key, loss, waited, stopped)
        return eqx.combine(best, static[1]), state, metrics | {"held_out": loss, "stopped": stopped}

    def _held_out_loss(self, model: PyTree, key: PRNGKeyArray, step: Int[Array, ""]) -> Scalar:
        loss = resolve(self.objective, step)(model, self.held_out, key=key)[0]
        return jnp.where(jnp.isfinite(loss), loss, jnp.inf).astype(float)


class GuardedState(eqx.Module):
    """What `Guarded` remembers: the rule's state, how much of a step to take, and how many were undone."""

    inner: PyTree
    share: Float[Array, ""]
    undone: Int[Array, ""]


class Guarded(AbstractRule):
    """Undo a step whose metrics are not finite, and take smaller steps for a while.

    A rule whose model may cease to be finite shows it in a metric: `Descend` by the norm of the gradient and the rate.
    To look at every number of the model would cost a small network a tenth of its time.

    After such a step the model and the rule's state are as before it, and the share of each following step that is
    taken is halved, down to `LEAST_SHARE`; it grows back by ``growth`` per good step. ``metrics["undone"]`` counts
    them; the other metrics stay as they came.
    """

    rule: AbstractRule
    growth: float = 1.02

    def init(self, model: PyTree, batch: Row, *, key: PRNGKeyArray) -> GuardedState:
        return GuardedState(self.rule.init(model, batch, key=key), jnp.array(1.0), jnp.array(0))

    def step(
        self, model: PyTree, state: GuardedState, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[PyTree, GuardedState, Metrics]:
        after, inner, metrics = self.rule.step(model, state.inner, batch, key=key, step=step)
        after = jax.tree.map(lambda new, old: _part_way(new, old, state.share), after, model)
        good = all_finite(metrics)
        share = jnp.where(good, state.share * self.growth, 0.5 * state.share)
        undone = state.undone + ~good
        state = GuardedState(choose(good, inner, state.inner), jnp.clip(share, LEAST_SHARE, 1.0), undone)
        return choose(good, after, model), state, metrics | {"undone": undone}


def _part_way(new: PyTree, old: PyTree, share: Scalar) -> PyTree:
    if not eqx.is_inexact_array(new):
        return new
    # what did not move stays to the bit: infinity minus infinity is NaN
    part = (share < 1) & (new != old)
    return jnp.where(part, old + share.astype(new.dtype) * (new - old), new)
