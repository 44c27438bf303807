"""Every gradient estimator by one table: what it declares is what it does."""

from __future__ import annotations

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from estimating import (
    BEND,
    BIASED,
    ESTIMATORS,
    FOR_BITS,
    SHAPES,
    UNBIASED,
    draws,
    node,
    nodes,
    truth,
)
from helpers import LIMIT, cast, equations, estimates, exactly, flat, with_gradient, worst

from ravine import gradients
from ravine.core import AbstractGradient
from ravine.dist import Bernoulli, Gaussian, Poisson, Subset
from ravine.gradients import RELAX, MeasureValued
from ravine.posteriors import AbstractManyDraws, Chain, OneNode

x64 = pytest.mark.usefixtures("x64")
slow = pytest.mark.slow
EXACT = ("enumerate", "partial-all")
QUICK = {
    ("bits", 1): (),
    ("bits", 2): ("disarm", "arm", "nvil-learned", "partial-1"),
    ("classes", 1): ("rloo-2", "partial-5", "local", "muprop", "rebar-learned", "enumerate"),
    ("classes", 2): ("rloo-2", "muprop", "local"),
}


def served(name: str, kind: str) -> bool:
    return ESTIMATORS[name](nodes(kind).mean().size).refuses(nodes(kind)) is None


def cases() -> list:
    """One node of bits for all, the other nodes for some by default and for all where there is time."""
    found = []
    for name in UNBIASED:
        for kind in SHAPES if name not in FOR_BITS else ("bits",):
            for depth in (1, 2):
                quick = (kind, depth) == ("bits", 1) or name in QUICK[kind, depth]
                found.append(pytest.param(kind, depth, name, marks=[] if quick else slow))
    return found


# The right numbers on average.


@x64
@pytest.mark.parametrize("kind, depth, name", cases())
def test_value_and_gradient_are_right_on_average(kind, depth, name):
    """Quadratic costs and others, with a share of log q and with parameters of their own."""
    assert not ESTIMATORS[name](3).biased
    found, exact = draws(kind, depth, name), truth(kind, depth)
    if name in EXACT:
        np.testing.assert_allclose(found, np.broadcast_to(exact[:, None], found.shape), rtol=1e-9, atol=1e-9)
    assert max(worst(found[i], exact[i]) for i in range(len(BEND))) < LIMIT


@x64
@pytest.mark.parametrize("name", BIASED)
def test_an_estimator_that_is_declared_biased_is(name):
    """On one of two costs, somewhere in the gradient; the value is right where `hard` changes nothing."""
    gradient = BIASED[name](6)
    found, exact = draws("classes", 1, name), truth("classes", 1)
    assert gradient.biased and gradient.differentiates
    assert max(worst(found[i], exact[i]) for i in range(len(BEND))) > 2 * LIMIT
    values = max(worst(found[i, :, :1], exact[i, :1]) for i in range(len(BEND)))
    assert (values < LIMIT) == (gradient.hard() is gradient)
    assert gradient.hard().hard() == gradient.hard()


def rate() -> dict[str, jax.Array]:
    return {"log_rate": jnp.array([0.4, -0.5]), "weight": jnp.array([0.3, -0.2])}


def counted(theta, key):
    d = Poisson(theta["log_rate"])
    inside = lambda z, log_q: jnp.cos(z[0]) * z[1] + jnp.exp(theta["weight"] @ z) + 0.3 * z[1] * theta["weight"][0]  # noqa: E731
    return OneNode(d).expect(inside, MeasureValued(), key=key)


def counted_truth(theta):
    """E[cos n] and E[exp(a n)] from the generating function exp(rate (s - 1))."""
    rate, weight = jnp.exp(theta["log_rate"]), theta["weight"]
    cosine = jnp.exp(rate[0] * (jnp.cos(1.0) - 1)) * jnp.cos(rate[0] * jnp.sin(1.0)) * rate[1]
    return cosine + jnp.exp(jnp.sum(rate * jnp.expm1(weight))) + 0.3 * rate[1] * weight[0]


def spread() -> dict[str, jax.Array]:
    return {"location": jnp.array([0.4, -1.0]), "scale": jnp.array([0.6, 1.1])}


def smooth(theta, key):
    inside = lambda z, log_q: jnp.cos(2 * z[0]) + z[0] * z[1] + jnp.exp(0.4 * z[1]) - 0.3 * log_q  # noqa: E731
    return OneNode(Gaussian(theta["location"], theta["scale"])).expect(inside, MeasureValued(), key=key)


