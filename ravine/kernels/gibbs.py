"""Gibbs sampling by blocks."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Array, PRNGKeyArray, PyTree

from ravine.core import AbstractKernel, Metrics, Row


@runtime_checkable
class Sweeping(Protocol):
    """What knows the conditional laws of its blocks."""

    def swept(self, position: PyTree[Array], row: Row | None, *, key: PRNGKeyArray) -> PyTree[Array]:
        """The position after each block was drawn given the others; cells that the row holds stay."""
        ...


class Gibbs(AbstractKernel):
    """Every block of ``model`` in turn, given the others. Cells that ``row`` holds are held.

    Geman & Geman 1984. Each draw leaves the joint law as it is, and so does the sweep.
    """

    model: Sweeping
    row: Row | None = None

    def init(self, position: PyTree[Array], *, key: PRNGKeyArray) -> PyTree[Array]:
        return position if self.row is None else self.row.clamp(position)

    def step(self, state: PyTree[Array], *, key: PRNGKeyArray) -> tuple[PyTree[Array], Metrics]:
        return self.model.swept(state, self.row, key=key), {}

    def position(self, state: PyTree[Array]) -> PyTree[Array]:
        return state
