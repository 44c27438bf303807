"""Kullback-Leibler divergences in closed form, by a table of pairs of types that anyone can add to."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import digamma, gammaln, i0e
from jaxtyping import Array, Float

from ravine.core import AbstractDistribution, Scalar
from ravine.dist.adapter import AbstractNumpyro, Numpyro, NumpyroReparametrised
from ravine.dist.angles import VonMises, mean_cosine
from ravine.dist.continuous import ContinuousBernoulli, Gaussian, log_partition
from ravine.dist.correlated import FullGaussian, LowRankGaussian, woodbury
from ravine.dist.discrete import Bernoulli, Binomial, OneHot, Poisson
from ravine.dist.igr import IGR, alike
from ravine.dist.positive import Beta, Dirichlet, Gamma, log_beta, log_multivariate_beta
from ravine.dist.subset import Subset

Pair = tuple[type[AbstractDistribution], type[AbstractDistribution]]
Formula = TypeVar("Formula", bound=Callable[..., Array])
_WHOLE: dict[Pair, Callable[..., Scalar]] = {}
_CELLS: dict[Pair, Callable[..., Array]] = {}


def kl_formula(q: type[AbstractDistribution], p: type[AbstractDistribution]) -> Callable[[Formula], Formula]:
    """Decorate a function ``(q, p) -> nats`` to serve `kl` for this pair of types.

    Examples
    --------
    >>> kl_formula(Gaussian, Gaussian)  # doctest: +ELLIPSIS
    <function ...>
    """

    def add(formula: Formula) -> Formula:
        _WHOLE[q, p] = formula
        return formula

    return add


def kl_cells_formula(q: type[AbstractDistribution], p: type[AbstractDistribution]) -> Callable[[Formula], Formula]:
    """Decorate a function ``(q, p) -> nats per cell`` to serve `kl_cells`, and its sum `kl`, for this pair of types.

    Examples
    --------
    >>> kl_cells_formula(Gaussian, Gaussian)  # doctest: +ELLIPSIS
    <function ...>
    """

    def add(formula: Formula) -> Formula:
        _CELLS[q, p] = formula
        return formula

    return add


def has_kl(q: AbstractDistribution, p: AbstractDistribution) -> bool:
    """Whether `kl` has a closed form for the two types.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> has_kl(Gaussian(jnp.zeros(1), jnp.ones(1)), Bernoulli(jnp.zeros(1)))
    False
    """
    pair = type(q), type(p)
    return pair in _CELLS or pair in _WHOLE


def has_kl_cells(q: AbstractDistribution, p: AbstractDistribution) -> bool:
    """Whether `kl_cells` has a closed form for the two types.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> has_kl_cells(Gaussian(jnp.zeros(1), jnp.ones(1)), Gaussian(jnp.zeros(1), jnp.ones(1)))
    True
    """
    return (type(q), type(p)) in _CELLS


def kl(q: AbstractDistribution, p: AbstractDistribution) -> Scalar:
    r"""Divergence :math:`KL(q \| p) = E_q[\log q(x) - \log p(x)]` of two laws over one event, in nats.

    Closed forms: pairs of one type among Gaussian, Bernoulli, OneHot, Binomial, Poisson, Subset, ContinuousBernoulli,
    Gamma, Beta, Dirichlet, VonMises and IGR; any two of Gaussian, FullGaussian and LowRankGaussian; two `Numpyro`
    families that numpyro knows a formula for. Two Concrete laws have none.

    Raises
    ------
    TypeError
        When there is no closed form for the two types.
    ValueError
        When the two events differ in shape.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> q, p = Gaussian(jnp.ones(2), jnp.ones(2)), Gaussian(jnp.zeros(2), jnp.ones(2))
    >>> float(kl(q, p))
    1.0
    """
    pair = type(q), type(p)
    if pair in _CELLS:
        return jnp.sum(kl_cells(q, p))
    if pair in _WHOLE:
        return _WHOLE[pair](q, p)
    raise _unknown("kl", q, p)


def kl_cells(q: AbstractDistribution, p: AbstractDistribution) -> Float[Array, "..."]:
    r"""Divergence :math:`KL(q \| p)` of each cell of the event, for laws with independent cells; sums to `kl`.

    Of the event's shape; for `OneHot`, `Subset` and `Dirichlet`, without the axis of classes.

    Raises
    ------
    TypeError
        When there is no closed form for the two types, or their cells are not independent.
    ValueError
        When the two events differ in shape.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> q, p = Gaussian(jnp.array([0.0, 2.0]), jnp.ones(2)), Gaussian(jnp.zeros(2), jnp.ones(2))
    >>> kl_cells(q, p).tolist()
    [0.0, 2.0]
    """
    pair = type(q), type(p)
    if pair not in _CELLS:
        raise _unknown("kl_cells", q, p)
    return _CELLS[pair](q, p)


def _unknown(name: str, q: AbstractDistribution, p: AbstractDistribution) -> TypeError:
    names = f"{type(q).__name__} and {type(p).__name__}"
    return TypeError(f"{name} has no closed form for {names}; use ELBO, whose KL is sampled.")


def _same(first: Array, second: Array) -> None:
    if first.shape != second.shape:
        raise ValueError(f"kl needs two laws over one event, got parameters of shape {first.shape} and {second.shape}.")


@kl_cells_formula(Gaussian, Gaussian)
def _(q: Gaussian, p: Gaussian) -> Array:
    _same(q.location, p.location)
    ratio = q.scale / p.scale
    return 0.5 * (ratio**2 - 1 + ((q.location - p.location) / p.scale) ** 2) - jnp.log(ratio)


def _bits(q: Float[Array, "..."], p: Float[Array, "..."]) -> Float[Array, "..."]:
    _same(q, p)
    log = jax.nn.log_sigmoid
    return jax.nn.sigmoid(q) * (log(q) - log(p)) + jax.nn.sigmoid(-q) * (log(-q) - log(-p))


@kl_cells_formula(Bernoulli, Bernoulli)
def _(q: Bernoulli, p: Bernoulli) -> Array:
    return _bits(q.logits, p.logits)


@kl_cells_formula(Binomial, Binomial)
def _(q: Binomial, p: Binomial) -> Array:
    if q.total != p.total:
        raise ValueError(f"kl of two Binomials needs equal totals, got {q.total} and {p.total}.")
    return q.total * _bits(q.logits, p.logits)


@kl_cells_formula(OneHot, OneHot)
def _(q: OneHot, p: OneHot) -> Array:
    _same(q.logits, p.logits)
    difference = jax.nn.log_softmax(q.logits) - jax.nn.log_softmax(p.logits)
    return jnp.sum(jax.nn.softmax(q.logits) * difference, axis=-1)


@kl_cells_formula(Poisson, Poisson)
def _(q: Poisson, p: Poisson) -> Array:
    _same(q.log_rate, p.log_rate)
    difference = p.log_rate - q.log_rate
    return jnp.exp(q.log_rate) * (jnp.expm1(difference) - difference)


@kl_cells_formula(ContinuousBernoulli, ContinuousBernoulli)
def _(q: ContinuousBernoulli, p: ContinuousBernoulli) -> Array:
    _same(q.logits, p.logits)
    return q.mean() * (q.logits - p.logits) - log_partition(q.logits) + log_partition(p.logits)


@kl_cells_formula(Gamma, Gamma)
def _(q: Gamma, p: Gamma) -> Array:
    _same(q.concentration, p.concentration)
    a, b, ratio = q.concentration, p.concentration, p.rate / q.rate
    return (a - b) * digamma(a) - gammaln(a) + gammaln(b) - b * jnp.log(ratio) + a * (ratio - 1)


@kl_cells_formula(Beta, Beta)
def _(q: Beta, p: Beta) -> Array:
    _same(q.a, p.a)
    both = digamma(q.a + q.b)
    turn = (q.a - p.a) * (digamma(q.a) - both) + (q.b - p.b) * (digamma(q.b) - both)
    return turn + log_beta(p.a, p.b) - log_beta(q.a, q.b)


@kl_cells_formula(Dirichlet, Dirichlet)
def _(q: Dirichlet, p: Dirichlet) -> Array:
    _same(q.concentration, p.concentration)
    mean_log = digamma(q.concentration) - digamma(jnp.sum(q.concentration, axis=-1, keepdims=True))
    turn = jnp.sum((q.concentration - p.concentration) * mean_log, axis=-1)
    return turn + log_multivariate_beta(p.concentration) - log_multivariate_beta(q.concentration)


@kl_cells_formula(VonMises, VonMises)
def _(q: VonMises, p: VonMises) -> Array:
    _same(q.location, p.location)
    k, other, cosine = q.concentration, p.concentration, mean_cosine(q.concentration)
    peaks = other - k + jnp.log(i0e(other)) - jnp.log(i0e(k))
    return peaks + cosine * (k - other * jnp.cos(q.location - p.location))


@kl_cells_formula(IGR, IGR)
def _(q: IGR, p: IGR) -> Array:
    alike(q, p)
    return kl_cells(q.noise(), p.noise())


@kl_cells_formula(Subset, Subset)
def _(q: Subset, p: Subset) -> Array:
    _same(q.logits, p.logits)
    if q.k != p.k:
        raise ValueError(f"kl of two Subsets needs equal k, got {q.k} and {p.k}.")
    return jnp.sum(q.mean() * (q.logits - p.logits), axis=-1) - q.log_normaliser() + p.log_normaliser()


NormalVector = Gaussian | FullGaussian | LowRankGaussian


def _root(d: NormalVector) -> Float[Array, "d n"]:
    """A matrix whose product with its transpose is the covariance."""
    if isinstance(d, FullGaussian):
        return d.lower()
    noise = jnp.diag(d.scale)
    return noise if isinstance(d, Gaussian) else jnp.concatenate([d.loading, noise], axis=1)


def _measure(d: NormalVector, columns: Float[Array, "d n"]) -> tuple[Scalar, Scalar]:
    """Trace of C' S^-1 C for the columns C, and log determinant of the covariance S."""
    if isinstance(d, LowRankGaussian):
        return woodbury(d, columns, jnp.ones(d.location.shape, bool))
    if isinstance(d, Gaussian):
        return jnp.sum((columns / d.scale[:, None]) ** 2), 2 * jnp.sum(jnp.log(d.scale))
    square = jnp.sum(solve_triangular(d.factor, columns, lower=True) ** 2)
    return square, 2 * jnp.sum(jnp.log(jnp.diagonal(d.factor)))


def _vectors(q: NormalVector, p: NormalVector) -> Scalar:
    _same(q.location, p.location)
    columns = jnp.concatenate([_root(q), (q.location - p.location)[:, None]], axis=1)
    square, log_det = _measure(p, columns)
    own = _measure(q, jnp.zeros_like(columns[:, :1]))[1]
    return 0.5 * (square - q.location.size + log_det - own)


for _q, _p in itertools.product((Gaussian, FullGaussian, LowRankGaussian), repeat=2):
    if (_q, _p) not in _CELLS:
        kl_formula(_q, _p)(_vectors)


def _numpyro(q: AbstractNumpyro, p: AbstractNumpyro) -> Scalar:
    from numpyro.distributions import kl_divergence

    try:
        return jnp.sum(kl_divergence(q.family(**q.parameters), p.family(**p.parameters)))
    except NotImplementedError:
        names = f"{q.family.__name__} and {p.family.__name__}"
        raise TypeError(f"kl has no closed form for {names}; use ELBO, whose KL is sampled.") from None


for _q, _p in itertools.product((Numpyro, NumpyroReparametrised), repeat=2):
    kl_formula(_q, _p)(_numpyro)