def smooth_truth(theta):
    (a, b), (s, t) = theta["location"], theta["scale"]
    entropy = jnp.sum(jnp.log(theta["scale"])) + jnp.log(2 * jnp.pi * jnp.e)
    return jnp.exp(-2 * s**2) * jnp.cos(2 * a) + a * b + jnp.exp(0.4 * b + 0.08 * t**2) + 0.3 * entropy


def two_gaussians() -> dict[str, jax.Array]:
    return spread() | {"weight": jnp.array([[1.0, -0.5], [0.2, 0.7]]), "noise": jnp.array([0.5, 0.9])}


def chained(theta, key):
    step = lambda z: Gaussian(theta["weight"] @ z, theta["noise"])  # noqa: E731
    inside = lambda z, log_q: jnp.sum(z[1] ** 2) + z[0] @ z[1] - 0.5 * log_q  # noqa: E731
    return Chain(Gaussian(theta["location"], theta["scale"]), (step,)).expect(inside, MeasureValued(), key=key)


def chained_truth(theta):
    m, w = theta["location"], theta["weight"]
    second = m[:, None] * m[None, :] + jnp.diag(theta["scale"] ** 2)
    entropy = jnp.sum(jnp.log(theta["scale"] * theta["noise"])) + 2 * jnp.log(2 * jnp.pi * jnp.e)
    return jnp.trace(w @ second @ w.T) + jnp.sum(theta["noise"] ** 2) + jnp.trace(w @ second) + 0.5 * entropy


MEASURED = {
    "poisson": (rate, counted, counted_truth),
    "gaussian": (spread, smooth, smooth_truth),
    "two-gaussians": (two_gaussians, chained, chained_truth),
}


@x64
@pytest.mark.parametrize("name", ["poisson", "gaussian", pytest.param("two-gaussians", marks=slow)])
def test_measure_valued_gradients_are_right_on_average(name):
    theta, value, exact = MEASURED[name]
    assert worst(estimates(value, theta(), 40_000), exactly(exact, theta())) < LIMIT


# Constants, and derivatives of the cost.

# a gradient that feels a constant added to the cost: there is no baseline, or one that has to be learned
FEELS = {"score-1", "nvil", "nvil-learned", "partial-0", "partial-1", "partial-5", "rebar-learned"}
NOISY = FEELS | {"relax-learned"}  # its network is a control variate whatever the cost is


def slope(kind: str, name: str, scale: Any, constant: Any, follow: Any) -> jax.Array:
    """Gradient in the logits of a cost from one draw; ``follow`` is 0 where the cost has no derivative."""
    weight = jnp.arange(1.0, 1 + math.prod(SHAPES[kind])).reshape(SHAPES[kind])

    def inside(z):
        fixed = jax.lax.stop_gradient(z)
        z = fixed + follow * (z - fixed)
        return constant + scale * (jnp.sin(jnp.sum(z**2 * weight)) + jnp.sum(z * weight))

    gradient = ESTIMATORS[name](weight.size)
    return jax.grad(lambda logits: gradient(inside, node(kind, logits), key=jr.key(3)))(0.2 * weight - 0.5)


@functools.cache
def slopes(kind: str) -> dict[str, np.ndarray]:
    """Gradients in the logits of a cost, the same plus a constant, the same without a derivative, a constant alone."""
    scale, constant, follow = jnp.array([1.0, 1.0, 1.0, 0.0]), jnp.array([0.0, 1e3, 0.0, 1e3]), jnp.array([1, 1, 0, 1])

    every = {name: functools.partial(slope, kind, name) for name in UNBIASED | BIASED if served(name, kind)}
    found = jax.jit(lambda *a: {name: jax.vmap(one)(*a) for name, one in every.items()})(scale, constant, follow)
    return {name: flat(one, lead=1) for name, one in found.items()}


@slow
@x64
@pytest.mark.parametrize("kind", ["bits", "classes"])
def test_who_feels_a_constant(kind):
    felt = {name for name, (plain, moved, _, _) in slopes(kind).items() if np.abs(moved - plain).max() > 1e-8}
    alone = {name for name, (_, _, _, none) in slopes(kind).items() if np.abs(none).max() > 1e-8}
    assert (felt, alone) == (FEELS, NOISY)


@slow
@x64
@pytest.mark.parametrize("kind", ["bits", "classes"])
def test_who_needs_a_derivative_of_the_cost(kind):
    needs = {name for name, (plain, _, without, _) in slopes(kind).items() if np.abs(without - plain).max() > 1e-8}
    assert needs == {name for name in slopes(kind) if ESTIMATORS[name](3).differentiates}


