"""A rule for one layer of a stack: it sees what the layers below make of a row."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from ravine.core import AbstractRule, Metrics, Row


@runtime_checkable
class Stacked(Protocol):
    """A model of layers, each of which is a model of its own of what the layers below make of a row."""

    def machine(self, i: int) -> Any:
        """Layer i as a model."""
        ...

    def with_machine(self, i: int, machine: Any) -> Any:
        """The stack with what such a model has learned."""
        ...

    def presented(self, row: Row, i: int) -> Row:
        """What layer i sees of a row."""
        ...


class Greedy(AbstractRule):
    """A rule for layer ``i`` of a stack. Bengio et al. 2007; Hinton, Osindero & Teh 2006."""

    rule: AbstractRule
    i: int = eqx.field(static=True)

    def init(self, model: Stacked, batch: Row, *, key: PRNGKeyArray) -> PyTree:
        return self.rule.init(model.machine(self.i), self._presented(model, batch), key=key)

    def step(
        self, model: Stacked, state: PyTree, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[PyTree, PyTree, Metrics]:
        seen = self._presented(model, batch)
        machine, state, metrics = self.rule.step(model.machine(self.i), state, seen, key=key, step=step)
        return model.with_machine(self.i, machine), state, metrics

    def _presented(self, model: Stacked, batch: Row) -> Row:
        return jax.vmap(lambda row: model.presented(row, self.i))(batch)
