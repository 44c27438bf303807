"""log p(x) of an energy: minus its free energy, less log Z; and the bound of chains that begin at the row itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from ravine._check import require
from ravine._tree import row_keys
from ravine.core import AbstractEnergy, AbstractEvidence, Direction, Row, Scalar
from ravine.evidence.annealing import Betas, adapted_betas, backward, forward, log_mean
from ravine.evidence.likelihood import held_cells
from ravine.evidence.partition import AIS, AbstractPartition, Enumerated, Listable

Values = tuple[Float[Array, " n"], Float[Array, " n"]]
HIDDEN_BITS = 12.0  # of the hidden units that are listed for every row that has holes


@runtime_checkable
class Summing(Protocol):
    """An energy whose hidden units can be listed, so that any cells may be missing."""

    def log_unnormalised(self, row: Row) -> Scalar:
        """log of the sum of exp(-energy) over the cells that a row that was `lifted` does not hold."""
        ...

    def hidden_bits(self) -> float:
        """log2 of how many states that lists."""
        ...


@runtime_checkable
class Completing(Protocol):
    """An energy whose cells have finitely many values."""

    def completable(self, row: Row) -> Bool[Array, ""]:
        """Whether a row that was `lifted` lacks so little that its completions can be listed."""
        ...

    def completions(self, row: Row) -> tuple[PyTree[Array], Bool[Array, " n"]]:
        """Every completion of a row that is `completable`, and which of them count once."""
        ...


class Normalised(AbstractEvidence):
    """log p(x) = -F(x) - log Z. Exact where a group of units is listed, else log Z is annealed and errs low.

    A row with holes is summed over its missing cells: exactly where the hidden units, or the missing cells, have few
    states; else by annealing the missing cells, which is an estimate.

    Parameters
    ----------
    partition : how log Z is found; None lists at most 2^20 states, and anneals where there are more.
    steps, chains : temperatures and chains of a row with many holes.
    """

    partition: AbstractPartition | None = None
    steps: int = eqx.field(static=True, default=500)
    chains: int = eqx.field(static=True, default=10)
    direction: ClassVar[Direction] = "upper"

    def prepared(self, model: AbstractEnergy, *, key: PRNGKeyArray) -> AbstractEvidence:
        require(
            isinstance(model, AbstractEnergy), "Normalised", "an energy", type(model).__name__, "use another evidence"
        )
        there, place = jr.split(jr.fold_in(key, 11))
        found = (self.partition or usual_partition(model))(model, key=there)
        kind = FromPartition if found.direction == "exact" else FromAnnealing
        return kind(jnp.asarray(found.value), found.standard_error, found.method, (self.steps, self.chains), place)

    def __call__(self, model: AbstractEnergy, batch: Row, *, key: PRNGKeyArray) -> Values:
        return self.prepared(model, key=key)(model, batch, key=key)

    def method(self) -> str:
        return "partition"


def usual_partition(model: AbstractEnergy) -> AbstractPartition:
    """Listing at most 2^20 states, else annealing."""
    return Enumerated() if isinstance(model, Listable) and model.bits() <= 20 else AIS()


class AbstractKnown(AbstractEvidence):
    """log p(x), given log Z."""

    log_z: Scalar
    error: float = eqx.field(static=True)
    how: str = eqx.field(static=True)
    effort: tuple[int, int] = eqx.field(static=True)
    key: PRNGKeyArray

    def __call__(self, model: AbstractEnergy, batch: Row, *, key: PRNGKeyArray) -> Values:
        value = jax.vmap(lambda row: _unnormalised(model, row))(batch) - self.log_z
        return _scored(value, batch)

    def shared_error(self) -> float:
        return self.error

    def method(self) -> str:
        return self.how

    def parts(self, model: AbstractEnergy, batch: Row) -> Iterable[tuple[np.ndarray, AbstractEvidence]]:
        """Rows with many holes apart from the others."""
        many = ~np.asarray(jax.vmap(lambda row: _few(model, row))(batch))
        if not many.any():
            return [(np.arange(len(many)), self)]
        betas = adapted_betas(model, self.effort[0], key=self.key)
        annealed = ByChains(self.log_z, self.error, self.how, betas, self.effort[1])
        return [(np.flatnonzero(~many), self), (np.flatnonzero(many), annealed)]


class FromPartition(AbstractKnown):
    """log p(x), given log Z exactly."""

    direction: ClassVar[Direction] = "exact"


class FromAnnealing(AbstractKnown):
    """log p(x), given a log Z that errs low."""

    direction: ClassVar[Direction] = "upper"


class ByChains(AbstractEvidence):
    """log p(x) of rows with many holes: the sum over these is annealed, too. It may err to either side."""

    log_z: Scalar
    error: float = eqx.field(static=True)
    how: str = eqx.field(static=True)
    betas: Betas
    chains: int = eqx.field(static=True)
    direction: ClassVar[Direction] = "estimate"

    def __call__(self, model: AbstractEnergy, batch: Row, *, key: PRNGKeyArray) -> Values:
        def one(row: Row, key: PRNGKeyArray) -> tuple[Scalar, Scalar]:
            known = model.lifted(row)
            log_w = jax.vmap(lambda k: forward(model, self.betas, known, key=k))(jr.split(key, self.chains))
            return log_mean(log_w) - self.log_z, _relative_error(log_w)

        value, error = jax.vmap(one)(batch, row_keys(jr.fold_in(key, 5), held_cells(batch)))
        value, _ = _scored(value, batch)
        return value, jnp.where(value == 0, 0, error)

    def shared_error(self) -> float:
        return self.error

    def method(self) -> str:
        return f"{self.how}, holes by ais-{len(self.betas) - 1}x{self.chains}"


class RAISE(AbstractEvidence):
    """A lower bound on log p(x), by chains from the row itself down the path of the energy.

    Reverse annealed importance sampling: the mean of its weights is what the annealed chain as a model of its own says
    of the row, which is below p(x) on average over rows of the energy. Burda, Grosse & Salakhutdinov 2015,
    arXiv:1412.8566. Rows must be complete.

    Parameters
    ----------
    steps : temperatures.
    chains : independent chains for each row.
    """

    steps: int = eqx.field(static=True, default=1000)
    chains: int = eqx.field(static=True, default=10)
    direction: ClassVar[Direction] = "lower"

    def prepared(self, model: AbstractEnergy, *, key: PRNGKeyArray) -> AbstractEvidence:
        return _Raising(eqx.filter_jit(adapted_betas)(model, self.steps, key=jr.fold_in(key, 12)), self.chains)

    def __call__(self, model: AbstractEnergy, batch: Row, *, key: PRNGKeyArray) -> Values:
        return self.prepared(model, key=key)(model, batch, key=key)

    def method(self) -> str:
        return f"raise-{self.steps}x{self.chains}"


class _Raising(AbstractEvidence):
    betas: Betas
    chains: int = eqx.field(static=True)
    direction: ClassVar[Direction] = "lower"

    def __call__(self, model: AbstractEnergy, batch: Row, *, key: PRNGKeyArray) -> Values:
        def one(row: Row, key: PRNGKeyArray) -> tuple[Scalar, Scalar]:
            x = model.lifted(row).x
            log_w = -jax.vmap(lambda k: backward(model, self.betas, x, key=k))(jr.split(key, self.chains))
            return log_mean(log_w) - model.energy(x), _relative_error(log_w)

        return jax.vmap(one)(batch, row_keys(jr.fold_in(key, 6), held_cells(batch)))

    def parts(self, model: AbstractEnergy, batch: Row) -> Iterable[tuple[np.ndarray, AbstractEvidence]]:
        holes = np.asarray(jax.vmap(lambda row: _missing(model, row))(batch))
        do = "impute first, or use Normalised()"
        require(not holes.any(), "RAISE", "rows without missing cells", f"{int((holes > 0).sum())} with", do)
        return [(np.arange(len(holes)), self)]

    def method(self) -> str:
        return f"raise-{len(self.betas) - 1}x{self.chains}"


def _relative_error(log_w: Float[Array, " n"]) -> Scalar:
    """Standard error of the log of a mean, to first order."""
    w = jnp.exp(log_w - jnp.max(log_w))
    return jnp.std(w, ddof=1) / (jnp.mean(w) * jnp.sqrt(log_w.shape[0]))


def _scored(value: Float[Array, " n"], batch: Row) -> Values:
    value = jnp.where(jax.vmap(Row.is_empty)(batch), 0.0, value)
    return value, jnp.zeros_like(value)


def _missing(model: AbstractEnergy, row: Row) -> Array:
    """How many cells a lifted row does not hold."""
    mask = model.lifted(row).mask
    return sum((jnp.sum(~leaf) for leaf in jax.tree.leaves(mask)), jnp.array(0))


def _few(model: AbstractEnergy, row: Row) -> Bool[Array, ""]:
    """Whether what a row lacks can be summed over exactly."""
    if isinstance(model, Summing) and model.hidden_bits() <= HIDDEN_BITS:
        return jnp.array(True)
    return model.completable(model.lifted(row)) if isinstance(model, Completing) else _missing(model, row) == 0


def _unnormalised(model: AbstractEnergy, row: Row) -> Scalar:
    """log of the sum of exp(-energy) over the little that a row lacks; where it lacks more, it is wrong."""
    known = model.lifted(row)
    if known.mask is None:
        return -model.energy(known.x)
    if isinstance(model, Summing) and model.hidden_bits() <= HIDDEN_BITS:
        return model.log_unnormalised(known)
    if not isinstance(model, Completing):
        return -model.energy(known.x)
    completions, counts = model.completions(known)
    return jax.nn.logsumexp(jnp.where(counts, -jax.vmap(model.energy)(completions), -jnp.inf))
