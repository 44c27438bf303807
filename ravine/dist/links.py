"""Links: from the numbers a network puts out to a law over an event of given shape."""

from __future__ import annotations

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ravine.core import AbstractDistribution
from ravine.dist.continuous import ContinuousBernoulli, Gaussian, StudentT
from ravine.dist.correlated import FullGaussian
from ravine.dist.discrete import Bernoulli, Binomial, OneHot, Poisson
from ravine.dist.subset import Subset

Shape = tuple[int, ...]


def _parts(raw: Array, shape: Shape, count: int) -> Float[Array, "..."]:
    """``count`` arrays of the event's shape, stacked; the first one fills the first numbers."""
    if jnp.size(raw) != count * math.prod(shape):
        need = count * math.prod(shape)
        raise ValueError(f"an event of shape {shape} needs {need} numbers, got {jnp.size(raw)}; use link.size(shape).")
    return jnp.reshape(raw, (count, *shape))


_UNIT_SCALE = math.log(math.e - 1)  # softplus of it is 1


def _logit(mean: Float[Array, "..."]) -> Float[Array, " size"]:
    p = jnp.clip(mean, 0.01, 0.99).ravel()
    return jnp.log(p) - jnp.log1p(-p)


class AbstractLink(eqx.Module):
    """How the output of a network becomes a distribution: a small part with static fields."""

    @abc.abstractmethod
    def size(self, shape: Shape) -> int:
        """How many numbers an event of this shape needs."""

    @abc.abstractmethod
    def __call__(self, raw: Array, shape: Shape) -> AbstractDistribution:
        """The law over an event of this shape; ``raw`` holds ``size(shape)`` numbers in any shape."""

    @abc.abstractmethod
    def start(self, mean: Float[Array, "..."]) -> Float[Array, " size"]:
        """Numbers whose law has about this mean: where a network's output bias should start."""

    def locations(self, shape: Shape) -> tuple[int, ...]:
        """Which of the numbers say where the law lies, the others being scales and shapes: the first of each cell."""
        return tuple(range(math.prod(shape)))


class Bits(AbstractLink):
    """Binary cells: one logit each.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> Bits()(jnp.zeros(4), (2, 2)).mean().tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """

    def size(self, shape: Shape) -> int:
        """One number a cell."""
        return math.prod(shape)

    def __call__(self, raw: Array, shape: Shape) -> Bernoulli:
        """Bernoulli with the numbers as logits."""
        return Bernoulli(_parts(raw, shape, 1)[0])

    def start(self, mean: Float[Array, "..."]) -> Float[Array, " size"]:
        """Logits of the means, kept within one per cent of certainty."""
        return _logit(mean)


class Real(AbstractLink):
    """Real cells: a mean and a scale each; scale = floor + softplus(number).

    Parameters
    ----------
    floor : smallest standard deviation; without it a density can grow without bound on a repeated value.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> Real(floor=0.5)(jnp.array([1.0, -200.0]), (1,)).scale.tolist()
    [0.5]
    """

    floor: float = eqx.field(static=True, default=1e-3)

    def size(self, shape: Shape) -> int:
        """Two numbers a cell: all means, then all scales."""
        return 2 * math.prod(shape)

    def __call__(self, raw: Array, shape: Shape) -> Gaussian:
        """Gaussian with independent cells."""
        location, scale = _parts(raw, shape, 2)
        return Gaussian(location, self.floor + jax.nn.softplus(scale))

    def start(self, mean: Float[Array, "..."]) -> Float[Array, " size"]:
        """The means, and scales of about 1."""
        return jnp.concatenate([mean.ravel(), jnp.full(mean.size, _UNIT_SCALE, mean.dtype)])


class Homoscedastic(AbstractLink):
    """Real cells whose scale is learned but does not depend on the input: scale = floor + exp(log_scale).

    Parameters
    ----------
    log_scale : one number per cell, of the event's shape, or a single one for all; a leaf that is trained.
    floor : smallest standard deviation.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> Homoscedastic(jnp.zeros(()), floor=0.0)(jnp.zeros(2), (2,)).scale.tolist()
    [1.0, 1.0]
    """

    log_scale: Float[Array, "..."]
    floor: float = eqx.field(static=True, default=1e-3)

    def size(self, shape: Shape) -> int:
        """One number a cell: its mean."""
        return math.prod(shape)

    def __call__(self, raw: Array, shape: Shape) -> Gaussian:
        """Gaussian with independent cells."""
        scale = self.floor + jnp.exp(self.log_scale)
        return Gaussian(_parts(raw, shape, 1)[0], jnp.broadcast_to(scale, shape))

    def start(self, mean: Float[Array, "..."]) -> Float[Array, " size"]:
        """The means."""
        return mean.ravel()


