"""Invertible Gaussian reparameterisation: normal noise through an invertible map onto the simplex.

Potapczynski, Loaiza-Ganem and Cunningham 2020, *Invertible Gaussian reparameterization*, arXiv:1912.09588.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._check import complaint, require
from ravine.core import Scalar
from ravine.dist._cells import check, within
from ravine.dist.continuous import Gaussian
from ravine.dist.discrete import OneHot
from ravine.dist.relaxed import AbstractRelaxed
from ravine.dist.simplex_maps import AbstractCountable, AbstractSimplexMap, Identity, StickBreaking


class IGR(AbstractRelaxed):
    r"""Independent cells whose draws are normal vectors y, each of which a map takes to a point of the simplex.

    With :math:`y \sim N(m, \mathrm{diag}(s^2))` in n - 1 dimensions, the point is :math:`x = g(y; t)` with
    n coordinates (`relaxed`). The law is held in the space of y: `log_prob` is the Gaussian density, finite at every
    temperature, and since g is invertible the divergence of two such laws through the same map is that of the
    Gaussians, in closed form. `log_prob_simplex` is the density of the point,

    .. math:: \log p(x) = \log N(g^{-1}(x); m, s^2) - \log |\det \partial g / \partial y|

    Potapczynski, Loaiza-Ganem and Cunningham 2020, arXiv:1912.09588, section 3.

    Parameters
    ----------
    location, scale : mean and standard deviation of y, shape (..., classes - 1); scale positive.
    temperature : of the map, positive, one number.
    map : an `AbstractSimplexMap`: `Identity`, `StickBreaking` or `Planar`.

    Raises
    ------
    ValueError
        When location and scale differ in shape, or a value is not of that shape.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = IGR(jnp.zeros(2), jnp.ones(2), 0.5)
    >>> print(d.relaxed(jnp.zeros(2)).round(4))
    [0.3333 0.3333 0.3333]
    >>> print(d.class_probs().round(4))  # the last class is that of two negative numbers
    [0.375 0.375 0.25 ]
    """

    location: Float[Array, "... cuts"]
    scale: Float[Array, "... cuts"]
    temperature: Float[Array, ""] | float
    map: AbstractSimplexMap = Identity()

    def __check_init__(self) -> None:
        same = jnp.shape(self.location) == jnp.shape(self.scale)
        got = f"{jnp.shape(self.location)} and {jnp.shape(self.scale)}"
        require(same, "location and scale of an IGR", "one shape", got, "give one scale per cell")

    def noise(self) -> Gaussian:
        """The law of y as a Gaussian."""
        return Gaussian(self.location, self.scale)

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """A normal vector per cell; `relaxed` makes it a point of the simplex."""
        return self.noise().sample(key=key)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed numbers of y, in nats."""
        return self.noise().log_prob(value, mask)

    def mean(self) -> Array:
        """The location, the expectation of y."""
        return self.location

    def log_relaxed(self, value: Array) -> Array:
        """Logarithm of the point of the simplex, shape (..., classes), exact also where that rounds to a corner."""
        return self.map.log_point(value, self._heat())

    def relaxed(self, value: Array) -> Array:
        """The point of the simplex, shape (..., classes)."""
        return jnp.exp(self.log_relaxed(value))

    def inverse(self, point: Array) -> Array:
        """The y that the map takes to a point of the simplex; coordinates below 3e-29 count as that number."""
        return self.map.pull(jnp.log(within(point)), self._heat())

    def log_prob_simplex(self, point: Array) -> Scalar:
        """Log density of points of the simplex, shape (..., classes), in their coordinates but the last, in nats."""
        check(point, None, (*self.location.shape[:-1], self.location.shape[-1] + 1))
        y = self.inverse(point)
        return self.log_prob(y) - jnp.sum(self.map.log_det(y, self._heat()))

    def class_probs(self) -> Array:
        """Probability that each coordinate of the point is the largest, shape (..., classes), by quadrature.

        Absolute error for `Identity` below 1e-5 while scales are within a factor of 20 of one another; for
        `StickBreaking` about 1e-4 at scales of 1 and 1e-3 at scales of 0.25. Raises ``ValueError`` for a map of which
        these are no integrals in one dimension (`Planar`).
        """
        if not isinstance(self.map, AbstractCountable):
            wanted, got = "Identity or StickBreaking as the map", type(self.map).__name__
            raise complaint("class_probs of an IGR", wanted, got, "count draws instead")
        flat = self.location.reshape(-1, self.location.shape[-1]), self.scale.reshape(-1, self.scale.shape[-1])
        found = jax.vmap(self.map.class_probs, (0, 0, None))(*flat, self._heat())
        return found.reshape(*self.location.shape[:-1], -1)

    def discrete(self) -> OneHot:
        """The one-hot law of the largest coordinate."""
        return OneHot(jnp.log(within(self.class_probs())))

    def _heat(self) -> Float[Array, ""]:
        return jnp.asarray(self.temperature, self.location.dtype)


