r"""Constraints on the weights of a harmonium: projections after each step of a rule, and a soft one beside its loss.

A projection maps a model to a model and is given to `Projected`. Projections are modules whose numbers are leaves, so
that equal ones compare equal. Some choose among the parameters of one law, a gauge: these belong around `Centred`. The
others change the law and belong inside, where a change of the weights leaves the mean fields as they are: around it
they would push the biases at every step.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine._check import require
from ravine._tree import Part
from ravine.core import AbstractRule, Metrics, Row, Scalar
from ravine.rules.contrast import ContrastObjective, PlainAgain, Projected, centred

Weight = Float[Array, "visible hidden"]


class AbstractProjection(eqx.Module):
    """A map of models that does nothing to what it has made."""

    @abc.abstractmethod
    def __call__(self, model: PyTree) -> PyTree:
        """The model projected."""


class Successive(AbstractProjection):
    """Several projections, one after the other: what the last one asks for holds."""

    projections: tuple[AbstractProjection, ...]

    def __call__(self, model: PyTree) -> PyTree:
        for projection in self.projections:
            model = projection(model)
        return model


@runtime_checkable
class KnowsLabels(Protocol):
    """A coupling of which only the first ``free`` hidden units may know a label."""

    weight: Weight
    free: int

    def directions(self, visible: Any) -> Float[Array, "visible labels"]:
        """The covariance of each visible statistic with each label."""
        ...

    def deviations(self, visible: Any, batch: Row) -> tuple[Float[Array, "n visible"], Float[Array, "n labels"]]:
        """Statistics and labels of a batch, less their means."""
        ...


class Uncorrelated(AbstractProjection):
    r"""Every constrained hidden unit has an input that is uncorrelated with the labels of the training rows.

    .. math:: W_c \leftarrow W_c - q q^+ W_c, \quad q = \mathrm{cov}(s(v), u)

    so that :math:`q^\top W_c = 0`: Fernandez-de-Cossio-Diaz, Cocco & Monasson 2023, arXiv:2206.11600. The covariance q
    is that of the statistics that the weights act on, as the coupling of the model knows it. It is linear information
    that is gone: a classifier that is not linear may still read the label.
    """

    def __call__(self, model: PyTree) -> PyTree:
        coupling = model.coupling
        require(isinstance(coupling, KnowsLabels), "Uncorrelated", "a coupling that knows labels",
                type(coupling).__name__, "use ravine.models.disentangled.Constrained")  # fmt: skip
        kept = uncorrelated(coupling.weight[:, coupling.free :], coupling.directions(_plain(model).visible))
        return _with_weight(model, coupling.weight.at[:, coupling.free :].set(kept))


def uncorrelated(weight: Weight, directions: Float[Array, "visible labels"]) -> Weight:
    """The nearest weights that are orthogonal to all directions, which need not be independent.

    Examples
    --------
    >>> uncorrelated(jnp.eye(2), jnp.array([[0.0], [3.0]])).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    along = jnp.matmul(jnp.linalg.pinv(directions), weight, precision="highest")
    return weight - jnp.matmul(directions, along, precision="highest")


def disentangling(rule: AbstractRule, gauge: AbstractProjection, follow: float = 0.01) -> AbstractRule:
    """The rule with centred gradients and `Uncorrelated` weights, in a gauge.

    The projection is on both sides of the centring: inside it leaves the mean fields alone, and outside, where
    nothing but rounding is left of it to do, it makes good what the gauge has rounded.
    """
    inside = centred(Projected(rule, Uncorrelated()), follow)
    return Projected(inside, Successive((gauge, Uncorrelated())))


@runtime_checkable
class Levelled(Protocol):
    """Units that are one of several levels each, with one statistic and one bias for each cell and level."""

    levels: int
    bias: Any


class ZeroSum(AbstractProjection):
    """The gauge in which weights and biases of a cell of levels sum to zero over its levels; the law stays.

    What is taken from the weights goes to the biases of the hidden units. Other visible units are left as they are.
    Rounding may break another constraint a little, so that one belongs after it.
    """

    def __call__(self, model: PyTree) -> PyTree:
        units = model.visible
        if not isinstance(units, Levelled):
            return model
        weight, bias = model.coupling.weight, units.bias
        blocks = weight.reshape(-1, units.levels, weight.shape[1])
        mean = jnp.mean(blocks, axis=1, keepdims=True)
        hidden = model.hidden.pushed(jnp.sum(mean, axis=(0, 1)))
        visible = dataclasses.replace(units, bias=bias - jnp.mean(bias, axis=-1, keepdims=True))  # pyright: ignore
        return _with_weight(
            dataclasses.replace(model, visible=visible, hidden=hidden), (blocks - mean).reshape(weight.shape)
        )


class NormClip(AbstractProjection):
    """The weights of no hidden unit have a Euclidean norm above ``max_norm``."""

    max_norm: float | Array

    def __call__(self, model: PyTree) -> PyTree:
        weight = model.coupling.weight
        return _with_weight(model, weight * jnp.minimum(1, self.max_norm / _norms(weight)))