@slow
@x64
@pytest.mark.parametrize("name", UNBIASED | BIASED)
def test_compiled_and_among_others_is_as_alone(name):
    kind = "bits" if name in FOR_BITS else "classes"
    np.testing.assert_allclose(slopes(kind)[name][0], slope(kind, name, 1.0, 0.0, 1.0).ravel(), rtol=1e-9, atol=1e-12)


# Cost of an estimate.


def evaluated(posterior, gradient) -> int:
    """On how many latents the cost is evaluated: it holds a primitive that nothing else uses, nor its derivatives."""

    def cost(z, log_q):
        return jax.lax.erf(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(z)))

    traced = jax.make_jaxpr(lambda: posterior.expect(cost, gradient, key=jr.key(0)))()
    return sum(e.outvars[0].aval.size for e in equations(traced.jaxpr) if e.primitive.name == "erf")


def deep(kind: str, depth: int) -> Chain:
    """Nodes of one size, so that what has learned one serves all."""
    if kind == "gaussian":
        law = lambda z: Gaussian(z, jnp.ones(z.shape))  # noqa: E731
    else:
        law = Poisson if kind == "poisson" else functools.partial(node, kind)
    shape = SHAPES.get(kind, (3,)) if depth < 3 else {"bits": (2,), "classes": (1, 2)}.get(kind, (1,))
    return Chain(law(jnp.zeros(shape)), (law,) * (depth - 1))


