"""Biased gradients: against references of another make, and the identities that tie them together."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from estimating import BEND, BIASED, ESTIMATORS, SHAPES, below, cost, draws, log_mass, many, node, parameters, truth
from helpers import LIMIT, exactly, flat, worst

from ravine.dist import Bernoulli, OneHot
from ravine.gradients import (
    DARN,
    GappedStraightThrough,
    GumbelRao,
    GumbelSoftmax,
    ReinMax,
    StraightThrough,
    StraightThroughGumbel,
)
from ravine.gradients._classes import conditioned
from ravine.gradients.pathwise import AbstractPathwise
from ravine.gradients.straight_through import mean_gap

pytestmark = pytest.mark.usefixtures("x64")
N = 20_000
stop = jax.lax.stop_gradient
LOGITS = np.array([0.9, -0.4, 0.2])


# References: noise of NumPy, and the slope of the surrogate left to automatic differentiation.


def straight(logits, noise, t):
    return hardened(jax.nn.softmax(logits / t), logits, noise)


def relaxed(logits, noise, t):
    return jax.nn.softmax((logits + noise) / t)


def hardened_relaxed(logits, noise, t):
    return hardened(relaxed(logits, noise, t), logits, noise)


def heun(logits, noise, t):
    """Algorithm 2 of Liu et al.: a trapezoid of two softmaxes, the first shifted so that it passes (D + p) / 2."""
    one = largest(logits, noise)
    middle = (one + jax.nn.softmax(stop(logits) / t)) / 2
    shift = stop(jnp.log(middle) - logits)
    return hardened(2 * jax.nn.softmax(shift + logits) - jax.nn.softmax(logits) / 2, logits, noise)


def expanded(logits, noise):
    """The slope of the cost at the draw, times the way there from equal shares, times the slope of log q."""

    @jax.custom_vjp
    def state(logits):
        return largest(logits, noise)

    def back(logits, slope):
        one, p = largest(logits, noise), jnp.exp(logits) / jnp.sum(jnp.exp(logits), axis=-1, keepdims=True)
        way = jnp.sum(slope * one, axis=-1, keepdims=True) - jnp.mean(slope, axis=-1, keepdims=True)
        return (way * (one - p),)

    state.defvjp(lambda logits: (largest(logits, noise), logits), back)
    return state(logits)


def gapped(logits, noise, t, gap=1.0):
    """Fan et al.: the drawn logit up by m1, the others down by m2."""
    one, top = largest(logits, noise), jnp.max(logits, axis=-1, keepdims=True)
    if gap is None:
        share = jnp.sum(one * jax.nn.softmax(logits), axis=-1, keepdims=True)
        gap = -jnp.log1p(-share) / share
    up, down = (top - logits) * one, jnp.maximum(logits + gap - top, 0) * (1 - one)
    return hardened(jax.nn.softmax((logits + stop(up - down)) / t), logits, noise)


def imitated(logits, noise, step=None, beta=None):
    """Niepert et al., and the adaptive form: a backward pass that solves at logits moved to both sides."""

    @jax.custom_vjp
    def state(logits, noise):
        return largest(logits, noise)

    def back(seen, slope):
        long = step if beta is None else beta * jnp.sqrt(jnp.sum(seen[0] ** 2) / jnp.sum(slope**2))
        up, down = (largest(seen[0] + sign * long * slope, seen[1]) for sign in (1, -1))
        return (up - down) / (2 * long), None

    state.defvjp(lambda logits, noise: (largest(logits, noise), (logits, noise)), back)
    return state(logits, noise)


def largest(logits, noise):
    return jax.nn.one_hot(jnp.argmax(stop(logits) + noise, axis=-1), logits.shape[-1])


def hardened(soft, logits, noise):
    return largest(logits, noise) + soft - stop(soft)


REFERENCES: dict[str, Callable] = {
    "straight-through": functools.partial(straight, t=1.0),
    "straight-through-0.5": functools.partial(straight, t=0.5),
    "gumbel-softmax": functools.partial(relaxed, t=0.7),
    "straight-through-gumbel": functools.partial(hardened_relaxed, t=0.7),
    "gumbel-rao": functools.partial(hardened_relaxed, t=0.7),
    "reinmax": functools.partial(heun, t=1.0),
    "reinmax-1.3": functools.partial(heun, t=1.3),
    "darn": expanded,
    "gapped": functools.partial(gapped, t=0.7),
    "gapped-p": functools.partial(gapped, t=0.7, gap=None),
    "imle": functools.partial(imitated, step=0.8),
    "aimle": functools.partial(imitated, beta=2.0),
}


def by_hand(kind, soft, theta, bend, noise):
    """The cost at one surrogate draw of all layers."""

    def layer(logits, noise):
        if kind == "classes":
            return soft(logits, noise)
        return soft(jnp.stack([logits, jnp.zeros(logits.shape)], axis=-1), noise)[..., 0]

    z = (layer(theta["logits"], noise[0]),)
    log_q = log_mass(kind, theta["logits"], z[0])
    if "weight" in theta:
        z += (layer(below(theta, z[0]), noise[1]),)
        log_q += log_mass(kind, below(theta, z[0]), z[1])
    return cost(theta, bend, z, log_q)


@functools.cache
def reference(kind: str, depth: int, name: str) -> np.ndarray:
    shape = SHAPES[kind] if kind == "classes" else (*SHAPES[kind], 2)
    noise = -np.log(np.random.default_rng(8).exponential(size=(N, depth, *shape)))
    return many(functools.partial(by_hand, kind, REFERENCES[name]), parameters(kind, depth), jnp.asarray(noise))


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Distance of two means in combined standard errors."""
    error = np.hypot(one.std(axis=0, ddof=1) / np.sqrt(len(one)), other.std(axis=0, ddof=1) / np.sqrt(len(other)))
    return float(np.max(np.abs(one.mean(axis=0) - other.mean(axis=0)) / (error + 1e-9)))


