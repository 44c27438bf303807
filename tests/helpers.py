"""Small models and parts by name, and the statistics that tests of random estimates share.

A test of an estimate uses a fixed seed and asks that no number be more than 4.5 standard errors from the truth.
With another seed a correct number would fail once in 150,000 times (two-sided normal tail 6.8e-6).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array, PyTree

from ravine._tree import Fixed, trainable
from ravine.core import AbstractGradient, AbstractRecogniser, Row
from ravine.dist import (
    Ancestral,
    Bernoulli,
    Bits,
    Classes,
    Conditional,
    FullGaussian,
    Gaussian,
    Homoscedastic,
    OneHot,
    Real,
)
from ravine.gradients import RLOO, VIMCO, Enumerate, Pathwise, ReinMax, ScoreFunction
from ravine.models.directed import Directed, Helmholtz
from ravine.objectives import ELBO, IWAE, AnalyticELBO, DReG, StickingTheLanding
from ravine.posteriors import OneNode
from ravine.recognisers import Amortised, BottomUp, Filled

LIMIT = 4.5


def some(names: Iterable[Any], *fast: Any) -> list[Any]:
    """All the names of a table; those that are not named again are left to `make test-all`."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


CELLS = 3


# Parts.


class Affine(eqx.Module):
    """``weight z + bias``."""

    weight: Array
    bias: Array

    def __call__(self, z: Array) -> Array:
        return self.weight @ z + self.bias


def affine(inputs: int, outputs: int, seed: int) -> Affine:
    stream = np.random.default_rng(seed)
    return Affine(jnp.asarray(stream.normal(size=(outputs, inputs))), jnp.asarray(0.5 * stream.normal(size=outputs)))


class Bent(eqx.Module):
    """Two affine layers with a tanh between them."""

    inner: Affine
    outer: Affine

    def __call__(self, z: Array) -> Array:
        return self.outer(jnp.tanh(self.inner(z)))


class FullLinear(AbstractRecogniser):
    """A Gaussian with full covariance whose mean is affine in the row: holds the exact posterior of a linear model."""

    mean: Affine
    factor: Array

    def __call__(self, generator: Any, row: Row) -> OneNode:
        return OneNode(FullGaussian(self.mean(row.x), self.factor))


class ExactLinear(AbstractRecogniser):
    """p(z | observed cells) of a linear-Gaussian generator with a standard normal prior, by dense algebra."""

    def __call__(self, generator: Any, row: Row) -> OneNode:
        net, seen = generator.conditional.net, jnp.ones(row.x.shape) if row.mask is None else row.mask
        precision = seen * jnp.exp(-2 * generator.conditional.link.log_scale)
        loading = net.weight * precision[:, None]
        covariance = jnp.linalg.inv(jnp.eye(net.weight.shape[1]) + net.weight.T @ loading)
        return OneNode(FullGaussian(covariance @ loading.T @ (row.x - net.bias), jnp.linalg.cholesky(covariance)))


class Quadrature(AbstractGradient):
    """E[cost(z)] under a Gaussian by a product Gauss-Hermite rule: exact for polynomials of degree < 2 ``order``."""

    order: int = eqx.field(static=True, default=4)
    biased: ClassVar[bool] = False

    def __call__(self, cost: Callable[[Array], Array], d: Any, *, key: Array) -> Array:
        points, weights = np.polynomial.hermite_e.hermegauss(self.order)
        shape, size = d.location.shape, d.location.size
        grid = jnp.asarray(list(itertools.product(points, repeat=size))).reshape(-1, *shape)
        mass = jnp.asarray([np.prod(w) for w in itertools.product(weights / weights.sum(), repeat=size)])
        away = (lambda e: jnp.tril(d.factor) @ e) if isinstance(d, FullGaussian) else (lambda e: d.scale * e)
        return mass @ jax.vmap(lambda e: cost(d.location + away(e)))(grid)

    def refuses(self, d: Any) -> str | None:
        return None if isinstance(d, (Gaussian, FullGaussian)) else "not a Gaussian"

    def calls(self, d: Any) -> int:
        return self.order**d.location.size


# The linear-Gaussian model whose every number is known: log p(x) in nats for the row X.

W = np.array([[1.0, 0.2], [-0.5, 1.0], [0.3, 0.7]])
B = np.array([0.1, 0.0, -0.2])
NOISE = 0.25  # variance
X = np.array([0.7, -0.4, 0.9])
LOG_P = -4.090453427512018
POSTERIOR_MEAN = np.array([0.72835831, 0.312108])
POSTERIOR_COVARIANCE = np.array([[0.15768399, 0.00797279], [0.00797279, 0.14085256]])
BEST_MEAN_FIELD = -4.091886473448145


