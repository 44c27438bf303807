"""Wake-sleep and its kin on nets that can be listed: gradients against full enumeration, and the coupled pair.

Estimates are asked to be within 4.5 standard errors; see helpers.py for what that means.
"""

from __future__ import annotations

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import LIMIT, Affine, affine, cast

from ravine._tree import Fixed, trainable
from ravine.core import Row
from ravine.dist import Ancestral, Bernoulli, Bits, Conditional
from ravine.models.directed import Directed, Helmholtz
from ravine.objectives import Equilibrium, ReweightedWakeSleep, WakeSleep
from ravine.recognisers import BottomUp, Filled

pytestmark = pytest.mark.usefixtures("x64")

N = 20_000
X = jnp.array([1.0, 0.0, 1.0])


def two_layers(seed: int = 0) -> Helmholtz:
    """Two bits over two bits over three cells, with a recogniser that climbs."""
    prior = Bernoulli(jnp.array([0.2, -0.4]))
    between = Conditional(affine(2, 2, seed), Bits(), (2,))
    p = Directed(Ancestral(prior, between), Conditional(affine(2, 3, seed + 1), Bits(), (3,)))
    first = Conditional(affine(3, 2, seed + 2), Bits(), (2,))
    above = Conditional(affine(2, 2, seed + 3), Bits(), (2,))
    return cast(Helmholtz(p, BottomUp(Filled(Fixed(jnp.full(3, 0.5))), first, (above,))), jnp.float64)


def bits(count: int) -> jnp.ndarray:
    return jnp.array(list(itertools.product((0.0, 1.0), repeat=count)))


def every_latent() -> tuple[jnp.ndarray, jnp.ndarray]:
    """All states of the two layers, the top one first."""
    both = bits(4)
    return both[:, :2], both[:, 2:]


def gradient(loss, model):
    """The gradient in all that is learned, as one vector."""
    parameters, rest = trainable(model)
    slope = jax.grad(lambda p: loss(eqx.combine(p, rest)))(parameters)
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(slope)])


def shares(model, row: Row) -> jnp.ndarray:
    """q(z | x) of every latent."""
    return jnp.exp(jax.vmap(model.posterior(row).log_prob)(every_latent()))


def joint(model) -> tuple[jnp.ndarray, tuple, jnp.ndarray]:
    """p(x, z) of every row and latent; the latents; the rows."""
    z, x = every_latent(), bits(3)
    rows = jnp.repeat(x, 16, axis=0)
    latents = jax.tree.map(lambda leaf: jnp.tile(leaf, (8, 1)), z)
    log_p = jax.vmap(lambda z, x: model.log_joint(z, Row(x)))(latents, rows)
    return jnp.exp(log_p), latents, rows


def waking(still, row):
    """E_q[log p(x, z)] with q of ``still``, listed."""
    weight = shares(still, row)
    return lambda model: weight @ jax.vmap(lambda z: model.log_joint(z, row))(every_latent())


def dreaming(still, mask=None):
    """E_p[log q(z | x)] with p of ``still``, listed; rows as a mask shows them."""
    weight, latents, rows = joint(still)

    def seen(x):
        return Row(x) if mask is None else Row(jnp.where(mask, x, 0.0), mask=mask)

    return lambda model: weight @ jax.vmap(lambda z, x: model.posterior(seen(x)).log_prob(z))(latents, rows)


def listed_bound(model, row) -> float:
    weight = shares(model, row)
    return float(weight @ (jax.vmap(lambda z: model.log_joint(z, row))(every_latent()) - jnp.log(weight)))


def estimates(objective, model, row):
    """Value and gradient of ``N`` estimates, shape (N, 1 + parameters)."""
    parameters, rest = trainable(model)

    @jax.jit
    @jax.vmap
    def one(key):
        value, slope = jax.value_and_grad(lambda p: objective.loss(eqx.combine(p, rest), row, key=key)[0])(parameters)
        return jnp.concatenate([value[None], *(leaf.ravel() for leaf in jax.tree.leaves(slope))])

    return np.asarray(one(jr.split(jr.key(7), N)))


def agrees(found, want):
    error = np.maximum(found.std(axis=0) / np.sqrt(len(found)), 1e-12)
    worst = np.abs(found.mean(axis=0) - np.asarray(want)) / error
    assert worst.max() < LIMIT, worst


@pytest.mark.parametrize(
    "mask", [pytest.param(None, marks=pytest.mark.slow), jnp.array([True, False, True])], ids=["whole", "with a hole"]
)
def test_wake_sleep_equals_enumeration(mask):
    model, row = two_layers(), Row(X, mask=mask)
    want = -gradient(lambda m: waking(model, row)(m) + dreaming(model, mask)(m), model)
    agrees(estimates(WakeSleep(), model, row), [-listed_bound(model, row), *want])


