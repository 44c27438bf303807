"""log p(x) of an energy from its mean field: a lower bound on what a row leaves open, less log Z."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._check import require
from ravine.core import AbstractEnergy, AbstractEvidence, Direction, Row, Scalar
from ravine.evidence.normalised import usual_partition
from ravine.evidence.partition import AbstractPartition

Values = tuple[Float[Array, " n"], Float[Array, " n"]]


@runtime_checkable
class Bounded(Protocol):
    """An energy with a mean field."""

    def log_bound(self, row: Row) -> Scalar:
        """A lower bound on the log of the sum of exp(-energy) over what a row that was `lifted` does not hold."""
        ...


class Variational(AbstractEvidence):
    r"""The mean-field bound of Salakhutdinov & Hinton 2009, :math:`-\langle E \rangle_q + H(q) - \log Z`.

    A lower bound where log Z is exact. Annealing makes log Z err low, and the difference may lie on either side.

    Parameters
    ----------
    partition : how log Z is found; None lists at most 2^20 states, and anneals where there are more.
    """

    partition: AbstractPartition | None = None
    direction: ClassVar[Direction] = "estimate"

    def prepared(self, model: AbstractEnergy, *, key: PRNGKeyArray) -> AbstractEvidence:
        got = type(model).__name__
        require(isinstance(model, Bounded), "Variational", "an energy with a mean field", got, "use Normalised()")
        found = (self.partition or usual_partition(model))(model, key=jr.fold_in(key, 14))
        kind = VariationalBound if found.direction == "exact" else VariationalEstimate
        return kind(jnp.asarray(found.value), found.standard_error, found.method)

    def __call__(self, model: AbstractEnergy, batch: Row, *, key: PRNGKeyArray) -> Values:
        return self.prepared(model, key=key)(model, batch, key=key)

    def method(self) -> str:
        return "mean-field, partition"


class AbstractVariational(AbstractEvidence):
    """The bound, given log Z."""

    log_z: Scalar
    error: float = eqx.field(static=True)
    how: str = eqx.field(static=True)

    def __call__(self, model: AbstractEnergy, batch: Row, *, key: PRNGKeyArray) -> Values:
        assert isinstance(model, Bounded)
        value = jax.vmap(lambda row: model.log_bound(model.lifted(row)))(batch) - self.log_z
        value = jnp.where(jax.vmap(Row.is_empty)(batch), 0.0, value)
        return value, jnp.zeros_like(value)

    def shared_error(self) -> float:
        return self.error

    def method(self) -> str:
        return f"mean-field, {self.how}"


class VariationalBound(AbstractVariational):
    """The bound, given log Z exactly."""

    direction: ClassVar[Direction] = "lower"


class VariationalEstimate(AbstractVariational):
    """The bound, given a log Z that errs low."""

    direction: ClassVar[Direction] = "estimate"
