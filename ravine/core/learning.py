"""How a model learns, and how rows are read while it does."""

from __future__ import annotations

import abc
from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from ravine.core.row import Metrics, Row, Scalar

Objective = Callable[..., tuple[Scalar, Metrics]]  # (model, batch, *, key) -> (loss to lower, metrics)


class AbstractRule(eqx.Module):
    """How a model learns from a batch. All memory of learning lives in the state.

    A rule that decides that training is over reports it as ``metrics["stopped"]`` and leaves the model alone
    from then on; the loop stops at the end of that chunk.
    """

    @abc.abstractmethod
    def init(self, model: PyTree, batch: Row, *, key: PRNGKeyArray) -> PyTree:
        """The state before the first step."""

    @abc.abstractmethod
    def step(
        self, model: PyTree, state: PyTree, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[PyTree, PyTree, Metrics]:
        """The next model, the next state, and what a person may want to see."""


class AbstractDraw(eqx.Module):
    """The random part of reading a row: binarisation, dequantisation, corruption."""

    @abc.abstractmethod
    def __call__(self, row: Row, *, key: PRNGKeyArray) -> Row:
        """The row as this draw presents it."""