DEEP = {"straight-through", "reinmax"}  # seen with two layers in every run of the tests
CASES = [
    pytest.param(kind, depth, name, marks=[] if quick else pytest.mark.slow, id=f"{kind}-{depth}-{name}")
    for kind, depth in itertools.product(("bits", "classes"), (1, 2))
    for name in BIASED
    for quick in [(kind, depth) == ("classes", 1) or ((kind, depth) == ("bits", 2) and name in DEEP)]
]


@pytest.mark.parametrize("kind, depth, name", CASES)
def test_mean_of_a_biased_gradient_is_that_of_its_reference(kind, depth, name):
    ours, other = draws(kind, depth, name), reference(kind, depth, name)
    assert max(apart(ours[i], other[i]) for i in range(len(BEND))) < LIMIT


# One bit, by quadrature over the noise, a difference of two Gumbels.


def bent(z):
    return jnp.exp(0.8 * z) + (z - 0.3) ** 2


def of_noise(logit, u, t, hard):
    """The surrogate at the u-quantile of the noise."""
    soft = jax.nn.sigmoid((logit + jnp.log(u) - jnp.log1p(-u)) / t)
    return bent(soft if not hard else (stop(logit) + jnp.log(u) - jnp.log1p(-u) > 0) + soft - stop(soft))


def integrated(logit: float, t: float, hard: bool) -> np.ndarray:
    """Gauss-Legendre on both sides of the point where the bit flips."""
    points, weights = np.polynomial.legendre.leggauss(200)
    flip = 1 / (1 + np.exp(logit))
    halves = [(0.0, flip), (flip, 1.0)]
    u = jnp.asarray(np.concatenate([a + (b - a) * (points + 1) / 2 for a, b in halves]))
    w = jnp.asarray(np.concatenate([(b - a) * weights / 2 for a, b in halves]))
    return exactly(lambda logit: w @ jax.vmap(lambda u: of_noise(logit, u, t, hard))(u), jnp.asarray(logit))