@pytest.mark.parametrize("sleep", [0.0, 0.3, 1.0])
def test_reweighted_wake_sleep_equals_enumeration(sleep):
    model, row = two_layers(), Row(X)
    z, weight = every_latent(), shares(model, row)
    log_p = jax.vmap(lambda z: model.log_joint(z, row))(z)
    pairs = jnp.array(list(itertools.product(range(16), repeat=2)))
    chance = weight[pairs].prod(axis=1)
    ratio = (log_p - jnp.log(weight))[pairs]
    each = jnp.zeros(16).at[pairs.ravel()].add((chance[:, None] * jax.nn.softmax(ratio, axis=1)).ravel())

    def lesson(m):
        known = jax.vmap(lambda z: m.log_joint(z, row))(z)
        told = jax.vmap(m.posterior(row).log_prob)(z)
        return each @ (known + (1 - sleep) * told) + sleep * dreaming(model)(m)

    bound = chance @ (jax.nn.logsumexp(ratio, axis=1) - jnp.log(2))
    want = jnp.concatenate([-bound[None], -gradient(lesson, model)])
    agrees(estimates(ReweightedWakeSleep(2, sleep), model, row), want)


@pytest.mark.slow
def test_reweighted_wake_sleep_reaches_the_posterior_in_the_limit():
    """With many draws the weights are the posterior: the generator follows the gradient of log p(x)."""
    model, row = two_layers(), Row(X)
    latents = every_latent()
    exact = lambda m: jax.nn.logsumexp(jax.vmap(lambda z: m.log_joint(z, row))(latents))  # noqa: E731
    parameters, rest = trainable(model)
    loss = lambda p: ReweightedWakeSleep(20_000, 0.0).loss(eqx.combine(p, rest), row, key=jr.key(0))[0]  # noqa: E731
    got, want = jax.grad(loss)(parameters).p, jax.grad(lambda p: -exact(eqx.combine(p, rest)))(parameters).p
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    assert max(float(jnp.max(jnp.abs(a - b))) for a, b in pairs) < 0.02


def test_equilibrium_is_two_gradients():
    """The decoder follows its conditionals alone, the prior of the top layer stays; the encoder learns from dreams."""
    model, row = two_layers(), Row(X)
    held = model.p.prior_law.first

    def utility(m):
        top = shares(model, row) @ jax.vmap(lambda z: m.p.prior_law.first.log_prob(z[0]))(every_latent())
        return waking(model, row)(m) - top + dreaming(model)(m)

    found = estimates(Equilibrium(), model, row)
    agrees(found[:, 1:], -gradient(utility, model))
    size = held.logits.size
    assert np.all(found[:, 1 : 1 + size] == 0)


@pytest.mark.slow
def test_equilibrium_takes_latents_that_are_known():
    model = two_layers()
    known = (jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))
    row = Row(X, y=known, y_mask=jnp.array(True))

    def utility(m):
        lower = m.p.prior_law.conditionals[0](known[0]).log_prob(known[1])
        told = m.log_likelihood(known, row) + lower + m.posterior(row).log_prob(known)
        return told + dreaming(model)(m)

    agrees(estimates(Equilibrium(), model, row)[:, 1:], -gradient(utility, model))
    unknown = Row(X, y=known, y_mask=jnp.array(False))
    got, want = (Equilibrium().loss(model, r, key=jr.key(0))[0] for r in (unknown, Row(X)))
    assert np.isclose(got, want)


def golden_net() -> Directed:
    weight, bias = jnp.array([[1.0, -1.0], [0.5, 0.5], [-2.0, 1.0]]), jnp.array([0.1, -0.2, 0.3])
    return Directed(Bernoulli(jnp.array([0.2, -0.4])), Conditional(Affine(weight, bias), Bits(), (3,)))


def test_golden_belief_net():
    """log p(v), the posterior mean, and the two steps from the exact law of a layer to the pass of a network."""
    net, states = golden_net(), bits(2)
    log_joint = jax.vmap(lambda z: net.log_joint(z, Row(X)))(states)
    log_p = jax.nn.logsumexp(log_joint)
    assert np.isclose(log_p, -2.40459650587176, atol=1e-12)
    posterior = jnp.exp(log_joint - log_p) @ states
    assert np.allclose(posterior, [0.31173973, 0.32534647], atol=1e-8)
    prior = jnp.exp(jax.vmap(net.prior().log_prob)(states))
    first = prior @ jax.vmap(lambda z: net.likelihood(z).mean())(states)
    second = net.likelihood(prior @ states).mean()
    assert np.allclose(first, [0.55651469, 0.56644162, 0.42084683], atol=1e-8)
    assert np.allclose(second, [0.56181260, 0.56846059, 0.40170748], atol=1e-8)
