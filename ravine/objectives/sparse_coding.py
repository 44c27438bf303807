"""Learning a dictionary: the least that rows cost, as a function of the dictionary."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import Metrics, Row, Scalar, averaged


@runtime_checkable
class Coding(Protocol):
    """A model whose codes of a row are those of the least value."""

    def code(self, row: Row) -> Float[Array, " atoms"]:
        """The codes of a row."""
        ...

    def value(self, h: Any, row: Row) -> Scalar:
        """What codes cost."""
        ...


class LeastCost(eqx.Module):
    r"""The value of rows at their codes, :math:`\min_h v(h, x; D)`.

    At the best codes its slope in D is that of the value with the codes held, by Danskin's theorem: no gradient passes
    through the search. Metrics are ``active``, how many codes of a row are not 0.
    """

    def __call__(self, model: Coding, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        return averaged(lambda row, key: self.loss(model, row), batch, key=key)

    def loss(self, model: Coding, row: Row) -> tuple[Scalar, Metrics]:
        """The value of one row, and how many of its codes are not 0."""
        h = stop_gradient(model).code(row)
        return model.value(h, row), {"active": (h != 0).astype(h.dtype).sum()}
