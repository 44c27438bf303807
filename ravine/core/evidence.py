"""How likely a row is, and what kind of number that is."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from typing import Literal, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine.core.row import Row, rows_in

Direction = Literal["exact", "lower", "upper", "estimate"]


class LogLikelihood(NamedTuple):
    """log p(x) of a batch, and what kind of number it is.

    ``value`` and ``standard_error`` (Monte Carlo, per row; 0 when exact) are in nats per row; ``shared_error`` is the
    standard error of what all rows have in common, such as log Z, which no number of rows makes smaller.
    """

    value: Float[Array | np.ndarray, " n"]
    standard_error: Float[Array | np.ndarray, " n"]
    direction: Direction
    method: str
    shared_error: float = 0.0


class AbstractEvidence(eqx.Module):
    """A way to evaluate log p(x) for a batch; says in which direction it errs."""

    direction: eqx.AbstractClassVar[Direction]

    @abc.abstractmethod
    def __call__(
        self, model: PyTree, batch: Row, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Value and Monte Carlo standard error per row, in nats."""

    @abc.abstractmethod
    def method(self) -> str:
        """Short name that travels with the number, such as ``importance-1000``."""

    def prepared(self, model: PyTree, *, key: PRNGKeyArray) -> AbstractEvidence:
        """The evidence with what is computed once for a model, such as log Z."""
        return self

    def parts(self, model: PyTree, batch: Row) -> Iterable[tuple[np.ndarray, AbstractEvidence]]:
        """The places of rows, and how these are to be evaluated, where that is not the same for all rows."""
        return [(np.arange(rows_in(batch)), self)]

    def shared_error(self) -> float:
        """Standard error of what all rows have in common, in nats."""
        return 0.0