def linear_generator() -> Directed:
    prior = Fixed(Gaussian(jnp.zeros(2), jnp.ones(2)))
    link = Homoscedastic(jnp.log(jnp.sqrt(NOISE)), floor=0.0)
    return Directed(prior, Conditional(Affine(jnp.asarray(W), jnp.asarray(B)), link, (CELLS,)))


def posterior_parts() -> tuple[np.ndarray, Affine]:
    """Covariance of p(z | x), and its mean as a function of x."""
    covariance = np.linalg.inv(np.eye(2) + W.T @ W / NOISE)
    matrix = covariance @ W.T / NOISE
    return covariance, Affine(jnp.asarray(matrix), jnp.asarray(-matrix @ B))


def linear_exact() -> Helmholtz:
    """The exact posterior as a recogniser with parameters of its own."""
    covariance, mean = posterior_parts()
    return Helmholtz(linear_generator(), FullLinear(mean, jnp.asarray(np.linalg.cholesky(covariance))))


def linear_mean_field(shift: float = 0.0, stretch: float = 1.0) -> Helmholtz:
    """The best recogniser with independent latents, then moved and stretched."""
    covariance, mean = posterior_parts()
    scale = stretch / jnp.sqrt(jnp.diagonal(jnp.linalg.inv(jnp.asarray(covariance))))
    mean = Affine(mean.weight, mean.bias + shift)
    read = Filled(Fixed(jnp.zeros(CELLS)))
    return Helmholtz(linear_generator(), Amortised(read, Conditional(mean, Homoscedastic(jnp.log(scale), 0.0), (2,))))


