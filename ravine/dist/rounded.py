"""Between discrete laws and their smooth stand-ins: relaxing the one, rounding the other."""

from __future__ import annotations

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._check import require
from ravine.core import AbstractDiscrete, AbstractDistribution, Scalar
from ravine.dist.discrete import Bernoulli, OneHot
from ravine.dist.igr import IGR
from ravine.dist.links import AbstractLink, Shape
from ravine.dist.relaxed import AbstractRelaxed, BinaryConcrete, ExpConcrete

Heat = Float[Array, ""] | float


class Rounded(AbstractDiscrete):
    """The one-hot law of the largest coordinate of each cell of an `IGR`; `relaxed_law` takes it back.

    Examples
    --------
    >>> d = Rounded(IGR(jnp.zeros(2), jnp.ones(2), 0.5))
    >>> print(d.mean().round(4))
    [0.375 0.375 0.25 ]
    """

    soft: IGR

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """One-hot vectors."""
        return self.soft.discrete().sample(key=key)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log mass of the observed cells, in nats."""
        return self.soft.discrete().log_prob(value, mask)

    def mean(self) -> Array:
        """Probability of each class."""
        return self.soft.discrete().mean()

    def support(self) -> Array:
        """Every combination of classes."""
        return self.soft.discrete().support()


class IGRClasses(AbstractLink):
    """One-hot cells that are a rounded `IGR`: a location and a scale for each class but the last.

    Parameters
    ----------
    temperature : of the map onto the simplex, a positive number.
    floor : smallest scale.

    Raises
    ------
    ValueError
        When the temperature is not positive.

    Examples
    --------
    >>> IGRClasses()(jnp.zeros(4), (1, 3)).mean().shape
    (1, 3)
    """

    temperature: float = eqx.field(static=True, default=0.5)
    floor: float = eqx.field(static=True, default=1e-3)

    def __check_init__(self) -> None:
        require(self.temperature > 0, "temperature of IGRClasses", "above 0", f"{self.temperature}", "change it")

    def size(self, shape: Shape) -> int:
        """Two numbers a class but the last of a cell: all locations, then all scales."""
        return 2 * math.prod(_cuts(shape))

    def __call__(self, raw: Array, shape: Shape) -> Rounded:
        """Rounded IGR whose scales are a softplus of the numbers."""
        if jnp.size(raw) != self.size(shape):
            need, got = self.size(shape), jnp.size(raw)
            raise ValueError(f"an event of shape {shape} needs {need} numbers, got {got}; use link.size(shape).")
        location, scale = jnp.reshape(raw, (2, *_cuts(shape)))
        return Rounded(IGR(location, self.floor + jax.nn.softplus(scale), self.temperature))

    def start(self, mean: Float[Array, "..."]) -> Float[Array, " size"]:
        """Those of `even`: classes of equal probability, whatever the means."""
        law = even(mean.shape, self.temperature).soft.noise()
        return jnp.stack([law.location, jnp.full_like(law.scale, math.log(math.e - 1))]).ravel().astype(mean.dtype)


def even(shape: Shape, temperature: float) -> Rounded:
    r"""A rounded `IGR` of unit scale whose classes, on the last axis of the shape, have equal probability.

    All locations are equal by symmetry, and the last of n classes wins where every number is negative: from
    :math:`\Phi(-m)^{n-1} = 1 / n` they are what `fit_prior` finds, at any temperature.

    Raises
    ------
    ValueError
        When there are fewer than two classes.

    Examples
    --------
    >>> print(even((1, 4), 0.5).mean().round(4))
    [[0.25 0.25 0.25 0.25]]
    """
    n = shape[-1]
    require(n > 1, "classes of a rounded IGR", "at least 2", f"{n}", "change it")
    location = -ndtri(n ** (-1 / (n - 1)))
    return Rounded(IGR(jnp.full(_cuts(shape), location), jnp.ones(_cuts(shape)), temperature))


def _cuts(shape: Shape) -> Shape:
    return (*shape[:-1], shape[-1] - 1)


def relaxed_law(d: AbstractDistribution, temperature: Heat) -> AbstractRelaxed:
    """The smooth stand-in of a discrete law: `BinaryConcrete` of bits, `ExpConcrete` of one-hot cells.

    A `Rounded` law gives back the one it was rounded from, at the temperature that one has.

    Raises
    ------
    TypeError
        When the law is of another kind.

    Examples
    --------
    >>> relaxed_law(Bernoulli(jnp.zeros(2)), 0.5).relaxed(jnp.zeros(2)).tolist()
    [0.5, 0.5]
    """
    if isinstance(d, Rounded):
        return d.soft
    if isinstance(d, Bernoulli):
        return BinaryConcrete(d.logits, temperature)
    if isinstance(d, OneHot):
        return ExpConcrete(d.logits, temperature)
    raise TypeError(f"{type(d).__name__} has no relaxation; Bernoulli, OneHot and Rounded have one.")


class Softened(eqx.Module):
    """The relaxed law of a child, given a relaxed value of its parent."""

    step: Callable[[Array], AbstractDistribution]
    parent: AbstractRelaxed
    temperature: Heat

    def __call__(self, value: Array) -> AbstractRelaxed:
        """``step`` at the point that the value stands for, relaxed."""
        return relaxed_law(self.step(self.parent.relaxed(value)), self.temperature)


def relaxed_chain(
    first: AbstractDistribution, steps: tuple[Callable[[Array], AbstractDistribution], ...], temperature: Heat
) -> tuple[AbstractRelaxed, tuple[Softened, ...]]:
    """A chain of discrete laws, each given the one before, relaxed: the first law and the later ones.

    Every relaxed value goes on as the point that it stands for.
    """
    made, d = [], first
    for step in steps:
        # which law a parent has is asked at the means before it: only its kind, and maps that all share, matter
        made.append(Softened(step, relaxed_law(d, temperature), temperature))
        d = step(d.mean())
    return relaxed_law(first, temperature), tuple(made)
