"""Rules made of rules: alternation, repetition, thinning."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from ravine.core import AbstractDraw, AbstractRule, Metrics, Row, rows_in


class InTurn(AbstractRule):
    """Several rules, one after the other, on the same batch. Metrics carry the rule's number: ``"0.loss"``."""

    rules: tuple[AbstractRule, ...]

    def init(self, model: PyTree, batch: Row, *, key: PRNGKeyArray) -> PyTree:
        keys = jr.split(key, len(self.rules))
        return tuple(rule.init(model, batch, key=k) for rule, k in zip(self.rules, keys, strict=True))

    def step(
        self, model: PyTree, state: PyTree, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[PyTree, PyTree, Metrics]:
        after, metrics = [], {}
        for i, (rule, own, k) in enumerate(zip(self.rules, state, jr.split(key, len(self.rules)), strict=True)):
            model, own, report = rule.step(model, own, batch, key=k, step=step)
            after.append(own)
            metrics |= {f"{i}.{name}": value for name, value in report.items()}
        return model, tuple(after), metrics


class Repeat(AbstractRule):
    """One rule ``times`` times on the same batch, with fresh keys; the metrics are those of the last time."""

    rule: AbstractRule
    times: int = eqx.field(static=True)

    def init(self, model: PyTree, batch: Row, *, key: PRNGKeyArray) -> PyTree:
        return self.rule.init(model, batch, key=key)

    def step(
        self, model: PyTree, state: PyTree, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[PyTree, PyTree, Metrics]:
        dynamic, static = eqx.partition((model, state), eqx.is_array)

        def again(carry: PyTree, k: PRNGKeyArray) -> tuple[PyTree, Metrics]:
            model, state = eqx.combine(carry, static)
            model, state, metrics = self.rule.step(model, state, batch, key=k, step=step)
            return eqx.filter((model, state), eqx.is_array), metrics

        dynamic, metrics = jax.lax.scan(again, dynamic, jr.split(key, self.times))
        return *eqx.combine(dynamic, static), jax.tree.map(lambda m: m[-1], metrics)


class Every(AbstractRule):
    """A rule that acts on every ``period``-th step, the first included; in between its last metrics stand."""

    period: int = eqx.field(static=True)
    rule: AbstractRule

    def init(self, model: PyTree, batch: Row, *, key: PRNGKeyArray) -> PyTree:
        inner = self.rule.init(model, batch, key=key)
        shapes = eqx.filter_eval_shape(self.rule.step, model, inner, batch, key=key, step=jnp.array(0))[2]
        return inner, jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), shapes)

    def step(
        self, model: PyTree, state: PyTree, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[PyTree, PyTree, Metrics]:
        dynamic, static = eqx.partition((model, *state), eqx.is_array)

        def act(dynamic: PyTree) -> PyTree:
            model, inner, _ = eqx.combine(dynamic, static)
            return eqx.filter(self.rule.step(model, inner, batch, key=key, step=step), eqx.is_array)

        after = jax.lax.cond(step % self.period == 0, act, lambda dynamic: dynamic, dynamic)
        model, inner, metrics = eqx.combine(after, static)
        return model, (inner, metrics), metrics


class Redrawn(AbstractRule):
    """A rule whose batch is drawn anew at every step: dynamic binarisation, dequantisation, corruption."""

    draw: AbstractDraw
    rule: AbstractRule

    def init(self, model: PyTree, batch: Row, *, key: PRNGKeyArray) -> PyTree:
        key, draw = jr.split(key)
        return self.rule.init(model, self._drawn(batch, draw), key=key)

    def step(
        self, model: PyTree, state: PyTree, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[PyTree, PyTree, Metrics]:
        key, draw = jr.split(key)
        return self.rule.step(model, state, self._drawn(batch, draw), key=key, step=step)

    def _drawn(self, batch: Row, key: PRNGKeyArray) -> Row:
        return jax.vmap(lambda row, k: self.draw(row, key=k))(batch, jr.split(key, rows_in(batch)))
