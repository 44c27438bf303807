"""log p(x) from a mean field: of an energy a lower bound on what a row leaves open, less log Z; of a net the bound."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._check import require
from ravine.core import AbstractEnergy, AbstractEvidence, AbstractLatentModel, Direction, Row, Scalar
from ravine.evidence.normalised import usual_partition
from ravine.evidence.partition import AbstractPartition
from ravine.posteriors import AbstractBounded

Values = tuple[Float[Array, " n"], Float[Array, " n"]]


@runtime_checkable
class Bounded(Protocol):
    """An energy with a mean field."""

    def log_bound(self, row: Row) -> Scalar:
        """A lower bound on the log of the sum of exp(-energy) over what a row that was `lifted` does not hold."""
        ...


class Variational(AbstractEvidence):
    r"""The mean-field bound of Salakhutdinov & Hinton 2009, :math:`-\langle E \rangle_q + H(q) - \log Z`.

    A lower bound where log Z is exact. Annealing makes log Z err low, and the difference may lie on either side. Of a
    belief net with ``inference=MeanFieldInference()`` the lower bound on log p(x) at which that settles; no log Z then.

    Parameters
    ----------
    partition : how log Z is found; None lists at most 2^20 states, and anneals where there are more.
    """

    partition: AbstractPartition | None = None
    direction: ClassVar[Direction] = "estimate"

    def prepared(self, model: AbstractEnergy | AbstractLatentModel, *, key: PRNGKeyArray) -> AbstractEvidence:
        if isinstance(model, AbstractLatentModel):
            return SettledBound()
        got = type(model).__name__
        require(isinstance(model, Bounded), "Variational", "an energy with a mean field", got, "use Normalised()")
        found = (self.partition or usual_partition(model))(model, key=jr.fold_in(key, 14))
        kind = VariationalBound if found.direction == "exact" else VariationalEstimate
        return kind(jnp.asarray(found.value), found.standard_error, found.method)

    def __call__(self, model: AbstractEnergy | AbstractLatentModel, batch: Row, *, key: PRNGKeyArray) -> Values:
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


class SettledBound(AbstractEvidence):
    """The bound at which the inference of a latent model settles. Nothing is drawn: standard error 0."""

    direction: ClassVar[Direction] = "lower"

    def __call__(self, model: AbstractLatentModel, batch: Row, *, key: PRNGKeyArray) -> Values:
        value = jax.vmap(lambda row: _settled(model, row))(batch)
        value = jnp.where(jax.vmap(Row.is_empty)(batch), 0.0, value)
        return value, jnp.zeros_like(value)

    def method(self) -> str:
        return "mean-field"


def _settled(model: AbstractLatentModel, row: Row) -> Scalar:
    posterior = model.posterior(row)
    got, do = type(posterior).__name__, "set inference=MeanFieldInference(), or use ImportanceWeighted()"
    require(isinstance(posterior, AbstractBounded), "Variational", "inference by a bound", got, do)
    assert isinstance(posterior, AbstractBounded)
    return posterior.log_bound