def alike(q: IGR, p: IGR) -> None:
    """Refuse two laws whose maps are known to differ; arrays in maps and traced temperatures are taken to agree."""
    known = isinstance(q.temperature, float) and isinstance(p.temperature, float)
    same = jax.tree.structure(q.map) == jax.tree.structure(p.map)
    same = same and not (known and q.temperature != p.temperature)
    require(same, "kl of two IGRs", "one map and one temperature", f"{q.map} and {p.map}", "give both the same")


def _descend(loss: Any, start: Any, steps: int, rate: float) -> Any:
    """``steps`` steps of Adam, with a rate that falls to zero."""
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def step(carry: Any, _: None) -> tuple[Any, None]:
        parameters, state = carry
        updates, state = optimiser.update(jax.grad(loss)(parameters), state)
        return (optax.apply_updates(parameters, updates), state), None

    return jax.jit(lambda start: jax.lax.scan(step, (start, optimiser.init(start)), None, steps)[0][0])(start)


def _cross_entropy(wanted: Float[Array, " classes"], got: Float[Array, " classes"]) -> Scalar:
    return -jnp.sum(wanted * jnp.log(within(got)))


def _check_probs(name: str, probs: Float[Array, " classes"]) -> None:
    ok = probs.ndim == 1 and bool(jnp.all(probs >= 0)) and abs(float(jnp.sum(probs)) - 1) < 1e-3
    got = f"shape {probs.shape} with sum {float(jnp.sum(probs)):.4g}"
    require(ok, name, "a vector of probabilities that sum to 1", got, "normalise it")


def fit_prior(probs: Float[Array, " classes"], temperature: float, delta: float = 1.0, steps: int = 300) -> IGR:
    r"""An `IGR` through `Identity` with unit scale whose class probabilities are the given ones.

    The location maximises :math:`\sum_k p_k \log P(k)`, by Adam. With ``jnp.full(n, 1 / n)`` it is the prior that a
    uniform categorical becomes. (The paper asks the same of the mean point; at low temperatures the two agree.)

    Raises
    ------
    ValueError
        When ``probs`` is no vector of probabilities.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = fit_prior(jnp.array([0.5, 0.2, 0.3]), 0.3)
    >>> bool(jnp.allclose(d.class_probs(), jnp.array([0.5, 0.2, 0.3]), atol=1e-3))
    True
    """
    _check_probs("probs of fit_prior", probs)
    map_, scale = Identity(delta), jnp.ones(probs.shape[0] - 1, probs.dtype)
    loss = lambda location: _cross_entropy(probs, IGR(location, scale, temperature, map_).class_probs())  # noqa: E731
    return IGR(_descend(loss, jnp.zeros_like(scale), steps, 0.1), scale, temperature, map_)


def fit_pmf(pmf: Float[Array, " values"], temperature: float, steps: int = 100) -> IGR:
    r"""An `IGR` through `StickBreaking` whose class probabilities are a given mass function, with one class more.

    Location and scale maximise :math:`\sum_k p_k \log P(k)`, by Adam. An infinite support is cut by the caller, where
    enough of its mass is covered; the last class of the point, which softmax++ adds, has probability 0.

    Raises
    ------
    ValueError
        When ``pmf`` is no vector of probabilities.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = fit_pmf(jnp.array([0.3, 0.7]), 0.1, steps=40)
    >>> bool(jnp.allclose(d.class_probs(), jnp.array([0.3, 0.7, 0.0]), atol=0.05))
    True
    """
    _check_probs("pmf of fit_pmf", pmf)
    share = pmf / within(jnp.cumsum(pmf[::-1])[::-1])
    start = jax.scipy.special.logit(jnp.clip(share, 0.02, 0.98)), jnp.zeros_like(pmf)

    def law(parameters: tuple[Array, Array]) -> IGR:
        return IGR(parameters[0], jnp.exp(parameters[1]), temperature, StickBreaking())

    loss = lambda parameters: _cross_entropy(pmf, law(parameters).class_probs()[:-1])  # noqa: E731
    return law(_descend(loss, start, steps, 0.1))
