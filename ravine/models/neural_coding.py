r"""Neural generative coding: layers of rate-coded cells whose error cells drive them, and what they learn by.

Ororbia & Kifer 2022, *The neural coding framework for learning generative models*, Nature Communications 13:2064,
arXiv:2012.03405. Layers are counted from the lowest, :math:`z_1`; :math:`z_0` is the row.

.. math::
    \mu_l &= g_l(W_{l+1} \phi(z_{l+1}) + S_{l+2} \phi(z_{l+2})), \qquad e_l = \Pi_l (z_l - \mu_l) \\
    \dot z_l &= -e_l + E_l e_{l-1} - V_l \phi(z_l)

The top has no prediction and no error of its own. How the law of rows is read off is the paper's: a law of the top
layer, fitted to where it settles, and from there predictions downwards without noise.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine._check import require
from ravine._tree import Fixed, unfix
from ravine.core import AbstractDirected, AbstractDistribution, AbstractInference, Row, Scalar
from ravine.dist import Gaussian
from ravine.models.errors import AbstractErrors, AbstractRealErrors, BitErrors, CorrelatedErrors, UnitErrors
from ravine.models.families import AbstractFamily, Spread, some_rows
from ravine.models.laws import MixtureLaw
from ravine.models.mixture import Mixture
from ravine.posteriors import Point

Vector = Float[Array, " _cells"]
Matrix = Float[Array, "_below _above"]
States = tuple[Float[Array, " _cells"], ...]
Activation = Callable[[Array], Array]
AT_ONCE = 500  # rows that settle together


class AbstractFeedback(eqx.Module):
    """How the error cells of a layer drive the layer above."""

    @abc.abstractmethod
    def sized(self, weights: tuple[Matrix, ...], spread: float, *, key: PRNGKeyArray) -> AbstractFeedback:
        """The feedback with weights of its own, if it has any, for a net with these ones."""

    @abc.abstractmethod
    def drive(self, i: int, weight: Matrix, error: Vector, slope: Callable[[Array], Array]) -> Vector:
        """What errors of the layer below put on layer ``i + 1``; ``slope`` multiplies by that of its activation."""

    @abc.abstractmethod
    def lesson(self, i: int, error: Vector, activity: Vector) -> Scalar:
        """What the feedback learns from; its gradient is minus the change."""


class SlopedTranspose(AbstractFeedback):
    """The weights of the predictions transposed, times the slope of the activation: the gradient of the discrepancy."""

    def sized(self, weights: tuple[Matrix, ...], spread: float, *, key: PRNGKeyArray) -> AbstractFeedback:
        return self

    def drive(self, i: int, weight: Matrix, error: Vector, slope: Callable[[Array], Array]) -> Vector:
        return slope(error @ weight)

    def lesson(self, i: int, error: Vector, activity: Vector) -> Scalar:
        return jnp.zeros((), error.dtype)


class Transpose(AbstractFeedback):
    """The weights of the predictions transposed; no cell knows the slope of its activation."""

    def sized(self, weights: tuple[Matrix, ...], spread: float, *, key: PRNGKeyArray) -> AbstractFeedback:
        return self

    def drive(self, i: int, weight: Matrix, error: Vector, slope: Callable[[Array], Array]) -> Vector:
        return error @ weight

    def lesson(self, i: int, error: Vector, activity: Vector) -> Scalar:
        return jnp.zeros((), error.dtype)


class Separate(AbstractFeedback):
    """Weights E of its own, of shape (above, below), learned by the same products, transposed.

    Attributes
    ----------
    matrices : E of each layer, the lowest first; empty before `sized`.
    """

    matrices: tuple[Matrix, ...] = ()

    def sized(self, weights: tuple[Matrix, ...], spread: float, *, key: PRNGKeyArray) -> AbstractFeedback:
        keys = jr.split(key, len(weights))
        return Separate(tuple(spread * jr.normal(k, w.shape[::-1]) for w, k in zip(weights, keys, strict=True)))

    def drive(self, i: int, weight: Matrix, error: Vector, slope: Callable[[Array], Array]) -> Vector:
        return error @ self.matrices[i].T

    def lesson(self, i: int, error: Vector, activity: Vector) -> Scalar:
        return -activity @ (error @ self.matrices[i].T)


class Competition(eqx.Module):
    r"""Lateral synapses V within groups of neighbours: cells inhibit the others of their group, and excite themselves.

    .. math:: V_{ii} = -\alpha, \qquad V_{ij} = \beta \text{ within a group, else } 0

    It acts as :math:`-V \phi(z)`, and is not learned.

    Parameters
    ----------
    group, top_group : cells of a group, in the lower layers and in the top one; they divide the size of a layer.
    excitation, inhibition : :math:`\alpha` and :math:`\beta`.

    Examples
    --------
    >>> Competition(2, 2, 0.5, 0.25).matrix(4, 2).tolist()[0]
    [-0.5, 0.25, 0.0, 0.0]
    """

    group: int = eqx.field(static=True, default=12)
    top_group: int = eqx.field(static=True, default=18)
    excitation: float = eqx.field(static=True, default=0.15)
    inhibition: float = eqx.field(static=True, default=0.1)

    def __call__(self, activity: Vector, group: int) -> Vector:
        """V times the activities of a layer."""
        grouped = activity.reshape(-1, group)
        together = jnp.broadcast_to(jnp.sum(grouped, axis=1, keepdims=True), grouped.shape).ravel()
        return self.inhibition * together - (self.inhibition + self.excitation) * activity

    def divides(self, sizes: tuple[int, ...]) -> None:
        """Refuse layers, the lowest first, that are not made of whole groups.

        Raises
        ------
        ValueError
            When a group does not divide its layer.
        """
        groups = (*(self.group for _ in sizes[1:]), self.top_group)
        odd = [(n, group) for n, group in zip(sizes, groups, strict=True) if n % group]
        n, group = odd[0] if odd else (0, 1)
        do = "change it, or the groups of Competition(group, top_group)"
        require(not odd, "hidden", f"a multiple of the {group} cells of a group", f"{n}", do)

    def matrix(self, cells: int, group: int) -> Float[Array, "cells cells"]:
        """V of a layer."""
        return jax.vmap(lambda e: self(e, group))(jnp.eye(cells))


class NeuralCircuit(eqx.Module):
    """A member of the family: how the cells of all layers are wired.

    Parameters
    ----------
    activation : of the cells.
    outward : of the predictions of hidden layers.
    feedback : how errors drive the layer above.
    competition : lateral synapses; None has none.
    correlated : errors of hidden layers are weighted by a precision matrix, which is learned.
    skips : predictions see the second layer above, too.
    sparsity : strength of the Laplace prior that pulls cells towards 0.
    """

    activation: Activation = eqx.field(static=True)
    outward: Activation = eqx.field(static=True)
    feedback: AbstractFeedback
    competition: Competition | None = None
    correlated: bool = eqx.field(static=True, default=False)
    skips: bool = eqx.field(static=True, default=False)
    sparsity: float = eqx.field(static=True, default=0.0)

    def __call__(
        self,
        widths: tuple[int, ...],
        mixture: tuple[AbstractFamily, int],
        settling: AbstractInference,
        spread: float = 0.05,
        *,
        key: PRNGKeyArray,
    ) -> NeuralCoder:
        """A net of bits with small random weights; what is on top is no law of anything yet.

        Parameters
        ----------
        widths : of the row and of each layer, the lowest first.
        mixture : the family of the law of the top layer, and how many components it has.
        settling : how the cells settle.
        spread : standard deviation of all weights.

        Raises
        ------
        ValueError
            When groups of competing cells do not divide a layer.
        """
        if self.competition is not None:
            self.competition.divides(widths[1:])
        links, leaps, back, roots = jr.split(key, 4)
        pairs, far = zip(widths[:-1], widths[1:], strict=True), zip(widths[:-2], widths[2:], strict=True)
        weights = _normal(list(pairs), spread, links)
        skips = _normal(list(far), spread, leaps) if self.skips else ()
        wired = eqx.tree_at(lambda c: c.feedback, self, self.feedback.sized(weights, spread, key=back))
        keys = jr.split(roots, len(widths))
        errors = tuple(_errors(self, n, k) for n, k in zip(widths[1:-1], keys, strict=False))
        blank = Row(jnp.zeros((2, widths[-1])), weight=jnp.ones(2))
        top = Mixture(jnp.zeros(mixture[1]), mixture[0](blank, mixture[1]))
        return NeuralCoder(wired, weights, skips, errors, BitErrors(), Fixed(top), settling)


class NeuralCoder(AbstractDirected):
    """Layers of cells, the lowest first, and a law of the top one.

    Latents that are given are the top layer, or a tuple of layers, top first; those that are not given are where they
    are predicted. As a law the latent is the top layer alone.

    Attributes
    ----------
    circuit : the wiring; its feedback holds weights where it has any.
    weights : W of each layer, shape (below, above).
    skips : S of each layer but the lowest, shape (two below, above); empty without them.
    errors : of each hidden layer but the top.
    end : errors of the cells of a row, whose weights are 1.
    top : a mixture of Gaussians, the law of the top layer, fitted when all else is learned.
    settling : how the cells settle.
    """

    circuit: NeuralCircuit
    weights: tuple[Matrix, ...]
    skips: tuple[Matrix, ...]
    errors: tuple[AbstractRealErrors, ...]
    end: AbstractErrors
    top: Fixed
    settling: AbstractInference

    # --- settling and learning

    def posterior(self, row: Row) -> Point:
        """Where the cells settle."""
        return self.settling(self, row)  # pyright: ignore

    def resting(self, row: Row) -> States:
        """All layers, the lowest first, at 0: where cells begin."""
        return tuple(jnp.zeros(weight.shape[1], weight.dtype) for weight in self.weights)

    def inputs(self, z: States) -> States:
        """What the synapses put on the predictions of each layer but the top, before any function, from the row up."""
        phi = [self.circuit.activation(layer) for layer in z]
        found = [a @ weight.T for weight, a in zip(self.weights, phi, strict=True)]
        for i, (skip, a) in enumerate(zip(self.skips, phi[1:], strict=False)):
            found[i] = found[i] + a @ skip.T
        return tuple(found)

    def predictions(self, z: States) -> States:
        """What is predicted of each layer but the top; of a row, the numbers of its law."""
        bottom, *hidden = self.inputs(z)
        return (bottom, *map(self.circuit.outward, hidden))

    def discrepancy(self, latent: PyTree, row: Row) -> Scalar:
        """What all errors cost together, in nats up to a constant."""
        z = latent[::-1]
        bottom, *hidden = self.predictions(z)
        costs = (errors(at, mu) for errors, at, mu in zip(self.errors, z[:-1], hidden, strict=True))
        return sum(costs, self.end(row.x, bottom, row.mask))

    def error_cells(self, z: States, row: Row) -> States:
        """The weighted error of each layer but the top, from the row up; missing cells have none."""
        bottom, *hidden = self.predictions(z)
        first = -jax.grad(lambda mu: self.end(row.x, mu, row.mask))(bottom)
        return (first, *(err.weighted(at - mu) for err, at, mu in zip(self.errors, z[:-1], hidden, strict=True)))

    def pressure(self, z: States, row: Row) -> States:
        """What moves the cells of each layer: errors of their own, those of the layer below, and their neighbours."""
        errors, feedback = self.error_cells(z, row), self.circuit.feedback
        moved = []
        for i, (layer, weight) in enumerate(zip(z, self.weights, strict=True)):
            activity, pull = jax.vjp(self.circuit.activation, layer)
            drive = feedback.drive(i, weight, errors[i], lambda v, pull=pull: pull(v)[0])
            drive = drive - errors[i + 1] if i + 1 < len(z) else drive
            moved.append(drive - self._lateral(activity, top=i + 1 == len(z)))
        return tuple(moved)

    def lesson(self, latent: PyTree, row: Row) -> Scalar:
        """Minus the sum of all products of errors and what their predictions are made of: see `Hebbian`."""
        z = stop_gradient(latent[::-1])
        errors, mus = stop_gradient((self.error_cells(z, row), self.predictions(z)))
        told = [-e @ arrived for e, arrived in zip(errors, self.inputs(z), strict=True)]
        activities = [self.circuit.activation(layer) for layer in z]
        told += [self.circuit.feedback.lesson(i, e, a) for i, (e, a) in enumerate(zip(errors, activities, strict=True))]
        told += [err(at, mu) for err, at, mu in zip(self.errors, z[:-1], mus[1:], strict=True)]
        return sum(told, jnp.zeros(()))

    def active(self, row: Row) -> Float[Array, " layers"]:
        """The share of the cells of each settled layer, the lowest first, whose activity is above 0."""
        z = self.posterior(row).latent[::-1]
        return jnp.stack([jnp.mean(self.circuit.activation(layer) > 0) for layer in z])

    def _lateral(self, activity: Vector, top: bool) -> Vector:
        lateral = self.circuit.competition
        if lateral is None:
            return jnp.zeros_like(activity)
        return lateral(activity, lateral.top_group if top else lateral.group)

    # --- as a law of rows

    def prior(self, context: PyTree = None) -> MixtureLaw:
        mixture = cast(Mixture, unfix(self.top))
        return MixtureLaw(mixture.logits, jax.vmap(mixture.components.law)(jnp.eye(len(mixture.logits))))

    def likelihood(self, z: PyTree, context: PyTree = None) -> AbstractDistribution:
        return self.end.law(self.inputs(self.projected(z))[0])

    def projected(self, z: PyTree) -> States:
        """All layers, the lowest first: those that are given, and the others where they are predicted."""
        given = z[::-1] if isinstance(z, tuple) else (z,)
        layers = list(self.resting(Row(jnp.zeros(0))))
        known = len(layers) - len(given)
        layers[known:] = given
        for i in range(known - 1, -1, -1):
            layers[i] = self.predictions(tuple(layers))[i + 1]
        return tuple(layers)

    def settled(self, row: Row) -> Vector:
        """Where the top layer settles."""
        return self.posterior(row).mean()

    def curvature(self, z: Vector, row: Row) -> Float[Array, "n n"]:
        """A positive definite stand-in for the second derivative of -log p(x, z) in the top layer.

        The Gauss-Newton part of that of the likelihood, and the precisions of the components weighted by how likely
        they are at z.
        """
        numbers = lambda top: self.inputs(self.projected(top))[0]  # noqa: E731
        slope = jax.jacfwd(numbers)(z)
        prior = self.prior()
        share = jax.nn.softmax(prior.logits + jax.vmap(lambda law: law.log_prob(z))(prior.laws))
        own = jnp.tensordot(share, jax.vmap(_precision)(prior.laws), 1)
        return own + slope.T @ self.end.curved(slope, numbers(z), row.mask)


def _precision(law: Any) -> Float[Array, "n n"]:
    """The inverse covariance of a normal law."""
    if isinstance(law, Gaussian):
        return jnp.diag(law.scale**-2)
    root = jax.scipy.linalg.solve_triangular(law.lower(), jnp.eye(len(law.location)), lower=True)
    return root.T @ root


def _normal(shapes: list[tuple[int, int]], spread: float, key: PRNGKeyArray) -> tuple[Array, ...]:
    return tuple(spread * jr.normal(k, s) for s, k in zip(shapes, jr.split(key, len(shapes)), strict=True))


def _errors(circuit: NeuralCircuit, cells: int, key: PRNGKeyArray) -> AbstractRealErrors:
    """Precision 1; where it is learned, with small correlations to start from."""
    if not circuit.correlated:
        return UnitErrors()
    noise = jr.uniform(key, (cells, cells), minval=-0.01, maxval=0.01)
    return CorrelatedErrors(jnp.eye(cells) + jnp.tril(noise, -1))


class FittedTop(eqx.Module):
    """What a stage calls before its first step: the law of the top layer, fitted to where it settles on some rows.

    Parameters
    ----------
    family, components : of the mixture.
    rows : how many, at even distances.
    passes : of expectation-maximisation, from groups that are drawn far apart.
    """

    family: AbstractFamily = eqx.field(static=True)
    components: int = eqx.field(static=True, default=75)
    rows: int = eqx.field(static=True, default=18_000)
    passes: int = eqx.field(static=True, default=50)

    def __call__(self, model: NeuralCoder, source: Any, *, key: PRNGKeyArray) -> NeuralCoder:
        batch = some_rows(source, self.rows)
        settled = _tops(model, batch)
        top = _fitted(self, Row(settled, weight=batch.weight), key)
        return eqx.tree_at(lambda m: m.top, model, Fixed(top), is_leaf=lambda node: isinstance(node, Fixed))


@eqx.filter_jit
def _tops(model: NeuralCoder, batch: Row) -> Float[Array, "n cells"]:
    return jax.lax.map(model.settled, batch, batch_size=AT_ONCE)


@eqx.filter_jit
def _fitted(how: FittedTop, batch: Row, key: PRNGKeyArray) -> Mixture:
    start = Spread()(how.family, batch, how.components, key=key)
    arrays, rest = eqx.partition(start, eqx.is_array)

    def again(_: Array, arrays: PyTree) -> PyTree:
        mixture = eqx.combine(arrays, rest)
        return eqx.filter(mixture.maximise(mixture.expected(batch)[0]), eqx.is_array)

    return eqx.combine(jax.lax.fori_loop(0, how.passes, again, arrays), rest)