# for a node of 3 bits, and for 2 categoricals of 3 classes: evaluations by one estimate, and by one for two nodes
EVALUATIONS = {
    "score-1": (1, 1, 1, 1),
    "rloo-3": (3, 3, 3, 3),
    "nvil-learned": (2, 2, 2, 2),
    "partial-5": (6, 6, 36, 36),
    "partial-all": (8, 9, 64, 81),
    "enumerate": (8, 9, 64, 81),
    "local": (4, 5, 16, 25),
    "muprop": (2, 2, 4, 4),
    "rebar": (3, 3, 9, 9),
    "relax-learned": (3, 3, 9, 9),
    "arm": (2, None, 4, None),
    "disarm-2": (4, None, 16, None),
    "straight-through": (1, 1, 1, 1),
    "gumbel-rao": (1, 1, 1, 1),
    "imle": (1, 1, 1, 1),
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_declared_evaluations(name):
    expected = EVALUATIONS[name]
    kinds = [kind for kind in SHAPES if served(name, kind)]
    found = [ESTIMATORS[name](3 if k == "bits" else 6).evaluations(deep(k, d)) for d in (1, 2) for k in kinds]
    assert found == [count for count in expected if count is not None]


SERVED = [(name, kind) for name in ESTIMATORS for kind in (*SHAPES, "gaussian", "poisson") if served(name, kind)]
COUNTED = [(n, k, d) for n, k in SERVED for d in (1, 2, 3) if k != "classes" or n in ("rloo-3", "local", "reinmax")]
LONG = {"rebar": 3, "rebar-learned": 2, "relax": 2, "relax-learned": 2}  # the depth from which tracing takes seconds


@pytest.mark.parametrize(
    "name, kind, depth", [pytest.param(*c, marks=slow if c[2] >= LONG.get(c[0], 4) else []) for c in COUNTED]
)
def test_cost_is_evaluated_as_often_as_declared(name, kind, depth):
    posterior = deep(kind, depth)
    gradient = ESTIMATORS[name](posterior.nodes()[0].mean().size)
    assert evaluated(posterior, gradient) == gradient.evaluations(posterior)
    if depth == 1:
        assert evaluated(OneNode(posterior.first), gradient) == gradient.calls(posterior.first)


# Refusals.

SCORES = {"NVIL", "RLOO", "ScoreFunction"}
LISTS = {"Enumerate", "PartialEnumerate", "MuProp"}
CLASSES = {"GappedStraightThrough", "GumbelRao", "GumbelSoftmax", "LocalExpectation", "REBAR", "RELAX", "ReinMax"}
CLASSES |= {"AIMLE", "DARN", "IMLE", "StraightThrough", "StraightThroughGumbel"} | SCORES | LISTS
SERVING = {
    "bits": CLASSES | {"ARM", "DisARM"},
    "classes": CLASSES,
    "gaussian": SCORES | {"MeasureValued", "Pathwise"},
    "poisson": SCORES | {"MeasureValued"},
}
NAMES = [name for name in gradients.__all__ if issubclass(getattr(gradients, name), AbstractGradient)]
NAMES = [name for name in NAMES if not issubclass(getattr(gradients, name), AbstractManyDraws)]
REFUSED = [(kind, name) for kind, fit in SERVING.items() for name in NAMES if name not in fit]


def unreachable(*_):
    raise AssertionError("the cost was traced")


@pytest.mark.parametrize("kind, name", REFUSED)
def test_what_does_not_fit_is_refused_and_what_fits_is_named(kind, name):
    """Of one node, and of the last of three."""
    gradient, last = getattr(gradients, name)(), nodes(kind)
    some = {"Pathwise": Gaussian(jnp.zeros(3), jnp.ones(3)), "MeasureValued": Gaussian(jnp.zeros(3), jnp.ones(3))}
    some |= {"ConcreteSubset": Subset(jnp.zeros(3), 1), "SIMPLE": Subset(jnp.zeros(3), 1)}
    first = some.get(name, Bernoulli(jnp.zeros(3)))
    assert gradient.refuses(first) is None
    for posterior in (OneNode(last), Chain(first, (lambda z: first, lambda z: last))):
        with pytest.raises(TypeError) as caught:
            posterior.expect(unreachable, gradient, key=jr.key(0))
        message = str(caught.value)
        start, rest = message.split(": ")
        assert message.isprintable() and start == f"{name} cannot differentiate through {type(last).__name__}"
        assert set(rest.removesuffix(".").split("; use ")[1].split(", ")) == SERVING[kind]


@pytest.mark.parametrize("kind", SERVING)
def test_what_is_named_serves(kind):
    """Value and gradient are of the right shape."""
    d = nodes(kind)
    for name in SERVING[kind]:
        gradient: AbstractGradient = getattr(gradients, name)()
        value = lambda d, gradient=gradient: gradient(lambda z: jnp.sum(z**2), d, key=jr.key(0))  # noqa: E731
        slope = jax.eval_shape(jax.grad(value), d)
        assert jax.tree.map(jnp.shape, slope) == jax.tree.map(jnp.shape, d)


def test_a_network_for_another_node_is_refused():
    learned = ESTIMATORS["relax-learned"](6)
    with pytest.raises(TypeError, match="6 numbers.* 3; use"):
        OneNode(nodes("bits")).expect(unreachable, learned, key=jr.key(0))


def test_a_lonely_draw_has_no_baseline():
    with pytest.raises(ValueError, match="at least 2, got 1; use ScoreFunction"):
        gradients.RLOO(1)


# Extremes.

HOT = jnp.array([1e-4, 1e-2, 0.3, 10.0])
FAR = {
    "bits": jnp.array([[50.0, -50.0, 0.3], [-50.0, -50.0, -50.0]]),
    "classes": jnp.array([[[50.0, -50.0, 0.0], [-50.0, 50.0, 50.0]], [[-50.0, -50.0, 0.1], [50.0, 49.0, -50.0]]]),
}
DRAWS = 12_500  # for each of 4 temperatures and 2 nodes


def heated(gradient: AbstractGradient, temperature: jax.Array) -> AbstractGradient:
    """At another temperature, where the estimator has one."""
    if isinstance(gradient, RELAX):
        return eqx.tree_at(lambda g: g.rebar.temperature, gradient, temperature)
    return eqx.tree_at(lambda g: g.temperature, gradient, temperature) if hasattr(gradient, "temperature") else gradient


def far(name: str, kind: str, temperature: jax.Array, logits: jax.Array, key: jax.Array):
    """Value and gradient of a cost that grows with log q, learned parts of the estimator included."""
    made = heated(ESTIMATORS[name](logits.size), temperature)

    def value(both):
        logits, gradient = both
        inside = lambda z, log_q: (2 - jnp.sum(z[..., :2] - 3 * z[..., 1:])) ** 2 + 0.4 * log_q  # noqa: E731
        return OneNode(node(kind, logits)).expect(inside, gradient, key=key)

    return with_gradient(value, cast((logits, made), jnp.float32))


NUMERIC = ("disarm", "rebar-learned", "gumbel-softmax", "reinmax")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in NUMERIC else slow) for n in UNBIASED | BIASED])
def test_extreme_temperatures_and_logits_are_survived(name):
    """1e5 draws at once in single precision: all finite."""
    kind = "bits" if name in FOR_BITS else "classes"
    over = jax.vmap(functools.partial(far, name, kind), (None, None, 0))
    over = jax.vmap(jax.vmap(over, (None, 0, None)), (0, None, None))
    leaves = jax.tree.leaves(jax.jit(over)(HOT, FAR[kind], jr.split(jr.key(7), DRAWS)))
    assert all(leaf.dtype == jnp.float32 and bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves)