class SharedCovariance(AbstractLink):
    """Real cells with one learned covariance, whatever the input: the number is the mean, the factor is shared.

    Parameters
    ----------
    factor : (n, n); its lower triangle is used, the diagonal made positive.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> SharedCovariance(jnp.eye(2))(jnp.zeros(2), (2,)).factor.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    factor: Float[Array, "n n"]

    def size(self, shape: Shape) -> int:
        """One number a cell: its mean."""
        return math.prod(shape)

    def __call__(self, raw: Array, shape: Shape) -> FullGaussian:
        """Gaussian with correlated cells."""
        factor = jnp.tril(self.factor, -1) + jnp.diag(jnp.abs(jnp.diagonal(self.factor)))
        return FullGaussian(_parts(raw, shape, 1)[0], factor)

    def start(self, mean: Float[Array, "..."]) -> Float[Array, " size"]:
        """The means."""
        return mean.ravel()


class HeavyTailed(AbstractLink):
    """Real cells with outliers: location, scale = floor + softplus, freedom = 2 + softplus, so the variance exists.

    Parameters
    ----------
    floor : smallest scale.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> bool(HeavyTailed()(jnp.zeros(3), (1,)).freedom[0] > 2)
    True
    """

    floor: float = eqx.field(static=True, default=1e-3)

    def size(self, shape: Shape) -> int:
        """Three numbers a cell: all locations, then all scales, then all freedoms."""
        return 3 * math.prod(shape)

    def __call__(self, raw: Array, shape: Shape) -> StudentT:
        """Student's t with independent cells."""
        location, scale, freedom = _parts(raw, shape, 3)
        return StudentT(location, self.floor + jax.nn.softplus(scale), 2 + jax.nn.softplus(freedom))

    def start(self, mean: Float[Array, "..."]) -> Float[Array, " size"]:
        """The means, scales of about 1, and moderately heavy tails."""
        return jnp.concatenate([mean.ravel(), jnp.full(2 * mean.size, _UNIT_SCALE, mean.dtype)])


class Levels(AbstractLink):
    """Ordered integer cells 0..count-1: one logit each, binomial with ``count - 1`` trials.

    Parameters
    ----------
    count : number of levels, at least 2; 256 for the grey values of an 8-bit image.

    Raises
    ------
    ValueError
        When there are fewer than two levels.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> Levels(5)(jnp.zeros(1), (1,)).mean().tolist()
    [2.0]
    """

    count: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        if self.count < 2:
            raise ValueError(f"Levels needs at least 2 levels, got {self.count}.")

    def size(self, shape: Shape) -> int:
        """One number a cell."""
        return math.prod(shape)

    def __call__(self, raw: Array, shape: Shape) -> Binomial:
        """Binomial with the numbers as logits."""
        return Binomial(_parts(raw, shape, 1)[0], self.count - 1)

    def start(self, mean: Float[Array, "..."]) -> Float[Array, " size"]:
        """Logits of the mean share of the top level."""
        return _logit(mean / (self.count - 1))


class Counts(AbstractLink):
    """Counts 0, 1, 2, ...: one log rate each.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> Counts()(jnp.zeros(2), (2,)).mean().tolist()
    [1.0, 1.0]
    """

    def size(self, shape: Shape) -> int:
        """One number a cell."""
        return math.prod(shape)

    def __call__(self, raw: Array, shape: Shape) -> Poisson:
        """Poisson with the numbers as log rates."""
        return Poisson(_parts(raw, shape, 1)[0])

    def start(self, mean: Float[Array, "..."]) -> Float[Array, " size"]:
        """Logarithms of the means, at least one in a hundred."""
        return jnp.log(jnp.maximum(mean, 0.01)).ravel()


class UnitInterval(AbstractLink):
    """Cells between 0 and 1: one logit each, continuous Bernoulli.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> UnitInterval()(jnp.zeros(1), (1,)).mean().tolist()
    [0.5]
    """

    def size(self, shape: Shape) -> int:
        """One number a cell."""
        return math.prod(shape)

    def __call__(self, raw: Array, shape: Shape) -> ContinuousBernoulli:
        """Continuous Bernoulli with the numbers as logits."""
        return ContinuousBernoulli(_parts(raw, shape, 1)[0])

    def start(self, mean: Float[Array, "..."]) -> Float[Array, " size"]:
        """The slopes of an exponential at both ends, 1 / (1 - m) - 1 / m: the mean within 0.06."""
        m = jnp.clip(mean, 0.01, 0.99).ravel()
        return 1 / (1 - m) - 1 / m


class Classes(AbstractLink):
    """One-hot cells: one logit a class; the last axis of the shape lists the classes.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> Classes()(jnp.zeros(4), (2, 2)).mean().tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """

    def size(self, shape: Shape) -> int:
        """One number a class."""
        return math.prod(shape)

    def __call__(self, raw: Array, shape: Shape) -> OneHot:
        """One-hot law with the numbers as logits."""
        return OneHot(_parts(raw, shape, 1)[0])

    def start(self, mean: Float[Array, "..."]) -> Float[Array, " size"]:
        """Logarithms of the means, at least one in a hundred."""
        return jnp.log(jnp.maximum(mean, 0.01)).ravel()


class KHot(AbstractLink):
    """Cells of which exactly k of a group are 1: one logit each; the last axis of the shape lists the n of a group.

    Parameters
    ----------
    k : size of the subset, from 0 to n.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> print(KHot(2)(jnp.zeros(4), (1, 4)).mean().round(4))
    [[0.5 0.5 0.5 0.5]]
    """

    k: int = eqx.field(static=True)

    def size(self, shape: Shape) -> int:
        """One number a cell."""
        return math.prod(shape)

    def __call__(self, raw: Array, shape: Shape) -> Subset:
        """Independent subsets with the numbers as logits."""
        return Subset(_parts(raw, shape, 1)[0], self.k)

    def start(self, mean: Float[Array, "..."]) -> Float[Array, " size"]:
        """Logits of subsets in which the items have these shares, at least one in a hundred: by iterative scaling."""
        total = jnp.sum(mean, axis=-1, keepdims=True)
        goal = jnp.clip(self.k * mean / jnp.maximum(total, 0.01), 0.01, 0.99)
        start = jnp.log(goal) - jnp.log1p(-goal)
        nearer = lambda _, logits: logits + jnp.log(goal) - jnp.log(Subset(logits, self.k).mean())  # noqa: E731
        return jax.lax.fori_loop(0, 30, nearer, start).ravel()
