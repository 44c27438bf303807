"""Parts that say how a conjugate model is fitted before its parameters exist: the family, and where learning starts."""

from __future__ import annotations

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine.core import Row
from ravine.models.components import AbstractComponents
from ravine.models.correlated_components import FullCovariance, TiedCovariance
from ravine.models.diagonal_components import DiagonalCovariance, SphericalCovariance
from ravine.models.linear_gaussian import AbstractNoise, DiagonalNoise, LinearGaussian
from ravine.models.mixture import Mixture
from ravine.models.starts import nearest_seeds


class AbstractFamily(eqx.Module):
    """A family of mixture components, called for equal ones.

    ``reg_covar`` is added to the diagonal of every covariance, in the squared units of the data.
    """

    reg_covar: eqx.AbstractVar[float]

    @abc.abstractmethod
    def __call__(self, batch: Row, k: int) -> AbstractComponents:
        """``k`` equal components as wide as the data."""

    @abc.abstractmethod
    def of(self, means: Float[Array, "k d"], covariances: Float[Array, "..."]) -> AbstractComponents:
        """Components with these means and covariances, in the shapes of scikit-learn's ``covariances_``."""


class Full(AbstractFamily):
    """Every component has its own covariance matrix; ``covariances`` has shape (k, d, d)."""

    reg_covar: float = 1e-6

    def __call__(self, batch: Row, k: int) -> FullCovariance:
        return FullCovariance.broad(batch, k, self.reg_covar)

    def of(self, means: Float[Array, "k d"], covariances: Float[Array, "k d d"]) -> FullCovariance:
        return FullCovariance.of(means, covariances, self.reg_covar)


class Tied(AbstractFamily):
    """All components share one covariance matrix; ``covariances`` has shape (d, d)."""

    reg_covar: float = 1e-6

    def __call__(self, batch: Row, k: int) -> TiedCovariance:
        return TiedCovariance.broad(batch, k, self.reg_covar)

    def of(self, means: Float[Array, "k d"], covariances: Float[Array, "d d"]) -> TiedCovariance:
        return TiedCovariance.of(means, covariances, self.reg_covar)


class Diagonal(AbstractFamily):
    """Every component has a variance per column; ``covariances`` has shape (k, d)."""

    reg_covar: float = 1e-6

    def __call__(self, batch: Row, k: int) -> DiagonalCovariance:
        return DiagonalCovariance.broad(batch, k, self.reg_covar)

    def of(self, means: Float[Array, "k d"], covariances: Float[Array, "k d"]) -> DiagonalCovariance:
        return DiagonalCovariance.of(means, covariances, self.reg_covar)


class Spherical(AbstractFamily):
    """Every component has one variance; ``covariances`` has shape (k,)."""

    reg_covar: float = 1e-6

    def __call__(self, batch: Row, k: int) -> SphericalCovariance:
        return SphericalCovariance.broad(batch, k, self.reg_covar)

    def of(self, means: Float[Array, "k d"], covariances: Float[Array, " k"]) -> SphericalCovariance:
        return SphericalCovariance.of(means, covariances, self.reg_covar)


class AbstractStart(eqx.Module):
    """Where the learning of a mixture starts."""

    @abc.abstractmethod
    def __call__(self, family: AbstractFamily, batch: Row, k: int, *, key: PRNGKeyArray) -> Mixture:
        """The mixture before the first iteration."""


class Spread(AbstractStart):
    """Rows drawn far apart (k-means++) found the groups; one maximisation step turns groups into components."""

    def __call__(self, family: AbstractFamily, batch: Row, k: int, *, key: PRNGKeyArray) -> Mixture:
        groups = nearest_seeds(batch, k, key=key)
        return Mixture.from_responsibilities(batch, groups, family(batch, k))


class Given(AbstractStart):
    """A start written out: ``weights`` (k), ``means`` (k, d), ``covariances`` as in scikit-learn, as nested tuples."""

    weights: tuple[float, ...] = eqx.field(static=True)
    means: tuple[tuple[float, ...], ...] = eqx.field(static=True)
    covariances: tuple = eqx.field(static=True)

    def __call__(self, family: AbstractFamily, batch: Row, k: int, *, key: PRNGKeyArray) -> Mixture:
        means, covariances = jnp.asarray(np.asarray(self.means)), jnp.asarray(np.asarray(self.covariances))
        if (len(self.weights), means.shape) != (k, (k, batch.x.shape[1])):
            want = f"{k} weights and means of shape {(k, batch.x.shape[1])}"
            raise ValueError(f"Given must hold {want}, got {len(self.weights)} and {means.shape}.")
        return Mixture(jnp.log(jnp.asarray(np.asarray(self.weights))), family.of(means, covariances))


class Prepare(eqx.Module):
    """What a stage calls before its first step: ``start(batch, key=key)`` on some of the rows, compiled once."""

    start: Callable[..., PyTree] = eqx.field(static=True)
    rows: int = eqx.field(static=True, default=10_000)

    def __call__(self, model: PyTree, source, *, key: PRNGKeyArray) -> PyTree:
        return _started(self.start, some_rows(source, self.rows), key)


@eqx.filter_jit
def _started(start: Callable[..., PyTree], batch: Row, key: PRNGKeyArray) -> PyTree:
    return start(batch, key=key)


def some_rows(source, most: int) -> Row:
    """All rows of a source, or ``most`` of them at even distances, with weights."""
    places = np.linspace(0, source.rows - 1, min(most, source.rows)).round().astype(np.int32)
    rows, places = source.block(places)
    batch = jax.tree.map(lambda leaf: leaf[places], rows)
    leaf = batch.x
    weight = jnp.ones(leaf.shape[0], leaf.dtype) if batch.weight is None else batch.weight
    return eqx.tree_at(lambda b: b.weight, batch, weight, is_leaf=lambda node: node is None)


class MixtureStart(eqx.Module):
    """The start of a mixture of ``k`` components of a family, as a function of the rows."""

    start: AbstractStart = eqx.field(static=True)
    family: AbstractFamily = eqx.field(static=True)
    k: int = eqx.field(static=True)

    def __call__(self, batch: Row, *, key: PRNGKeyArray) -> Mixture:
        return self.start(self.family, batch, self.k, key=key)


class FactorStart(eqx.Module):
    """The start of factor analysis, or of another noise: principal components of the standardised columns."""

    latents: int = eqx.field(static=True)
    noise: type[AbstractNoise] = eqx.field(static=True, default=DiagonalNoise)

    def __call__(self, batch: Row, *, key: PRNGKeyArray) -> LinearGaussian:
        return LinearGaussian.from_moments(batch, self.latents, self.noise)