class IncomingNorm(AbstractProjection):
    """The weights that come into any one cell have a Euclidean norm of at most ``max_norm``.

    Parameters
    ----------
    parts : attribute paths of the model; all matrices there, of shape (cells, inputs), are projected.
    max_norm : the bound.

    Examples
    --------
    >>> class Net(eqx.Module):
    ...     weight: jnp.ndarray
    >>> IncomingNorm(("weight",))(Net(jnp.array([[4.0, 0.0], [0.0, 0.5]]))).weight.tolist()
    [[1.0, 0.0], [0.0, 0.5]]
    """

    parts: tuple[str, ...] = eqx.field(static=True)
    max_norm: float | Array = 1.0

    def __call__(self, model: PyTree) -> PyTree:
        for path in self.parts:
            part = Part(path).get(model)
            matrices = [leaf for leaf in jax.tree.leaves(part) if eqx.is_inexact_array(leaf)]
            if matrices:
                model = Part(path).set(model, jax.tree.map(self._clipped, part))
        return model

    def _clipped(self, leaf: Any) -> Any:
        if not eqx.is_inexact_array(leaf):
            return leaf
        return leaf * jnp.minimum(1, self.max_norm / _norms(leaf.T)).T


@runtime_checkable
class Scaled(Protocol):
    """Units of reals that have a scale of their own."""

    bias: Any
    log_scale: Any


class UnitNorm(AbstractProjection):
    """The gauge in which the weights of each hidden unit have norm 1, for units with a scale of their own.

    The units take the norm over, and the law stays: what a hidden unit does depends on its weights over its scale.

    Raises
    ------
    ValueError
        When the hidden units have no scale: the norm of their weights is part of the law. `NormClip` bounds it.
    """

    def __call__(self, model: PyTree) -> PyTree:
        units, weight = model.hidden, model.coupling.weight
        want, got = "hidden units with a scale, such as GaussianUnits", type(units).__name__
        require(isinstance(units, Scaled), "UnitNorm", want, got, "bound the norm: NormClip(...)")
        norm = _norms(weight)[0]
        there = {"bias": units.bias / norm, "log_scale": units.log_scale - jnp.log(norm)}
        return _with_weight(dataclasses.replace(model, hidden=dataclasses.replace(units, **there)), weight / norm[None])


def _norms(weight: Weight) -> Float[Array, "1 hidden"]:
    """The norm of each column; 1 for one of zeros, which no factor changes."""
    square = jnp.sum(weight**2, axis=0, keepdims=True)
    return jnp.sqrt(jnp.where(square > 0, square, 1))


def _plain(model: PyTree) -> PyTree:
    return model.plain() if isinstance(model, PlainAgain) else model


def _with_weight(model: PyTree, weight: Weight) -> PyTree:
    return eqx.tree_at(lambda m: m.coupling.weight, model, weight)


class SecondOrder(eqx.Module):
    r"""A contrast, and a penalty on what products of two constrained inputs tell of the labels.

    .. math:: \frac{\lambda}{2} \sum_k \lVert W_c^\top Q_k W_c \rVert_F^2, \quad
        Q_k = E[(s - \bar s)(s - \bar s)^\top (u_k - \bar u_k)]

    The covariance matrix of the inputs is then much the same for every label: arXiv:2206.11600. No :math:`Q_k` is
    formed; see `second_order` for how a batch estimates it.

    Parameters
    ----------
    objective : the contrast.
    weight : :math:`\lambda`.
    """

    objective: ContrastObjective
    weight: float | Array = 1.0

    def __call__(
        self, model: PyTree, batch: Row, negatives: PyTree[Array], *, key: PRNGKeyArray
    ) -> tuple[Scalar, Metrics]:
        loss, metrics = self.objective(model, batch, negatives, key=key)
        coupling = model.coupling
        penalty = second_order(coupling.weight[:, coupling.free :], *coupling.deviations(_plain(model).visible, batch))
        return loss + 0.5 * self.weight * penalty, metrics | {"second_order": penalty}


def with_second_order(objective: ContrastObjective, weight: float) -> ContrastObjective:
    """The contrast with the penalty; the contrast itself where its weight is 0."""
    return SecondOrder(objective, weight) if weight else objective


def second_order(weight: Weight, statistics: Float[Array, "n visible"], labels: Float[Array, "n labels"]) -> Scalar:
    """An estimate of the sum of squares of all W'QW from two halves of a batch of independent rows, without bias.

    The square of one estimate would be too large by its variance; the product of two that are independent is not.
    The gradient, of which the mean is 4 Q W (W'QW), takes products of the rows with the weights only.
    """
    half = statistics.shape[0] // 2
    one = label_moments(weight, statistics[:half], labels[:half])
    return jnp.sum(one * label_moments(weight, statistics[half : 2 * half], labels[half : 2 * half]))


def label_moments(
    weight: Weight, statistics: Float[Array, "n visible"], labels: Float[Array, "n labels"]
) -> Float[Array, "labels hidden hidden"]:
    """W'QW for each label, as the rows have it: statistics and labels are counted from their means."""
    inputs = statistics @ weight
    return jnp.einsum("nk,ni,nj->kij", labels, inputs, inputs) / statistics.shape[0]
