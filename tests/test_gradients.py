"""Gradient estimators and posteriors against sums over all states, quadrature and closed forms."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import (
    GRADIENTS,
    LIMIT,
    MODELS,
    SMOOTH,
    Affine,
    Quadrature,
    binary_rows,
    cast,
    equations,
    estimates,
    exactly,
    row_of,
    worst,
)
from jax.scipy.special import logsumexp

from ravine.core import Row
from ravine.dist import Bernoulli, Gaussian, OneHot
from ravine.gradients import VIMCO, Enumerate, Pathwise
from ravine.gradients.many import _without_each
from ravine.objectives import ELBO, IWAE, AnalyticELBO, DReG, StickingTheLanding
from ravine.posteriors import Chain, Flipped, OneNode, Several

pytestmark = pytest.mark.usefixtures("x64")

N = 20_000
SEEN = (1.0, 0.0, 1.0)
leaves = jax.tree.leaves


class Problem(NamedTuple):
    """An expectation as the library estimates it, and as this file computes it."""

    parameters: Callable[[], Any]
    value: Callable[..., Any]  # (parameters, gradient, key)
    truth: Callable[[Any], Any]


# Expectations written out over all states, in elementary functions.


def states(cells: int) -> jax.Array:
    return jnp.asarray(list(itertools.product([0.0, 1.0], repeat=cells)))


def bits(logits, z):
    return jnp.sum(z * logits - jnp.logaddexp(0.0, logits))


def classes(logits, z):
    return jnp.sum(z * (logits - logsumexp(logits, axis=-1, keepdims=True)))


def one_node_states(model, law, z):
    """log q(z) and log p(x, z) at every state of a model with one node."""
    x = jnp.array(SEEN)
    raw, prior, net = model.q.conditional.net(x).reshape(z.shape[1:]), model.p.prior_law.logits, model.p.conditional.net
    return jax.vmap(lambda z: (law(raw, z), law(prior, z) + bits(net(z.ravel()), x)))(z)


def elbo_bits(model):
    log_q, log_p = one_node_states(model, bits, states(3))
    return jnp.exp(log_q) @ (log_p - log_q)


def elbo_one_hot(model):
    z = jnp.eye(3)[jnp.asarray(list(itertools.product(range(3), repeat=2)))]
    log_q, log_p = one_node_states(model, classes, z)
    return jnp.exp(log_q) @ (log_p - log_q)


def iwae_bits(model):
    log_q, log_p = one_node_states(model, bits, states(3))
    triples = jnp.asarray(list(itertools.product(range(8), repeat=3)))
    bound = logsumexp((log_p - log_q)[triples], axis=1) - jnp.log(3.0)
    return jnp.exp(jnp.sum(log_q[triples], axis=1)) @ bound


def iwae_belief_net(model):
    z = states(5)
    log_q, log_p = jax.vmap(lambda z: belief_net_cost(model, z[:2], z[2:]))(z)
    log_w = log_p - log_q
    return jnp.exp(log_q) @ (jnp.logaddexp(log_w[:, None], log_w[None, :]) - jnp.log(2.0)) @ jnp.exp(log_q)


def belief_net_cost(model, z2, z1):
    """log q(z1, z2) and log p(x, z1, z2)."""
    x, q, p = jnp.array(SEEN), model.q, model.p
    log_q = bits(q.first.net(x), z1) + bits(q.steps[0].net(z1), z2)
    below = bits(p.prior_law.conditionals[0].net(z2), z1) + bits(p.conditional.net(z1), x)
    return log_q, bits(p.prior_law.first.logits, z2) + below


def elbo_belief_net(model):
    z = states(5)
    log_q, log_p = jax.vmap(lambda z: belief_net_cost(model, z[:2], z[2:]))(z)
    return jnp.exp(log_q) @ (log_p - log_q)


def nested_belief_net(model, gradients, key):
    """One estimator inside another, written with nested calls."""
    outer, inner = gradients
    first, second = jr.split(key)
    q1 = Bernoulli(model.q.first.net(jnp.array(SEEN)))

    def below(z1):
        def cost(z2):
            log_q, log_p = belief_net_cost(model, z2, z1)
            return log_p - log_q

        return inner(cost, Bernoulli(model.q.steps[0].net(z1)), key=second)

    return outer(below, q1, key=first)


def mixture() -> dict[str, jax.Array]:
    return {"logits": jnp.array([0.2, -0.4, 0.9]), "mean": jnp.array([1.0, -0.5, 0.3]), "scale": jnp.array([0.8])}


SLOPES = (0.5, -1.0, 2.0)


def nested_mixture(theta, gradients, key):
    """A Gaussian node below a discrete one."""
    outer, inner = gradients
    first, second = jr.split(key)

    def below(z1):
        cost = lambda z2: 0.7 * jnp.sum(z2**2) + jnp.sum(z2) * (jnp.array(SLOPES) @ z1)  # noqa: E731
        return inner(cost, Gaussian((theta["mean"] @ z1)[None], theta["scale"]), key=second)

    return outer(below, OneHot(theta["logits"]), key=first)


def expected_mixture(theta):
    inside = 0.7 * (theta["mean"] ** 2 + theta["scale"] ** 2) + theta["mean"] * jnp.array(SLOPES)
    return jax.nn.softmax(theta["logits"]) @ inside


def chain() -> dict[str, jax.Array]:
    first = {"location": jnp.array([0.4, -1.0]), "scale": jnp.array([0.6, 1.1])}
    return first | {"weight": jnp.array([[1.0, -0.5], [0.2, 0.7]]), "noise": jnp.array([0.5, 0.9])}


def chain_value(theta, gradient, key):
    step = lambda z: Gaussian(theta["weight"] @ z, theta["noise"])  # noqa: E731
    posterior = Chain(Gaussian(theta["location"], theta["scale"]), (step,))
    cost = lambda z, log_q: jnp.sum(z[1] ** 2) + z[0] @ z[1] - 0.5 * log_q  # noqa: E731
    return posterior.expect(cost, gradient, key=key)


def chain_truth(theta):
    m, w, s2 = theta["location"], theta["weight"], theta["scale"] ** 2
    second = m[:, None] * m[None, :] + jnp.diag(s2)
    squares = jnp.trace(w @ second @ w.T) + jnp.sum(theta["noise"] ** 2)
    entropy = jnp.sum(jnp.log(theta["scale"] * theta["noise"])) + 2 * jnp.log(2 * jnp.pi * jnp.e)
    return squares + jnp.trace(w @ second) + 0.5 * entropy


def curved(theta, gradient, key):
    cost = lambda z, log_q: jnp.cos(2 * z[0]) + z[0] * z[1] + jnp.exp(0.4 * z[1]) - 0.3 * log_q  # noqa: E731
    return OneNode(Gaussian(theta["location"], theta["scale"])).expect(cost, gradient, key=key)


def curved_truth(theta):
    (a, b), (s, t) = theta["location"], theta["scale"]
    entropy = jnp.sum(jnp.log(theta["scale"])) + jnp.log(2 * jnp.pi * jnp.e)
    return jnp.exp(-2 * s**2) * jnp.cos(2 * a) + a * b + jnp.exp(0.4 * b + 0.08 * t**2) + 0.3 * entropy


def elbo(model, gradient, key):
    return ELBO(gradient).bound(model, Row(jnp.array(SEEN)), key=key)


def iwae(model, gradient, key):
    return IWAE(3, gradient).bound(model, Row(jnp.array(SEEN)), key=key)


def iwae_of_two(model, gradient, key):
    return IWAE(2, gradient).bound(model, Row(jnp.array(SEEN)), key=key)


def quadrature(model):
    return elbo(model, Quadrature(24), jr.key(0))


PROBLEMS = {
    "bits": Problem(MODELS["bits"], elbo, elbo_bits),
    "one-hot": Problem(MODELS["one-hot"], elbo, elbo_one_hot),
    "belief-net": Problem(MODELS["belief-net"], elbo, elbo_belief_net),
    "three-copies": Problem(MODELS["bits"], iwae, iwae_bits),
    "two-deep-copies": Problem(MODELS["belief-net"], iwae_of_two, iwae_belief_net),
    "nested-bits": Problem(MODELS["belief-net"], nested_belief_net, elbo_belief_net),
    "nested-mixture": Problem(mixture, nested_mixture, expected_mixture),
    "curved": Problem(lambda: {k: chain()[k] for k in ("location", "scale")}, curved, curved_truth),
    "two-gaussians": Problem(chain, chain_value, chain_truth),
    "vae": Problem(MODELS["vae"], elbo, quadrature),
}
DISCRETE = ("bits", "one-hot", "belief-net", "three-copies")
SCORES, PATHS = ("score-1", "rloo-2", "rloo-4"), ("pathwise-1", "pathwise-3", "rloo-4")
NESTED = [("nested-bits", "rloo-2", inner) for inner in ("rloo-2", "enumerate")]
NESTED += [("nested-bits", "enumerate", "rloo-2")]
NESTED += [("nested-mixture", outer, "pathwise-1") for outer in ("rloo-2", "enumerate")]
QUICK = [("bits", k) for k in SCORES] + [("belief-net", "rloo-2"), ("curved", "rloo-4")]
QUICK += [("two-gaussians", "pathwise-1"), ("three-copies", "vimco"), NESTED[1]]
SLOW = {(p, k) for p in DISCRETE for k in SCORES} | {(p, k) for p in ("curved", "two-gaussians", "vae") for k in PATHS}
SLOW |= {("three-copies", "vimco"), ("two-deep-copies", "vimco"), *NESTED}
SAMPLED = [*QUICK, *(pytest.param(case, marks=pytest.mark.slow) for case in sorted(SLOW - set(QUICK)))]


@functools.cache
def truth_of(problem: str) -> np.ndarray:
    return exactly(PROBLEMS[problem].truth, PROBLEMS[problem].parameters())


@functools.cache
def draws_of(problem: str, *names: str) -> np.ndarray:
    gradient = GRADIENTS[names[0]] if len(names) == 1 else tuple(GRADIENTS[name] for name in names)
    parameters, value, _ = PROBLEMS[problem]
    return estimates(lambda theta, key: value(theta, gradient, key), parameters(), N)


# Properties.


@pytest.mark.parametrize("case", SAMPLED, ids=" ".join)
def test_value_and_gradient_are_right_on_average(case):
    problem, *names = case
    assert worst(draws_of(problem, *names), truth_of(problem)) < LIMIT


@pytest.mark.parametrize("problem", [*DISCRETE, "nested-bits"])
def test_enumeration_is_exact(problem):
    parameters, value, _ = PROBLEMS[problem]
    gradient = (Enumerate(), Enumerate()) if problem == "nested-bits" else Enumerate()
    enumerated = exactly(lambda theta: value(theta, gradient, jr.key(0)), parameters())
    np.testing.assert_allclose(enumerated, truth_of(problem), rtol=1e-10, atol=1e-10)


def test_a_baseline_and_more_draws_lower_the_variance():
    one, two, four = (draws_of("belief-net", name).var(axis=0).sum() for name in SCORES)
    assert one > 1.5 * two
    assert two > 1.5 * four


# Cost of an estimate.


def evaluations(posterior, gradient) -> int:
    """On how many latents the cost is evaluated: it holds a primitive that nothing else uses."""

    def cost(z, log_q):
        return jax.lax.bessel_i0e(sum(jnp.sum(leaf) for leaf in leaves(z)))

    traced = jax.make_jaxpr(lambda: posterior.expect(cost, gradient, key=jr.key(0)))()
    return sum(e.outvars[0].aval.size for e in equations(traced.jaxpr) if e.primitive.name == "bessel_i0e")


def posteriors() -> dict[str, Any]:
    node = OneNode(Bernoulli(jnp.zeros(3)))
    net = Affine(jnp.ones((2, 3)), jnp.zeros(2))
    smooth = Gaussian(jnp.zeros(3), jnp.ones(3))
    bits = Chain(Bernoulli(jnp.zeros(3)), (lambda z: Bernoulli(net(z)), Bernoulli))
    deep = Chain(smooth, (lambda z: Gaussian(net(z), jnp.ones(2)), lambda z: Gaussian(z, jnp.ones(2))))
    return {
        "bits": node,
        "three-bits": Several(node, 3),
        "chain": bits,
        "flipped": Flipped(bits),
        "gaussian": OneNode(smooth),
        "deep": deep,
        "five-deep": Several(deep, 5),
    }


@pytest.mark.parametrize(
    "posterior, gradient, declared",
    [(p, f"score-{k}", k) for p in ("bits", "three-bits", "chain", "flipped", "five-deep") for k in (1, 4)]
    + [(p, "rloo-4", 4) for p in ("three-bits", "five-deep")]
    + [("bits", "enumerate", 8), ("three-bits", "enumerate", 8**3), ("chain", "enumerate", 8 * 4 * 4)]
    + [(p, f"pathwise-{k}", k) for p in ("gaussian", "deep", "five-deep") for k in (1, 3)],
)
def test_cost_is_evaluated_as_often_as_declared(posterior, gradient, declared):
    assert evaluations(posteriors()[posterior], GRADIENTS[gradient]) == declared


# Refusals.


def unreachable(*_):
    raise AssertionError("the cost was traced")


@pytest.mark.parametrize(
    "posterior, gradient, words",
    [(p, Pathwise(), "Pathwise cannot .* Bernoulli: .*Enumerate.*RLOO") for p in ("bits", "three-bits", "flipped")]
    + [(p, Enumerate(), "Enumerate cannot .* Gaussian: .*Pathwise") for p in ("gaussian", "deep", "five-deep")],
)
def test_a_posterior_refuses_an_estimator_that_cannot_serve_it(posterior, gradient, words):
    with pytest.raises(TypeError, match=words) as caught:
        posteriors()[posterior].expect(unreachable, gradient, key=jr.key(0))
    assert "\n" not in str(caught.value)


def test_every_node_of_a_chain_is_asked():
    mixed = Chain(Gaussian(jnp.zeros(2), jnp.ones(2)), (Bernoulli,))
    for gradient in (Pathwise(), Enumerate()):
        with pytest.raises(TypeError, match=type(gradient).__name__):
            mixed.expect(unreachable, gradient, key=jr.key(0))


def test_a_bound_of_many_draws_evaluates_the_cost_once_for_each():
    def counted(posterior):
        cost = lambda z, log_q: jax.lax.bessel_i0e(sum(jnp.sum(leaf) for leaf in leaves(z)))  # noqa: E731
        return jax.make_jaxpr(lambda: VIMCO().bound(cost, posterior, 5, key=jr.key(0)))()

    for posterior in (posteriors()["bits"], posteriors()["flipped"]):
        found = [e for e in equations(counted(posterior).jaxpr) if e.primitive.name == "bessel_i0e"]
        assert sum(e.outvars[0].aval.size for e in found) == 5 * VIMCO().evaluations(posterior)


@pytest.mark.parametrize("objective", [IWAE(1, VIMCO()), ELBO(VIMCO())])
def test_an_estimator_for_many_draws_names_what_serves_less(objective):
    with pytest.raises((TypeError, ValueError), match="RLOO") as caught:
        objective(MODELS["belief-net"](), binary_rows(), key=jr.key(0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("objective", [StickingTheLanding(), DReG(3), AnalyticELBO(Pathwise())])
def test_objectives_refuse_what_they_cannot_serve(objective):
    with pytest.raises(TypeError, match="ELBO"):
        objective(MODELS["belief-net"](), binary_rows(), key=jr.key(0))


# Posteriors.


@pytest.mark.parametrize("name", MODELS)
def test_a_posterior_scores_its_own_draws(name):
    @jax.jit
    def scored(row):
        posterior = Several(MODELS[name]().posterior(row), 4)
        z, log_q = posterior.sample(key=jr.key(1))
        return z, posterior.mean(), log_q, posterior.log_prob(z), posterior.posterior.log_prob(first(z))

    z, mean, log_q, again, alone = scored(row_of(binary_rows(), 1))
    np.testing.assert_allclose(again, log_q, rtol=1e-12)
    np.testing.assert_allclose(alone, log_q[0], rtol=1e-12)
    assert log_q.shape == (4,)
    assert jax.tree.map(jnp.shape, z) == jax.tree.map(jnp.shape, mean)
    assert np.ptp(log_q) > 0


def first(tree):
    return jax.tree.map(lambda leaf: leaf[0], tree)


def small_chain() -> Chain:
    net = Affine(jnp.array([[1.0, 2.0]]), jnp.array([0.5]))
    return Chain(Bernoulli(jnp.array([0.3, -1.0])), (lambda z: Bernoulli(net(z)),))


def test_a_chain_is_the_product_of_its_nodes():
    z = jnp.array([1.0, 0.0]), jnp.array([1.0])
    expected = bits(jnp.array([0.3, -1.0]), z[0]) + bits(jnp.array([1.5]), z[1])
    np.testing.assert_allclose(small_chain().log_prob(z), expected, rtol=1e-12)
    np.testing.assert_allclose(Flipped(small_chain()).log_prob(z[::-1]), expected, rtol=1e-12)


def test_flipping_reverses_the_latent():
    @jax.jit
    def both(key):
        chain, flipped = small_chain(), Flipped(small_chain())
        second = chain.expect(lambda z, log_q: jnp.sum(z[1]), Enumerate(), key=key)
        first = flipped.expect(lambda z, log_q: jnp.sum(z[0]), Enumerate(), key=key)
        return chain.sample(key=key)[0], flipped.sample(key=key)[0], chain.mean(), flipped.mean(), second - first

    drawn, turned, mean, turned_mean, difference = both(jr.key(0))
    assert eqx.tree_equal((turned, turned_mean), (drawn[::-1], mean[::-1]))
    assert abs(float(difference)) < 1e-12


def test_nodes_lists_later_laws_at_the_means_of_earlier_ones():
    posterior = Chain(Gaussian(jnp.array([2.0]), jnp.ones(1)), (lambda z: Gaussian(3 * z, 0.1 * jnp.ones(1)),))
    assert [float(d.mean()[0]) for d in posterior.nodes()] == [2.0, 6.0]
    assert [float(leaf[0]) for leaf in posterior.mean()] == [2.0, 6.0]
    assert Several(posterior, 3).mean()[1].shape == (3, 1)


@pytest.mark.parametrize("name", MODELS)
def test_precision_follows_the_model(name):
    """A single-precision model stays in single precision where double precision is the default."""

    def answers(row):
        model = cast(MODELS[name](), jnp.float32)
        posterior = model.posterior(row)
        z, log_q = posterior.sample(key=jr.key(0))
        gradient = Pathwise() if name in SMOOTH else Enumerate()
        bound = posterior.expect(lambda z, log_q: model.log_joint(z, row) - log_q, gradient, key=jr.key(0))
        several = Several(posterior, 2).sample(key=jr.key(0))
        return z, log_q, posterior.log_prob(z), bound, several, Several(posterior, 2).log_prob(several[0])

    shapes = jax.eval_shape(answers, cast(row_of(binary_rows(), 0), jnp.float32))
    assert {leaf.dtype for leaf in leaves(shapes)} == {jnp.dtype(jnp.float32)}


def test_a_bound_without_a_draw_has_the_geometric_mean_of_the_others_in_its_place(x64):
    log_w = np.random.default_rng(0).normal(size=4)
    wanted = []
    for i in range(4):
        others = np.delete(log_w, i)
        wanted.append(np.log(np.mean(np.exp(np.append(others, others.mean())))))
    np.testing.assert_allclose(_without_each(jnp.asarray(log_w)), wanted, rtol=1e-12)