@pytest.mark.parametrize("t", [0.5, 1.5])
def test_one_bit_by_quadrature(t):
    def drawn(gradient):
        value = lambda logit, key: gradient(lambda z: bent(z[0]), Bernoulli(logit[None]), key=key)  # noqa: E731
        one = lambda key: jax.value_and_grad(value)(jnp.asarray(0.6), key)  # noqa: E731
        return flat(jax.jit(jax.vmap(one))(jr.split(jr.key(2), 40_000)), lead=1)

    soft, hard = integrated(0.6, t, False), integrated(0.6, t, True)
    assert worst(drawn(GumbelSoftmax(t)), soft) < LIMIT
    for gradient in (StraightThroughGumbel(t), GumbelRao(t, draws=4)):
        assert worst(drawn(gradient), hard) < LIMIT
    assert np.abs(soft - hard).max() > 0.05


# Identities.


def jacobian(gradient, logits, key):
    """The draw, and the slope of what stands for it in the logits."""
    shares = lambda moved: gradient.shares(moved, key=key)  # noqa: E731
    return shares(logits), jax.jacrev(shares)(logits)


def second_order(drawn, logits):
    """Half straight-through, half DARN(1/2): the Jacobian of ZGR."""
    p = jax.nn.softmax(logits)
    return (jnp.diag(p) - jnp.outer(p, p) + jnp.outer(drawn - p, drawn - p)) / 2


def test_darn_of_bits_is_reinmax_and_of_more_classes_is_not():
    def slope(gradient, law, key):
        goal = jnp.asarray(LOGITS)
        return jax.grad(lambda logits: gradient(lambda z: jnp.sum((z - goal) ** 3), law(logits), key=key))(goal)

    keys = jr.split(jr.key(1), 20)
    for law, same in ((Bernoulli, True), (OneHot, False)):
        one, other = (jax.vmap(functools.partial(slope, gradient, law))(keys) for gradient in (DARN(), ReinMax()))
        assert np.allclose(one, other, atol=1e-14) == same


def test_reinmax_is_half_straight_through_half_darn_draw_by_draw():
    @jax.jit
    def both(keys):
        logits = jnp.asarray(LOGITS)
        drawn, slope = jax.vmap(lambda key: jacobian(ReinMax(), logits, key))(keys)
        plain = jax.vmap(lambda key: jacobian(StraightThrough(), logits, key)[0])(keys)
        return drawn, plain, slope, jax.vmap(lambda d: second_order(d, logits))(drawn)

    drawn, plain, slope, zgr = both(jr.split(jr.key(0), 50))
    np.testing.assert_array_equal(drawn, plain)
    np.testing.assert_allclose(slope, zgr, atol=1e-15)
    assert len(np.unique(drawn, axis=0)) == 3


@pytest.mark.parametrize("kind", SHAPES)
def test_reinmax_is_unbiased_where_the_cost_is_quadratic(kind):
    """Where straight-through is not."""
    found, plain, exact = draws(kind, 1, "reinmax"), draws(kind, 1, "straight-through"), truth(kind, 1)
    assert worst(found[0], exact[0]) < LIMIT < worst(plain[0], exact[0]) / 2


def test_cold_gumbel_rao_is_second_order():
    """Its mean over the noise, given the draw, has the limit of ReinMax; it is off by the order of the temperature."""
    t = 0.02

    @jax.jit
    def given(keys):
        drawn = jnp.eye(3)

        def slope(d, key):
            soft = jax.nn.softmax(conditioned(jnp.asarray(LOGITS), d, key=key) / t)
            return (jnp.diag(soft) - jnp.outer(soft, soft)).ravel() / t

        table = jax.vmap(lambda d: jax.vmap(lambda key: slope(d, key))(keys))(drawn)
        return table, jax.vmap(lambda d: second_order(d, jnp.asarray(LOGITS)).ravel())(drawn)

    table, limit = (np.asarray(a) for a in given(jr.split(jr.key(1), 40_000)))
    error = table.std(axis=1) / np.sqrt(table.shape[1])
    assert np.all(np.abs(table.mean(axis=1) - limit) < LIMIT * error + 0.5 * t)
    assert np.abs(limit).max() > 10 * (LIMIT * error + 0.5 * t).min()