def dense(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean and covariance of the missing cells of X given the others, and log p of the others."""
    covariance, residual = W @ W.T + NOISE * np.eye(CELLS), (X - B)[mask]
    seen = covariance[np.ix_(mask, mask)]
    gain = covariance[np.ix_(~mask, mask)] @ np.linalg.inv(seen)
    left = covariance[np.ix_(~mask, ~mask)] - gain @ covariance[np.ix_(mask, ~mask)]
    constant = np.linalg.slogdet(seen)[1] + mask.sum() * np.log(2 * np.pi)
    return B[~mask] + gain @ residual, left, -0.5 * (residual @ np.linalg.solve(seen, residual) + constant)


# Models: every one serves rows of CELLS cells that hold 0 or 1.


def read(tells: bool = False) -> Filled:
    return Filled(Fixed(jnp.full(CELLS, 0.25)), tells)


def vae() -> Helmholtz:
    p = Directed(Fixed(Gaussian(jnp.zeros(2), jnp.ones(2))), Conditional(affine(2, CELLS, 1), Bits(), (CELLS,)))
    q = Conditional(Bent(affine(2 * CELLS, 5, 2), affine(5, 4, 15)), Real(), (2,))
    return Helmholtz(p, Amortised(read(tells=True), q))


def two_layers() -> Helmholtz:
    """Gaussian latents of 2 and 1 dimensions."""
    link = Homoscedastic(jnp.array(-0.3))
    prior = Ancestral(Gaussian(jnp.zeros(1), jnp.ones(1)), Conditional(affine(1, 2, 3), link, (2,)))
    first, step = Conditional(affine(CELLS, 2, 4), link, (2,)), Conditional(affine(2, 1, 5), link, (1,))
    p = Directed(prior, Conditional(affine(2, CELLS, 6), link, (CELLS,)))
    return Helmholtz(p, BottomUp(read(), first, (step,)))


def bits() -> Helmholtz:
    p = Directed(Bernoulli(jnp.array([0.3, -0.8, 0.1])), Conditional(affine(3, CELLS, 7), Bits(), (CELLS,)))
    return Helmholtz(p, Amortised(read(), Conditional(affine(CELLS, 3, 8), Bits(), (3,))))


def one_hot() -> Helmholtz:
    prior = OneHot(jnp.array([[0.5, -0.5, 0.0], [0.2, 0.1, -1.0]]))
    p = Directed(prior, Conditional(affine(6, CELLS, 9), Bits(), (CELLS,)))
    return Helmholtz(p, Amortised(read(), Conditional(affine(CELLS, 6, 10), Classes(), (2, 3))))


def belief_net() -> Helmholtz:
    """A sigmoid belief net with layers of 2 and 3 bits."""
    prior = Ancestral(Bernoulli(jnp.array([0.4, -0.3])), Conditional(affine(2, 3, 11), Bits(), (3,)))
    first, step = Conditional(affine(CELLS, 3, 12), Bits(), (3,)), Conditional(affine(3, 2, 13), Bits(), (2,))
    p = Directed(prior, Conditional(affine(3, CELLS, 14), Bits(), (CELLS,)))
    return Helmholtz(p, BottomUp(read(), first, (step,)))


MODELS: dict[str, Callable[[], Helmholtz]] = {
    "linear-gaussian": lambda: linear_mean_field(0.2, 1.4),
    "vae": vae,
    "two-layers": two_layers,
    "bits": bits,
    "one-hot": one_hot,
    "belief-net": belief_net,
}
SMOOTH = ("linear-gaussian", "vae", "two-layers")  # latents with pathwise gradients

GRADIENTS: dict[str, AbstractGradient] = {
    "score-1": ScoreFunction(1),
    "score-4": ScoreFunction(4),
    "rloo-2": RLOO(2),
    "rloo-4": RLOO(4),
    "vimco": VIMCO(),
    "enumerate": Enumerate(),
    "pathwise-1": Pathwise(),
    "pathwise-3": Pathwise(3),
}

# Objectives, and models each is tried on.
OBJECTIVES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "elbo-pathwise": (ELBO(Pathwise(2)), ("two-layers",)),
    "elbo-score": (ELBO(RLOO(2), beta=0.5), ("belief-net",)),
    "elbo-enumerate": (ELBO(Enumerate()), ("belief-net",)),
    "analytic": (AnalyticELBO(Pathwise()), ("vae",)),
    "analytic-enumerate": (AnalyticELBO(Enumerate(), beta=2.0, free_bits=0.1), ("one-hot",)),
    "iwae-pathwise": (IWAE(3, Pathwise()), ("two-layers",)),
    "iwae-score": (IWAE(3, RLOO(2)), ("bits",)),
    "iwae-vimco": (IWAE(3, VIMCO()), ("bits",)),
    "elbo-straight-through": (ELBO(ReinMax()), ("one-hot",)),
    "sticking-the-landing": (StickingTheLanding(), ("two-layers",)),
    "dreg": (DReG(3), ("two-layers",)),
}
PAIRS = [(objective, model) for objective, (_, models) in OBJECTIVES.items() for model in models]


def binary_rows() -> Row:
    """Three rows: complete, with a hole, and without any observed cell."""
    x = jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    return Row(x, jnp.array([[True, True, True], [True, False, True], [False, False, False]]))


def per_row(objective: Any, model: Helmholtz, row: Row, key: Array) -> Array:
    """What an objective says of one row."""
    if hasattr(objective, "bound"):
        return objective.bound(model, row, key=key)
    fit, divergence = objective.terms(model, row, key=key)
    return fit - jnp.sum(divergence)


def row_of(batch: Row, i: int) -> Row:
    return jax.tree.map(lambda leaf: leaf[i], batch)


def cast(tree: PyTree, dtype: Any) -> PyTree:
    """The tree with its floating-point arrays in another precision."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


# Statistics of estimates.


def flat(tree: PyTree, lead: int = 0) -> np.ndarray:
    """The arrays of a tree side by side, after ``lead`` leading axes."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(*leaf.shape[:lead], -1) for leaf in leaves], axis=-1)


def with_gradient(value: Callable[[PyTree], Array], parameters: PyTree) -> tuple[Array, PyTree]:
    """The value and its gradient in what a rule may change."""
    arrays, rest = trainable(parameters)
    return jax.value_and_grad(lambda arrays: value(eqx.combine(arrays, rest)))(arrays)


def exactly(value: Callable[[PyTree], Array], parameters: PyTree) -> np.ndarray:
    """The value, then its gradient, as one vector."""
    return flat(jax.jit(lambda: with_gradient(value, parameters))())


def estimates(value: Callable[[PyTree, Array], Array], parameters: PyTree, n: int, seed: int = 0) -> np.ndarray:
    """``n`` independent estimates: the value in column 0, then the gradient."""
    one = lambda key: with_gradient(lambda p: value(p, key), parameters)  # noqa: E731
    return flat(jax.jit(jax.vmap(one))(jr.split(jr.key(seed), n)), lead=1)


def z_scores(draws: np.ndarray, truth: np.ndarray | float, slack: float = 1e-9) -> np.ndarray:
    """Distance of the mean of the draws from the truth in standard errors; relative rounding of ``slack`` is free."""
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    return (draws.mean(axis=0) - truth) / (error + slack * (1 + np.abs(truth)))


def worst(draws: np.ndarray, truth: np.ndarray | float) -> float:
    return float(np.max(np.abs(z_scores(draws, truth))))


def equations(jaxpr: Any) -> Any:
    """Every equation of a traced function, inner functions included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            if hasattr(inner, "eqns"):
                yield from equations(getattr(inner, "jaxpr", inner))
