"""A closed form for the dictionary of a sparse code."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ravine._tree import AbstractSchedule, resolve
from ravine.core import AbstractRule, Metrics, Row, Scalar, weights


@runtime_checkable
class Refittable(Protocol):
    """A model of codes and of a dictionary that can be had from them."""

    def code(self, row: Row) -> Float[Array, " atoms"]:
        """The codes of a row."""
        ...

    def value(self, h: Any, row: Row) -> Scalar:
        """What codes cost."""
        ...

    def refitted(self, batch: Row, codes: Float[Array, "n atoms"], inertia: Any) -> Any:
        """The model with the dictionary of least squared error at these codes."""
        ...


class MOD(AbstractRule):
    """The method of optimal directions: the rows of a batch are coded, then the dictionary is the best at these codes.

    Engan, Aase & Husoy 1999, *Method of optimal directions for frame design*. Columns may come out longer than 1: to
    be put around in `Projected`. Metrics are ``loss``, the value of the batch before the step.

    Parameters
    ----------
    inertia : pull of the dictionary to where it is, beside the mean square of the codes; a small one keeps atoms that
        no row of the batch needs.
    """

    inertia: float | AbstractSchedule | Array = 1e-4

    def init(self, model: Refittable, batch: Row, *, key: PRNGKeyArray) -> PyTree:
        return None

    def step(
        self, model: Refittable, state: PyTree, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[PyTree, PyTree, Metrics]:
        codes = jax.vmap(model.code)(batch)
        share = weights(batch) / jnp.maximum(jnp.sum(weights(batch)), jnp.finfo(codes.dtype).tiny)
        loss = share @ jax.vmap(model.value)(codes, batch)
        return model.refitted(batch, codes, resolve(self.inertia, step)), state, {"loss": loss}
