"""log p(x) of a deep belief net: importance weights of the way up, less log Z of the machine on top."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractEvidence, Direction, Row, Scalar
from ravine.evidence.likelihood import ImportanceWeighted
from ravine.evidence.normalised import usual_partition
from ravine.evidence.partition import AbstractPartition

Values = tuple[Float[Array, " n"], Float[Array, " n"]]


class Layered(AbstractEvidence):
    r"""log of the mean of ``k`` importance weights :math:`p^*(x, h) / q(h \mid x)`, less log Z of the machine on top.

    With ``k=1`` the variational bound of Hinton, Osindero & Teh 2006, as Salakhutdinov & Murray 2008 estimate it. A
    lower bound where log Z is exact. Annealing makes log Z err low, and the difference may lie on either side.

    Parameters
    ----------
    k : draws for each row.
    partition : how log Z is found; None lists at most 2^20 states, and anneals where there are more.
    """

    k: int = eqx.field(static=True, default=100)
    partition: AbstractPartition | None = None
    direction: ClassVar[Direction] = "estimate"

    def prepared(self, model: Any, *, key: PRNGKeyArray) -> AbstractEvidence:
        found = (self.partition or usual_partition(model.top))(model.top, key=jr.fold_in(key, 13))
        kind = LayeredBound if found.direction == "exact" else LayeredEstimate
        return kind(jnp.asarray(found.value), self.k, found.standard_error, found.method)

    def __call__(self, model: Any, batch: Row, *, key: PRNGKeyArray) -> Values:
        return self.prepared(model, key=key)(model, batch, key=key)

    def method(self) -> str:
        return f"importance-{self.k}, partition"


class AbstractLayered(AbstractEvidence):
    """The mean weight, given log Z."""

    log_z: Scalar
    k: int = eqx.field(static=True)
    error: float = eqx.field(static=True)
    how: str = eqx.field(static=True)

    def __call__(self, model: Any, batch: Row, *, key: PRNGKeyArray) -> Values:
        value, error = ImportanceWeighted(self.k)(model, batch, key=key)
        return jnp.where(jax.vmap(Row.is_empty)(batch), 0.0, value - self.log_z), error

    def shared_error(self) -> float:
        return self.error

    def method(self) -> str:
        return f"importance-{self.k}, {self.how}"


class LayeredBound(AbstractLayered):
    """The mean weight, given log Z exactly."""

    direction: ClassVar[Direction] = "lower"


class LayeredEstimate(AbstractLayered):
    """The mean weight, given a log Z that errs low."""

    direction: ClassVar[Direction] = "estimate"
