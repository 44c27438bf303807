r"""Products of experts over real vectors, of experts of any kind.

.. math:: p(x) = \frac1Z \prod_m f_m(x) = \frac1Z \exp\Bigl(-\sum_m E_m(x)\Bigr)

Hinton 2002, *Training products of experts by minimizing contrastive divergence*; Welling, Hinton & Osindero 2002 for
Student-t experts. A restricted Boltzmann machine is such a product: an expert for each hidden unit.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Self, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, PRNGKeyArray, PyTree

from ravine._tree import Fixed, unfix
from ravine.core import AbstractEnergy, AbstractKernel, Metrics, Row, Scalar
from ravine.models.energy import CentredHarmonium, Dense, Harmonium
from ravine.models.labelled_energy import LabelledHarmonium
from ravine.models.moves import AbstractMoves, HamiltonianMoves
from ravine.models.unit_groups import Beside
from ravine.models.units import AbstractUnits, GaussianUnits, RectifiedUnits

Point = Float[Array, " d"]
Points = Float[Array, "*many d"]  # of one expert, or of many as one
Numbers = Float[Array, "*many"]


class AbstractExpert(eqx.Module):
    """A factor of a law over R^d."""

    @abc.abstractmethod
    def energy(self, x: Point) -> Scalar:
        """Minus the log of the factor; it need not be normalised."""


class GaussianExpert(AbstractExpert):
    r"""An axis-aligned Gaussian, :math:`E(x) = \sum_i (x_i - m_i)^2 / 2 \sigma_i^2`.

    Parameters
    ----------
    location : the mean m.
    log_scale : log of the standard deviation of each coordinate.

    Examples
    --------
    >>> one, other = GaussianExpert.of([0.0], [1.0]), GaussianExpert.of([3.0], [0.5])
    >>> both = combined([one, other])  # N(0, 1) times N(3, 1/4), renormalised
    >>> both.location.round(6).tolist(), both.variance().round(6).tolist()
    ([2.4000000953674316], [0.20000000298023224])
    """

    location: Points
    log_scale: Points

    @classmethod
    def of(cls, location: Any, scale: Any) -> GaussianExpert:
        """With a mean and a standard deviation for each coordinate."""
        location = jnp.asarray(location, float)
        return cls(location, jnp.broadcast_to(jnp.log(jnp.asarray(scale, float)), location.shape))

    def energy(self, x: Point) -> Scalar:
        return jnp.sum(self.each(x))

    def each(self, x: Point) -> Point:
        """The energy of each coordinate."""
        return 0.5 * ((x - self.location) * jnp.exp(-self.log_scale)) ** 2

    def log_volume(self) -> Point:
        """log of the integral of exp(-energy) over each coordinate."""
        return 0.5 * math.log(2 * math.pi) + self.log_scale

    def variance(self) -> Point:
        """Of each coordinate."""
        return jnp.exp(2 * self.log_scale)

    def sample(self, *, key: PRNGKeyArray) -> Point:
        """A draw of the normalised expert."""
        return self.location + jnp.exp(self.log_scale) * jr.normal(key, self.location.shape, self.location.dtype)


def combined(experts: Sequence[GaussianExpert]) -> GaussianExpert:
    """The product of Gaussian experts, a Gaussian: precisions add, and the mean is the precision-weighted one."""
    precisions = jnp.stack([jnp.exp(-2 * expert.log_scale) for expert in experts])
    pull = jnp.sum(precisions * jnp.stack([expert.location for expert in experts]), axis=0)
    precision = jnp.sum(precisions, axis=0)
    return GaussianExpert(pull / precision, -0.5 * jnp.log(precision))


class UniGauss(AbstractExpert):
    r"""A mixture of an axis-aligned Gaussian and something flat, so that the expert may have no opinion.

    .. math:: f(x) = \pi\, N(x; m, \sigma^2) + (1 - \pi) e^{-v}

    Hinton 2002, section 3. The flat part is uniform over a volume whose log is v. Alone it has no finite integral:
    the product needs a Gaussian expert beside it.

    Parameters
    ----------
    gaussian : the Gaussian part.
    log_odds : log odds of the Gaussian part, :math:`\log \pi / (1 - \pi)`.
    log_volume : v, in what no rule may change.

    Examples
    --------
    >>> expert = UniGauss(GaussianExpert.of([0.0, 0.0], [1.0, 1.0]), jnp.array(0.0), Fixed(jnp.log(100.0)))
    >>> round(float(jnp.exp(-expert.energy(jnp.array([50.0, 0.0])))), 6)  # half of 1 / 100
    0.005
    """

    gaussian: GaussianExpert
    log_odds: Numbers
    log_volume: Fixed

    def energy(self, x: Point) -> Scalar:
        bump = -self.gaussian.energy(x) - jnp.sum(self.gaussian.log_volume())
        here, flat = jax.nn.log_sigmoid(self.log_odds), jax.nn.log_sigmoid(-self.log_odds)
        return -jnp.logaddexp(here + bump, flat - unfix(self.log_volume))


class StudentTExpert(AbstractExpert):
    r"""Heavy tails along one direction, :math:`f(x) = (1 + (w \cdot x)^2 / 2)^{-\alpha}`.

    Welling, Hinton & Osindero 2002, *Learning sparse topographic representations with products of Student-t
    distributions*.

    Parameters
    ----------
    weight : the direction w.
    log_power : log of alpha, which is positive.
    """

    weight: Points
    log_power: Numbers

    def energy(self, x: Point) -> Scalar:
        return jnp.exp(self.log_power) * jnp.log1p(0.5 * (self.weight @ x) ** 2)


class HiddenUnit(AbstractExpert):
    r"""What a hidden bit of a restricted Boltzmann machine says, :math:`f(x) = 1 + e^{b + w \cdot x}`."""

    weight: Points
    bias: Numbers

    def energy(self, x: Point) -> Scalar:
        return -jax.nn.softplus(self.bias + self.weight @ x)


class Many(AbstractExpert):
    """Experts of one kind as one expert: every array of ``experts`` has a leading axis that lists them.

    Examples
    --------
    >>> units = Many(HiddenUnit(jnp.ones((3, 2)), jnp.zeros(3)))
    >>> one = HiddenUnit(jnp.ones(2), jnp.array(0.0))
    >>> float(units.energy(jnp.ones(2)) / one.energy(jnp.ones(2)))
    3.0
    """

    experts: AbstractExpert

    def energy(self, x: Point) -> Scalar:
        return jnp.sum(eqx.filter_vmap(lambda expert: expert.energy(x))(self.experts))


class ProductOfExperts(AbstractEnergy):
    r"""A product of experts, :math:`E(x) = \sum_m E_m(x)`.

    Along the path the energy is :math:`(1 - \beta) E_0 + \beta E`, where E_0 is that of ``base``, a Gaussian that is
    no factor of the product. Give a broad Gaussian expert where the others do not make the integral finite.

    Parameters
    ----------
    experts : the factors; `Many` holds several of one kind.
    base : where annealing, and every chain, starts; about as wide as the data.
    moves : the kernel of its chains.
    sweeps : how many steps of the kernel make a draw.

    Examples
    --------
    >>> unit = GaussianExpert.of([0.0], [1.0])
    >>> model = ProductOfExperts((unit, GaussianExpert.of([3.0], [0.5])), Fixed(unit))
    >>> float(model.energy(jnp.array([1.0])))
    8.5
    """

    experts: tuple[AbstractExpert | Fixed, ...]
    base: Fixed | GaussianExpert
    moves: AbstractMoves = HamiltonianMoves(0.1, 10)
    sweeps: int = eqx.field(static=True, default=200, kw_only=True)

    def energy(self, position: Point) -> Scalar:
        return sum((unfix(expert).energy(position) for expert in self.experts), jnp.array(0.0))

    def lifted(self, row: Row) -> Row:
        return row

    def shown(self, position: Point) -> Point:
        return position

    def kernel(self, row: Row | None = None) -> AbstractKernel:
        return self.moves(self, row)

    def at(self, beta: Scalar) -> Self:
        parts = (Weighed(unfix(self.base), 1 - beta), *(Weighed(unfix(e), beta) for e in self.experts))
        return dataclasses.replace(self, experts=parts)

    def start(self, *, key: PRNGKeyArray) -> Point:
        return unfix(self.base).sample(key=key)

    def log_start(self, row: Row | None = None) -> Scalar:
        base = cast(GaussianExpert, unfix(self.base))
        if row is None:
            return jnp.sum(base.log_volume())
        seen = jnp.ones(row.x.shape, bool) if row.mask is None else row.mask
        return jnp.sum(jnp.where(seen, -base.each(row.x), base.log_volume()))


class Weighed(AbstractExpert):
    """An expert to a power."""

    expert: AbstractExpert
    power: Scalar

    def energy(self, x: Point) -> Scalar:
        return self.power * self.expert.energy(x)


# A product for each class.


class Apart(AbstractEnergy):
    """Energies of one kind side by side, each with a row of its own: the product of their laws.

    A position lists a position of each. To learn it is to learn each of them alone, all in one program.

    Parameters
    ----------
    energies : the energies as one; every array has a leading axis that lists them.
    sweeps : how many steps of their kernels make a draw.
    """

    energies: AbstractEnergy
    sweeps: int = eqx.field(static=True, default=200, kw_only=True)

    @property
    def coupling(self) -> PyTree:
        """Theirs."""
        return cast(Any, self.energies).coupling

    def energy(self, position: PyTree[Array]) -> Scalar:
        return jnp.sum(eqx.filter_vmap(lambda model, x: model.energy(x))(self.energies, position))

    def of(self, x: PyTree[Array]) -> Float[Array, " energies"]:
        """The energy of one position under each."""
        return eqx.filter_vmap(lambda model: model.energy(x))(self.energies)

    def lifted(self, row: Row) -> Row:
        return eqx.filter_vmap(lambda model, row: model.lifted(row))(self.energies, row)

    def shown(self, position: PyTree[Array]) -> PyTree[Array]:
        return eqx.filter_vmap(lambda model, x: model.shown(x))(self.energies, position)

    def kernel(self, row: Row | None = None) -> AbstractKernel:
        return Kernels(self.energies, row)

    def at(self, beta: Scalar) -> Self:
        return dataclasses.replace(self, energies=eqx.filter_vmap(lambda model: model.at(beta))(self.energies))

    def start(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        return eqx.filter_vmap(lambda model, key: model.start(key=key))(self.energies, _keys(self.energies, key))

    def log_start(self, row: Row | None = None) -> Scalar:
        return jnp.sum(eqx.filter_vmap(lambda model, row: model.log_start(row))(self.energies, row))


class Kernels(AbstractKernel):
    """The kernels of energies side by side."""

    energies: AbstractEnergy
    row: Row | None = None

    def init(self, position: PyTree[Array], *, key: PRNGKeyArray) -> PyTree:
        start = lambda model, row, x, key: model.kernel(row).init(x, key=key)  # noqa: E731
        return eqx.filter_vmap(start)(self.energies, self.row, position, _keys(self.energies, key))

    def step(self, state: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Metrics]:
        step = lambda model, row, state, key: model.kernel(row).step(state, key=key)  # noqa: E731
        return eqx.filter_vmap(step)(self.energies, self.row, state, _keys(self.energies, key))

    def position(self, state: PyTree) -> PyTree[Array]:
        return eqx.filter_vmap(lambda model, row, state: model.kernel(row).position(state))(
            self.energies, self.row, state
        )


def _keys(energies: PyTree, key: PRNGKeyArray) -> Key[Array, " energies"]:
    """A key for each of the energies."""
    return jr.split(key, jax.tree.leaves(eqx.filter(energies, eqx.is_array))[0].shape[0])


class ClassExperts(eqx.Module):
    """A product of experts for each class, and a linear map of their unnormalised log scores to log odds of classes.

    What the map learns stands for the log partition functions, which are never needed. Hinton 2002, section 7.

    Parameters
    ----------
    experts : a model for each class.
    weight, bias : of the map.
    """

    experts: Apart
    weight: Float[Array, "classes classes"]
    bias: Float[Array, " classes"]

    def log_scores(self, x: PyTree[Array]) -> Float[Array, " classes"]:
        """log p(x | class) + log Z of the class, in nats."""
        return -self.experts.of(x)

    def logits(self, x: PyTree[Array]) -> Float[Array, " classes"]:
        """log p(class | x) up to a constant."""
        return self.weight @ self.log_scores(x) + self.bias


# What keeps a machine of real columns a law.


class Proper(eqx.Module):
    r"""A projection of a machine of Gaussian visible units, after which its energy has a finite integral.

    No standard deviation is below ``least``: a column of few values would have none. Where hidden units are reals,
    too, the weights are shrunk until :math:`\|W / \sigma \sigma_h\|_2 \le` ``most``, which is less than 1: then the
    energy grows in every direction. Other machines are left as they are.

    Parameters
    ----------
    least : of the standard deviations, in what the model sees.
    most : of the singular values.
    """

    least: float | Array = 0.1
    most: float | Array = 0.99

    def __call__(self, model: Any) -> Any:
        if isinstance(model, Apart):
            return dataclasses.replace(model, energies=eqx.filter_vmap(self)(model.energies))
        if isinstance(model, CentredHarmonium):
            return dataclasses.replace(model, model=self(model.model))
        if isinstance(model, LabelledHarmonium):
            return dataclasses.replace(model, pair=self(model.pair))
        return self._shrunk(dataclasses.replace(model, visible=self._floored(model.visible)))

    def _floored(self, units: AbstractUnits) -> AbstractUnits:
        if isinstance(units, Beside):
            return dataclasses.replace(units, groups=tuple(map(self._floored, units.groups)))
        if not isinstance(units, GaussianUnits):
            return units
        floor = jnp.log(self.least)
        return dataclasses.replace(units, log_scale=jnp.maximum(_log_scale(units), floor).reshape(units.shape))

    def _shrunk(self, model: Harmonium) -> Harmonium:
        visible, hidden = model.visible, model.hidden
        if not (isinstance(visible, GaussianUnits) and isinstance(hidden, GaussianUnits | RectifiedUnits)):
            return model
        weight = cast(Dense, model.coupling).weight
        beside = _log_scale(hidden) if isinstance(hidden, GaussianUnits) else jnp.zeros(weight.shape[1])
        norm = jnp.linalg.norm(weight * jnp.exp(-_log_scale(visible)[:, None] - beside[None]), 2)
        return dataclasses.replace(model, coupling=Dense(weight * jnp.minimum(1, self.most / norm)))


def _log_scale(units: GaussianUnits) -> Float[Array, " cells"]:
    return jnp.broadcast_to(cast(Array, units.log_scale), units.shape).ravel()