def test_conditioned_noise_has_the_law_of_noise_that_was_kept():
    """Against rejection: free noise whose largest class is the wanted one."""
    logits = jnp.array([1.5, -1.0, 0.3])
    noise = -np.log(np.random.default_rng(9).exponential(size=(200_000, 3)))
    free = np.asarray(jax.nn.log_softmax(logits)) + noise
    over = jax.jit(jax.vmap(lambda d, key: conditioned(logits, d, key=key), (None, 0)))
    for wanted in range(3):
        held = over(jnp.eye(3)[wanted], jr.split(jr.key(3), 20_000))
        kept = free[free.argmax(axis=1) == wanted]
        pairs = [(0, 1), (0, 2), (1, 2)]
        sides = [np.concatenate([a, a**2, np.stack([a[:, i] * a[:, j] for i, j in pairs], 1)], 1) for a in (held, kept)]
        assert np.all(np.asarray(held).argmax(axis=1) == wanted)
        assert apart(*map(np.asarray, sides)) < LIMIT


@pytest.mark.parametrize("gap", [1.0, 2.5, None])
def test_moved_logits_lead_by_the_gap(gap):
    gradient, stream = GappedStraightThrough(gap=gap), np.random.default_rng(4)
    logits = jnp.asarray(3 * stream.normal(size=(200, 4)))
    drawn = jnp.eye(4)[stream.integers(4, size=200)]
    moved = np.asarray(gradient.moved(logits, drawn))
    lead = (np.asarray(drawn) * moved).sum(axis=1) - np.where(drawn > 0, -np.inf, moved).max(axis=1)
    least = np.asarray(mean_gap(logits, drawn)[:, 0]) if gap is None else gap
    assert np.all(moved.argmax(axis=1) == drawn.argmax(axis=1))
    assert np.all(lead >= least - 1e-12) and np.isclose(lead, least).any()
    ahead = np.asarray(logits.argmax(axis=1) == drawn.argmax(axis=1))
    assert 20 < ahead.sum() < 180
    kept = np.where(np.asarray(drawn)[ahead] > 0, moved[ahead] == np.asarray(logits)[ahead], True)
    assert kept.all()
    far = ahead & (np.sort(logits, axis=1)[:, -1] - np.sort(logits, axis=1)[:, -2] > least)
    np.testing.assert_array_equal(moved[far], logits[far])
    np.testing.assert_allclose(gradient.moved(logits + 7.5, drawn) - 7.5, moved, atol=1e-9)


def test_mean_gap_is_the_mean_lead_of_noisy_logits():
    logits = jnp.array([1.5, -1.0, -9.0])
    noisy = np.asarray(logits) - np.log(np.random.default_rng(5).exponential(size=(400_000, 3)))
    ranked, first = np.sort(noisy, axis=1), noisy.argmax(axis=1)
    for i in (0, 1):
        lead = (ranked[:, 2] - ranked[:, 1])[first == i]
        assert worst(lead[:, None], float(mean_gap(logits, jnp.eye(3)[i])[0])) < LIMIT
    faint = jnp.array([0.0, -6.9, -6.92])  # on both sides of where the quotient is replaced
    low, high = (float(mean_gap(faint, jnp.eye(3)[i])[0]) for i in (2, 1))
    assert 1 < low < high < 1.0006


EXACT_DRAWS = [n for n in BIASED if n != "gumbel-softmax" and isinstance(BIASED[n](3), AbstractPathwise)]


@pytest.mark.parametrize("name", EXACT_DRAWS)
def test_forwards_a_draw_is_a_value_of_the_node_to_the_bit(name):
    for kind in SHAPES:
        d = node(kind, parameters(kind, 1)["logits"])
        z = jax.jit(jax.vmap(lambda key, d=d: ESTIMATORS[name](3).drawn(d, key=key)))(jr.split(jr.key(6), 300))
        assert set(np.unique(z)) == {0.0, 1.0} and (kind == "bits" or np.all(z.sum(axis=-1) == 1))
        assert worst(np.asarray(z).reshape(300, -1), np.asarray(d.mean()).ravel()) < LIMIT
