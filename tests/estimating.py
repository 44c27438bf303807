"""Small expectations over bits and categoricals, one or two layers deep, and every estimator by name."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from helpers import flat, with_gradient
from jaxtyping import Array

from ravine._tree import Running
from ravine.core import AbstractDistribution, AbstractGradient, AbstractPosterior, Row
from ravine.dist import Bernoulli, Gaussian, OneHot, Poisson
from ravine.gradients import (
    AIMLE,
    ARM,
    DARN,
    IMLE,
    NVIL,
    REBAR,
    RELAX,
    RLOO,
    DisARM,
    Enumerate,
    GappedStraightThrough,
    GumbelRao,
    GumbelSoftmax,
    LocalExpectation,
    MeasureValued,
    MuProp,
    PartialEnumerate,
    Pathwise,
    ReinMax,
    ScoreFunction,
    StraightThrough,
    StraightThroughGumbel,
)
from ravine.posteriors import Chain, OneNode

SHAPES = {"bits": (3,), "classes": (2, 3)}
BEND = jnp.array([0.0, 1.0])  # the share of the cost that is not quadratic
N = 10_000


def node(kind: str, logits: Array) -> AbstractDistribution:
    return Bernoulli(logits) if kind == "bits" else OneHot(logits)


def parameters(kind: str, depth: int) -> dict[str, Array]:
    stream = np.random.default_rng(3)
    shape, size = SHAPES[kind], int(np.prod(SHAPES[kind]))
    draw = lambda *shape: jnp.asarray(0.7 * stream.normal(size=shape))  # noqa: E731
    theta = {"logits": draw(*shape), "decoder": draw(2, size * depth), "goal": 2 * draw(2), "slope": draw(size * depth)}
    return theta | ({"weight": draw(size, size), "bias": draw(*shape)} if depth == 2 else {})


def below(theta: dict[str, Array], z: Array) -> Array:
    """The logits of the second layer."""
    return (theta["weight"] @ z.ravel()).reshape(z.shape) + theta["bias"]


def cost(theta: dict[str, Array], bend: Array, z: tuple[Array, ...], log_q: Array) -> Array:
    """A quadratic of all cells, or what is none; both with a share of log q."""
    v = jnp.concatenate([leaf.ravel() for leaf in z])
    square = jnp.sum((theta["decoder"] @ v - theta["goal"]) ** 2)
    bent = 2 * jnp.tanh(theta["decoder"][0] @ v) * jnp.exp(theta["slope"] @ v)
    return (1 - bend) * square + bend * bent + 0.4 * log_q


def posterior(kind: str, theta: dict[str, Array]) -> AbstractPosterior:
    first = node(kind, theta["logits"])
    return Chain(first, (lambda z: node(kind, below(theta, z)),)) if "weight" in theta else OneNode(first)


def expected(kind: str, gradient: AbstractGradient, theta: dict[str, Array], bend: Array, key: Array) -> Array:
    """The expected cost as the library estimates it."""
    whole = lambda z, log_q: cost(theta, bend, z if isinstance(z, tuple) else (z,), log_q)  # noqa: E731
    return posterior(kind, theta).expect(whole, gradient, key=key)


# The same expectation over all states, in elementary functions.


def states(kind: str) -> Array:
    if kind == "bits":
        return jnp.asarray(list(itertools.product([0.0, 1.0], repeat=3)))
    return jnp.eye(3)[jnp.asarray(list(itertools.product(range(3), repeat=2)))]


def log_mass(kind: str, logits: Array, z: Array) -> Array:
    norm = jnp.log1p(jnp.exp(logits)) if kind == "bits" else jnp.log(jnp.sum(jnp.exp(logits), axis=-1, keepdims=True))
    return jnp.sum(z * logits - norm) if kind == "bits" else jnp.sum(z * (logits - norm))


def summed(kind: str, theta: dict[str, Array], bend: Array) -> Array:
    def one(*z: Array) -> Array:
        log_q = log_mass(kind, theta["logits"], z[0])
        log_q += log_mass(kind, below(theta, z[0]), z[1]) if len(z) == 2 else 0.0
        return jnp.exp(log_q) * cost(theta, bend, z, log_q)

    every = states(kind)
    if "weight" not in theta:
        return jnp.sum(jax.vmap(one)(every))
    return jnp.sum(jax.vmap(lambda a: jax.vmap(lambda b: one(a, b))(every))(every))


@functools.cache
def truth(kind: str, depth: int) -> np.ndarray:
    """For a quadratic and a bent cost: the expectation, and its gradient."""
    theta = parameters(kind, depth)
    both = jax.vmap(lambda bend: with_gradient(lambda theta: summed(kind, theta, bend), theta))
    return flat(jax.jit(both)(BEND), lead=1)


def many(value: Callable[..., Array], theta: dict[str, Array], keys: Any) -> np.ndarray:
    """Estimates ``value(theta, bend, key)`` and their gradients: (bends, draws, numbers)."""
    one = lambda bend, key: with_gradient(lambda theta: value(theta, bend, key), theta)  # noqa: E731
    return flat(jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(BEND, keys), lead=2)


@functools.cache
def draws(kind: str, depth: int, name: str) -> np.ndarray:
    gradient = ESTIMATORS[name](int(np.prod(SHAPES[kind])))
    value = functools.partial(expected, kind, gradient)
    return many(value, parameters(kind, depth), jr.split(jr.key(len(name)), N))


# Estimators by name, made for a node of so many cells.


def fixed(gradient: AbstractGradient) -> Callable[[int], AbstractGradient]:
    return lambda size: gradient


def nvil(size: int) -> AbstractGradient:
    """A baseline that was learned somewhere else, and does not divide."""
    made = NVIL(k=2, width=2, normalise=False).learning(2, (size,), key=jr.key(4)).given(Row(jnp.array([1.0, -2.0])))
    return dataclasses.replace(made, centre=Running(jnp.asarray(0.8)))


def rebar(size: int) -> AbstractGradient:
    return dataclasses.replace(REBAR(0.4, 0.8), moved=jnp.array([0.3, -0.2]))


def relax(size: int) -> AbstractGradient:
    return RELAX(width=2).learning(2, (size,), key=jr.key(5))


UNBIASED: dict[str, Callable[[int], AbstractGradient]] = {
    "score-1": fixed(ScoreFunction()),
    "rloo-2": fixed(RLOO()),
    "rloo-3": fixed(RLOO(3)),
    "nvil": fixed(NVIL()),
    "nvil-learned": nvil,
    "partial-0": fixed(PartialEnumerate(0)),
    "partial-1": fixed(PartialEnumerate()),
    "partial-5": fixed(PartialEnumerate(5)),
    "local": fixed(LocalExpectation()),
    "muprop": fixed(MuProp()),
    "rebar": fixed(REBAR()),
    "rebar-learned": rebar,
    "relax": fixed(RELAX()),
    "relax-learned": relax,
    "enumerate": fixed(Enumerate()),
    "partial-all": fixed(PartialEnumerate(1000)),
    "arm": fixed(ARM()),
    "arm-2": fixed(ARM(2)),
    "disarm": fixed(DisARM()),
    "disarm-2": fixed(DisARM(2)),
}
BIASED: dict[str, Callable[[int], AbstractGradient]] = {
    "straight-through": fixed(StraightThrough()),
    "straight-through-0.5": fixed(StraightThrough(0.5)),
    "gumbel-softmax": fixed(GumbelSoftmax(0.7)),
    "straight-through-gumbel": fixed(StraightThroughGumbel(0.7)),
    "gumbel-rao": fixed(GumbelRao(0.7, draws=3)),
    "reinmax": fixed(ReinMax()),
    "reinmax-1.3": fixed(ReinMax(1.3)),
    "darn": fixed(DARN()),
    "gapped": fixed(GappedStraightThrough(0.7)),
    "gapped-p": fixed(GappedStraightThrough(0.7, gap=None)),
    "imle": fixed(IMLE(0.8, symmetric=True)),
    "aimle": fixed(AIMLE(2.0, symmetric=True)),
}
OTHERS = {"pathwise": fixed(Pathwise()), "measure": fixed(MeasureValued())}
ESTIMATORS = UNBIASED | BIASED | OTHERS
FOR_BITS = ("arm", "arm-2", "disarm", "disarm-2")


def nodes(kind: str) -> AbstractDistribution:
    """A node of each kind that some estimator refuses."""
    if kind == "gaussian":
        return Gaussian(jnp.array([0.3, -0.2, 0.5]), jnp.array([0.6, 1.1, 0.9]))
    return Poisson(jnp.array([0.3, -0.2, 0.5])) if kind == "poisson" else node(kind, jnp.zeros(SHAPES[kind]))
