r"""Predictive coding: layers of latents, each of which predicts the next, and an energy of what the predictions miss.

.. math:: F = \sum_l \tfrac12 e_l^\top \Pi_l e_l - \tfrac12 \log|\Pi_l|, \qquad e_l = z_l - f_l(z_{l-1})

Rao & Ballard 1999, *Predictive coding in the visual cortex*; Whittington & Bogacz 2017, *An approximation of the error
backpropagation algorithm in a predictive coding network with local Hebbian synaptic plasticity*; Millidge, Seth &
Buckley 2021, arXiv:2107.12979.
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ravine._check import require
from ravine._tree import Fixed, unfix
from ravine.core import (
    AbstractDirected,
    AbstractDistribution,
    AbstractInference,
    Row,
    Scalar,
)
from ravine.dist import Ancestral
from ravine.models.errors import AbstractErrors
from ravine.posteriors import Point

States = tuple[Float[Array, "..."], ...]
Map = Callable[[Array], Array]


class Held(eqx.Module):
    """The layers of a net with both ends held at a row: what the free layers between them cost.

    Attributes
    ----------
    first : the prediction of the first free layer, which no free layer changes.
    links : from each free layer to the prediction of the next; the last one predicts the end.
    errors : of each free layer, and of the end.
    end : the layer that is held at the far end; None where it is not known, and costs nothing.
    mask : which cells of the end are known; None when all are.
    start : where the free layers begin to settle.
    """

    first: Array
    links: tuple[Map, ...]
    errors: tuple[AbstractErrors, ...]
    end: Array
    mask: Array | None
    start: States

    def predictions(self, read: States) -> States:
        """What is predicted of each free layer and of the end, by what the links read of the free layers."""
        return (self.first, *(link(z) for link, z in zip(self.links, read, strict=True)))

    def missed(self, values: States, predictions: States) -> Scalar:
        """What the errors of these values cost, in nats up to a constant."""
        *inner, last = self.errors
        free = zip(inner, values, predictions, strict=False)
        costs = [errors(value, prediction) for errors, value, prediction in free]
        return sum(costs, last(self.end, predictions[-1], self.mask))

    def energy(self, z: States) -> Scalar:
        """F of the free layers."""
        return self.missed(z, self.predictions(z))

    def curvature(self, z: States) -> Float[Array, "n n"]:
        """The Gauss-Newton part of the second derivative of F in all free layers, one after the other.

        Second derivatives of links are left out, so that it is positive definite. Exact where links are affine.
        """
        predictions, slopes = self.predictions(z), [_slope(link, x) for link, x in zip(self.links, z, strict=True)]
        blocks = [[jnp.zeros((a.size, b.size), a.dtype) for b in z] for a in z]
        for i, (errors, value) in enumerate(zip(self.errors[:-1], z, strict=True)):
            own = errors.curved(jnp.eye(value.size, dtype=value.dtype), predictions[i])
            blocks[i][i] = blocks[i][i] + own
            if i:
                pulled = errors.curved(slopes[i - 1], predictions[i])
                blocks[i - 1][i - 1] = blocks[i - 1][i - 1] + slopes[i - 1].T @ pulled
                blocks[i][i - 1], blocks[i - 1][i] = -pulled, -pulled.T
        last = self.errors[-1].curved(slopes[-1], predictions[-1], self.mask)
        blocks[-1][-1] = blocks[-1][-1] + slopes[-1].T @ last
        return jnp.block(blocks)


def _slope(link: Map, z: Array) -> Float[Array, "below above"]:
    return jax.jacrev(lambda v: link(v.reshape(z.shape)).ravel())(z.ravel())


def forwards(first: Array, links: tuple[Map, ...]) -> States:
    """The first layer, and each other where the one before predicts it; the last prediction is left out."""
    states = [first]
    for link in links[:-1]:
        states.append(link(states[-1]))
    return tuple(states) if links else ()


class PredictiveNet(eqx.Module):
    """A net from a row to its label whose hidden layers are latents that settle between the two.

    Without a label the layers are at rest where the forward pass puts them: to tell a label nothing has to settle.

    Parameters
    ----------
    read : a row as a vector.
    links : of each layer to the next, any modules; the last one predicts the label.
    errors : of each layer but the row: hidden layers are of real cells, the last one is `ClassErrors` or of real cells,
        with the label as a one-hot vector.
    settling : how the hidden layers settle.

    Examples
    --------
    >>> import jax.random as jr
    >>> from ravine.models.errors import ClassErrors, UnitErrors
    >>> from ravine.nets import perceptrons
    >>> from ravine.recognisers import Filled, FixedPredictions
    >>> links, read = perceptrons((2, 3, 2), jnp.tanh, key=jr.key(0)), Filled(Fixed(jnp.zeros(2)))
    >>> net = PredictiveNet(read, links, (UnitErrors(), ClassErrors()), FixedPredictions(1))
    >>> row = Row(jnp.ones(2), y=jnp.array(1))
    >>> net.logits(row).shape, net.features(row).shape, net.posterior(row).mean().shape
    ((2,), (3,), (3,))
    """

    read: Callable[[Row], Array]
    links: tuple[Map, ...]
    errors: tuple[AbstractErrors, ...]
    settling: AbstractInference

    def __check_init__(self) -> None:
        _as_many("PredictiveNet", self.links, self.errors)

    def logits(self, row: Row) -> Float[Array, " classes"]:
        """What the forward pass predicts of the label."""
        return self.links[-1](self.features(row))

    def features(self, row: Row) -> Float[Array, " features"]:
        """The last hidden layer of the forward pass."""
        h = self.read(row)
        for link in self.links[:-1]:
            h = link(h)
        return h

    def posterior(self, row: Row) -> Point:
        """Where the hidden layers settle."""
        return self.settling(self, row)  # pyright: ignore

    def held(self, row: Row) -> Held:
        """The hidden layers between a row and its label."""
        first, *others = self.links
        begin, others = first(self.read(row)), tuple(others)
        size = jax.eval_shape(self.logits, row).size
        known = None if row.y_mask is None else jnp.broadcast_to(row.y_mask, (size,))
        end = jax.nn.one_hot(row.y, size, dtype=begin.dtype)
        return Held(begin, others, self.errors, end, known, forwards(begin, others))


class PredictiveGenerator(AbstractDirected):
    """Layers of latents from the top down to the cells of a row, each predicted by the one above.

    As a law: each layer is drawn around its prediction. The latents are the tuple of layers, top first.

    Parameters
    ----------
    top : the prediction of the top layer.
    links : of each layer to the next; the last one predicts the cells.
    errors : of the top, of each other layer, and of the cells.
    settling : how the layers settle on a row.
    guess : from a row to where the layers begin to settle, learned to be where they end; None begins at the forward
        pass from the top.

    Examples
    --------
    >>> import jax.random as jr
    >>> from ravine.models.errors import BitErrors, UnitErrors
    >>> from ravine.nets import perceptrons
    >>> from ravine.recognisers import GradientSettling
    >>> links = perceptrons((2, 3, 4), jnp.tanh, key=jr.key(0))
    >>> errors = (UnitErrors(), UnitErrors(), BitErrors())
    >>> model = PredictiveGenerator(Fixed(jnp.zeros(2)), links, errors, GradientSettling(5))
    >>> [layer.shape for layer in model.posterior(Row(jnp.ones(4))).latent]
    [(2,), (3,)]
    """

    top: Array | Fixed
    links: tuple[Map, ...]
    errors: tuple[AbstractErrors, ...]
    settling: AbstractInference
    guess: Callable[[Row], States] | None = None

    def __check_init__(self) -> None:
        _as_many("PredictiveGenerator", (self.top, *self.links), self.errors)

    def prior(self, context: PyTree = None) -> Ancestral:
        first, *others = self.errors[:-1]
        below = (Predicted(link, errors) for link, errors in zip(self.links[:-1], others, strict=True))
        return Ancestral(first.law(unfix(self.top)), *below)

    def likelihood(self, z: PyTree, context: PyTree = None) -> AbstractDistribution:
        """p(x | z); layers that are not given, from the top, are where they are predicted."""
        z = z if isinstance(z, tuple) else (z,)
        h = z[-1]
        for link in self.links[len(z) - 1 : -1]:
            h = link(h)
        return self.errors[-1].law(self.links[-1](h))

    def posterior(self, row: Row) -> Point:
        """Where the layers settle."""
        return self.settling(self, row)  # pyright: ignore

    def settled(self, row: Row) -> States:
        """Where the layers settle, top first."""
        return self.posterior(row).latent

    def curvature(self, z: States, row: Row) -> Float[Array, "n n"]:
        """The Gauss-Newton part of the second derivative of -log p(x, z) in all layers, one after the other."""
        return self.held(row).curvature(z)

    def held(self, row: Row) -> Held:
        """The layers between the prediction of the top and the cells of a row."""
        first = unfix(self.top)
        start = forwards(first, self.links) if self.guess is None else self.guess(row)
        return Held(first, self.links, self.errors, row.x, row.mask, start)


class Predicted(eqx.Module):
    """The law of a layer given the one above."""

    link: Map
    errors: AbstractErrors

    def __call__(self, above: Array) -> AbstractDistribution:
        return self.errors.law(self.link(above))


class UpwardGuess(eqx.Module):
    """A guess of where all layers settle, from the cells upwards; what it gives lists the top first.

    Parameters
    ----------
    read : a row as a vector.
    links : to the lowest layer, from it to the next, and so on.

    Examples
    --------
    >>> UpwardGuess(lambda row: row.x, (jnp.cos, jnp.negative))(Row(jnp.zeros(1)))[0].tolist()
    [-1.0]
    """

    read: Callable[[Row], Array]
    links: tuple[Map, ...]

    def __call__(self, row: Row) -> States:
        h, states = self.read(row), []
        for link in self.links:
            h = link(h)
            states.append(h)
        return tuple(states[::-1])


def linear_energy(weights: tuple[Array, ...], x: Array, y: Array) -> Scalar:
    r"""F of a linear net of unit precision where its hidden layers are at rest between x and y, in closed form.

    .. math:: F^* = \tfrac12 r^\top S^{-1} r, \quad r = y - W_L \cdots W_1 x, \quad
        S = I + \sum_{l=2}^{L} (W_L \cdots W_l)(W_L \cdots W_l)^\top

    The deviations of all layers are independent; S is the covariance of what they add up to at the far end.

    Parameters
    ----------
    weights : W_1 to W_L, each of shape (above, below) in the order of the net.
    x, y : the two ends.

    Examples
    --------
    >>> round(float(linear_energy((jnp.eye(1), jnp.eye(1)), jnp.zeros(1), jnp.ones(1))), 4)  # half of 1 / (1 + 1)
    0.25
    """
    product, spread = jnp.eye(len(y), dtype=y.dtype), jnp.eye(len(y), dtype=y.dtype)
    for weight in weights[:0:-1]:
        product = product @ weight
        spread = spread + product @ product.T
    r = y - product @ (weights[0] @ x)
    return 0.5 * r @ jnp.linalg.solve(spread, r)


def _as_many(name: str, predicted: tuple, errors: tuple) -> None:
    want, got = f"errors of each of {len(predicted)} predicted layers", f"{len(errors)}"
    require(len(predicted) == len(errors), name, want, got, "give one for each")
