"""Settling: the latents of a row go down an energy, and where they come to rest stands for their posterior.

Learning that follows is local: each link sees the layer it reads and the error of the layer it predicts.
"""

from __future__ import annotations

from typing import Any, Protocol, cast, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ravine._check import require
from ravine.core import AbstractInference, Row, Scalar
from ravine.posteriors import Point

States = tuple[Array, ...]


@runtime_checkable
class Layers(Protocol):
    """Free layers between two that are held: see `ravine.models.predictive_coding.Held`."""

    errors: tuple[Any, ...]
    start: States

    def predictions(self, read: States) -> States:
        """What is predicted of each free layer and of the end."""
        ...

    def missed(self, values: States, predictions: States) -> Scalar:
        """What the errors of these values cost."""
        ...

    def energy(self, z: States) -> Scalar:
        """F of the free layers."""
        ...


@runtime_checkable
class Settles(Protocol):
    """A model whose layers can be held at a row."""

    def held(self, row: Row) -> Layers:
        """The layers between two ends."""
        ...


class AbstractSettling(AbstractInference):
    """A recogniser whose posterior is a `ravine.posteriors.Point`. Nothing of it is learned."""


class GradientSettling(AbstractSettling):
    r"""The free layers go down the energy, all at once: :math:`z \leftarrow z - \eta\, \partial F / \partial z`.

    Parameters
    ----------
    steps : how many.
    rate : :math:`\eta`.

    Examples
    --------
    >>> from ravine._tree import Fixed
    >>> from ravine.models.errors import UnitErrors
    >>> from ravine.models.predictive_coding import PredictiveGenerator
    >>> p = PredictiveGenerator(Fixed(jnp.zeros(1)), (jnp.asarray,), (UnitErrors(), UnitErrors()), GradientSettling(50))
    >>> round(float(p.posterior(Row(jnp.ones(1))).mean()[0]), 3)  # half way between 0 and 1
    0.5
    """

    steps: int = eqx.field(static=True, default=20)
    rate: float = eqx.field(static=True, default=0.1)

    def __call__(self, generator: Any, row: Row) -> Point:
        """Where the layers are after all steps."""
        return _descended(settling(generator, row, type(self).__name__), self.steps, self.rate)


class IncrementalSettling(AbstractSettling):
    """`GradientSettling` for nets whose weights learn while it goes on: a recipe then learns by `Incremental`.

    Parameters
    ----------
    steps, rate : as for `GradientSettling`, and for `ravine.rules.Incremental`.
    """

    steps: int = eqx.field(static=True, default=20)
    rate: float = eqx.field(static=True, default=0.1)

    def __call__(self, generator: Any, row: Row) -> Point:
        """Where the layers are after all steps."""
        return _descended(settling(generator, row, type(self).__name__), self.steps, self.rate)


class FixedPredictions(AbstractSettling):
    r"""The errors settle while every prediction, and every derivative, stays as the forward pass has made it.

    .. math:: e_l \leftarrow (1 - \eta)\, e_l + \eta\, \Pi_l^{-1} J_{l+1}^\top \Pi_{l+1} e_{l+1}

    Errors travel a layer at each step. With :math:`\eta = 1` and as many steps as there are hidden layers they are
    those of back-propagation exactly, and so is what the weights learn from them: Song, Lukasiewicz, Xu & Bogacz 2020,
    *Can the brain do backpropagation? Exact implementation of backpropagation in predictive coding networks* (Z-IL);
    Millidge, Tschantz & Buckley 2020, arXiv:2006.04182 (fixed predictions).

    Parameters
    ----------
    steps : how many.
    rate : :math:`\eta`.
    """

    steps: int = eqx.field(static=True, default=2)
    rate: float = eqx.field(static=True, default=1.0)

    def __call__(self, generator: Any, row: Row) -> Point:
        """The forward pass, which the links read, and the values that the errors have settled at."""
        layers = settling(generator, row, type(self).__name__)
        read, free = layers.start, layers.errors[:-1]
        predictions, pull = jax.vjp(layers.predictions, read)

        def on(_: Int[Array, ""], z: States) -> States:
            (force,) = pull(jax.grad(layers.missed, argnums=1)(z, predictions))
            rests = (at - errors.moved(f) for at, errors, f in zip(predictions, free, force, strict=False))
            return tuple(own + self.rate * (rest - own) for own, rest in zip(z, rests, strict=True))

        return Point(jax.lax.fori_loop(0, self.steps, on, read), read)


def _descended(layers: Layers, steps: int, rate: float) -> Point:
    slope = jax.grad(layers.energy)

    def down(_: Int[Array, ""], z: States) -> States:
        return jax.tree.map(lambda own, pull: own - rate * pull, z, slope(z))

    z = jax.lax.fori_loop(0, steps, down, layers.start)
    return Point(z, z)


def settling(generator: Any, row: Row, name: str) -> Layers:
    """The layers of a model between the two ends that a row holds.

    Raises
    ------
    ValueError
        When the model has none.
    """
    got = type(generator).__name__
    require(isinstance(generator, Settles), name, "a model of layers that settle", got, "use another recogniser")
    return cast(Settles, generator).held(row)


@runtime_checkable
class Pressed(Protocol):
    """A net of cells that move: see `ravine.models.neural_coding.NeuralCoder`."""

    def resting(self, row: Row) -> States:
        """Where its layers begin, the lowest first."""
        ...

    def pressure(self, z: States, row: Row) -> States:
        """What moves them."""
        ...


class NeuralSettling(AbstractSettling):
    r"""Cells follow what presses on them for some steps of Euler's method.

    .. math:: z \leftarrow z + \beta\,(\dot z - \gamma z - \lambda\, \mathrm{sign}(z))

    Ororbia & Kifer 2022, arXiv:2012.03405.

    Parameters
    ----------
    steps : how many.
    rate : :math:`\beta`.
    leak : :math:`\gamma`.
    sparsity : :math:`\lambda`, the strength of a Laplace prior.
    """

    steps: int = eqx.field(static=True, default=50)
    rate: float = eqx.field(static=True, default=0.1)
    leak: float = eqx.field(static=True, default=1e-3)
    sparsity: float = eqx.field(static=True, default=0.0)

    def __call__(self, generator: Any, row: Row) -> Point:
        """Where the cells are after all steps, top first."""
        want, got = "a net of cells, such as NeuralCoder", type(generator).__name__
        require(isinstance(generator, Pressed), type(self).__name__, want, got, "use another recogniser")

        def on(_: Int[Array, ""], z: States) -> States:
            pressure = generator.pressure(z, row)
            return tuple(
                at + self.rate * (push - self.leak * at - self.sparsity * jnp.sign(at))
                for at, push in zip(z, pressure, strict=True)
            )

        z = jax.lax.fori_loop(0, self.steps, on, generator.resting(row))[::-1]
        return Point(z, z)
