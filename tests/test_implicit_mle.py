"""Implicit MLE: its noise, its identities, its trade-off, the number it learns, and a solver from outside."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
import scipy.stats as st
from helpers import LIMIT, cast, some, worst

from ravine._tree import AbstractMoved, Steered, as_arrays, strong
from ravine.core import Row, averaged
from ravine.dist import AbstractSolved, Bernoulli, Gaussian, KHot, OneHot, Subset
from ravine.gradients import AIMLE, IMLE, Enumerate, ExactNoise, GumbelNoise, SumOfGamma
from ravine.gradients.perturbed import AbstractPerturbation, map_state
from ravine.posteriors import OneNode, Several, serving
from ravine.rules import Descend, Optimiser

x64 = pytest.mark.usefixtures("x64")


class Faint(AbstractPerturbation):
    """Noise too small to change the order of logits that are apart."""

    def cells(self, like, k, *, key):
        return 1e-3 * jr.uniform(key, like.shape, like.dtype)


# Noise.


@x64
@pytest.mark.parametrize("k", [1, 2, 10, 60])
def test_k_numbers_add_up_to_a_gumbel_number(k):
    """Kolmogorov-Smirnov at the house's 4.5 standard errors: one false failure in 150,000 seeds."""
    draws = SumOfGamma().drawn(Subset(jnp.zeros((20_000, k + 1)), k), key=jr.key(k))
    parts = np.asarray(draws)[:, :k]
    assert st.kstest(parts.sum(axis=1), "gumbel_r").pvalue > 2 * st.norm.sf(LIMIT)
    assert worst(parts.reshape(-1, 1), np.euler_gamma / k) < LIMIT
    assert worst((parts.reshape(-1, 1) - np.euler_gamma / k) ** 2, np.pi**2 / 6 / k) < LIMIT


@x64
def test_the_table_of_noise_has_the_law_of_sums_of_gammas():
    """The sum of 400 terms, whose remainder has a standard deviation of 0.02; two-sample, the same rate as above."""
    k, terms = 4, 400
    stream, scale = np.random.default_rng(0), 1 / np.arange(1, terms + 1)
    free = (stream.gamma(1 / k, size=(10_000, terms)) * scale).sum(axis=1) - np.log(terms) / k
    ours = SumOfGamma().drawn(Subset(jnp.zeros((2_000, 5)), k), key=jr.key(3)).ravel()
    assert st.ks_2samp(free, np.asarray(ours)).pvalue > 2 * st.norm.sf(LIMIT)
    assert st.ks_2samp(free, np.asarray(GumbelNoise().drawn(Bernoulli(jnp.zeros(10_000)), key=jr.key(3)))).pvalue < 1e-9


def test_a_bit_gets_the_difference_of_two():
    noise = SumOfGamma().drawn(Bernoulli(jnp.zeros(20_000)), key=jr.key(1))
    assert st.kstest(np.asarray(noise), "logistic").pvalue > 2 * st.norm.sf(LIMIT)


@pytest.mark.slow
@x64
def test_perturbed_maxima_have_about_the_marginals_of_the_law():
    """Six items, three chosen: off by 0.066 at most with Gumbel noise, 0.21 with sums of gammas; exact where k is 1."""
    logits = jnp.array([1.0, 0.4, 0.0, -0.5, -1.0, 0.2])
    many = jnp.broadcast_to(logits, (10_000, 6))

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def drawn(noise, k):
        return map_state(Subset(many, k), many + noise.drawn(Subset(many, k), key=jr.key(2)))

    def off(noise, k):
        return np.abs(np.mean(drawn(noise, k), axis=0) - Subset(logits, k).mean())

    d, exact = Subset(logits, 3), np.asarray(drawn(ExactNoise(), 3))
    assert worst(exact, np.asarray(d.mean())) < LIMIT
    pairs = np.einsum("s,si,sj->ij", np.exp([d.log_prob(z) for z in d.support()]), d.support(), d.support())
    assert worst((exact[:, :, None] * exact[:, None]).reshape(-1, 36), pairs.ravel()) < LIMIT
    assert np.all(np.sum(drawn(SumOfGamma(), 3), axis=1) == 3)
    assert 0.03 < off(GumbelNoise(), 3).max() < 0.1 < off(SumOfGamma(), 3).max() < 0.25
    assert worst(np.asarray(drawn(SumOfGamma(), 1)), np.asarray(jax.nn.softmax(logits))) < LIMIT


# Identities.

WANTED = {
    "bits": (Bernoulli, jnp.array([1.0, 0.0, 1.0, 1.0])),
    "classes": (OneHot, jnp.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])),
    "subset": (lambda logits: Subset(logits, 2), jnp.array([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]])),
}

KINDS = ["bits", "subset", pytest.param("classes", marks=pytest.mark.slow)]


def halves(wanted, scale, z):
    return 0.5 * scale * jnp.sum((z - wanted) ** 2)


@x64
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "step, noise, scale", [(1.0, Faint(), 1.0), (1e4, SumOfGamma(), 1.0), (50.0, SumOfGamma(), 0.02)]
)
def test_a_squared_distance_gives_the_gradient_of_maximum_likelihood(kind, step, noise, scale):
    """State less wanted state over lambda, where lambda outweighs logits and noise; the loss may be scaled."""
    law, wanted = WANTED[kind]
    logits = 0.1 * jr.normal(jr.key(1), wanted.shape)

    def value(logits, key):
        return scale * IMLE(step, noise=noise)(functools.partial(halves, wanted, 1.0), law(logits), key=key)

    @jax.jit
    def both(key):
        state = map_state(law(logits), logits + noise.drawn(law(logits), key=jr.split(key, 1)[0]))
        return state, *jax.value_and_grad(value)(logits, key)

    found = [both(jr.key(10 + i)) for i in range(3)]
    assert any(np.any(state != wanted) for state, _, _ in found)
    for state, got, slope in found:
        np.testing.assert_allclose(step / scale * slope, state - wanted, atol=1e-9)
        np.testing.assert_allclose(got, scale * halves(wanted, 1.0, state), rtol=1e-12)


@x64
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_difference_of_states_under_the_same_noise(kind):
    """Algorithm 1 of Niepert et al. by hand, draw by draw."""
    law, wanted = WANTED[kind]
    logits, weight = 0.5 * jr.normal(jr.key(1), wanted.shape), jr.normal(jr.key(2), wanted.shape)
    bent = lambda z: jnp.sum(jnp.exp(weight * z)) + jnp.sum(z * weight) ** 2  # noqa: E731

    @jax.jit
    @jax.vmap
    def both(key):
        noise = ExactNoise().drawn(law(logits), key=jr.split(key, 1)[0])
        state = map_state(law(logits), logits + noise)
        other = map_state(law(logits), logits - 1.5 * jax.grad(bent)(state) + noise)
        value = lambda logits: IMLE(1.5)(bent, law(logits), key=key)  # noqa: E731
        return jax.grad(value)(logits), (state - other) / 1.5

    ours, by_hand = both(jr.split(jr.key(3), 100))
    assert 20 < np.count_nonzero(ours) < ours.size
    np.testing.assert_allclose(ours, by_hand, rtol=1e-12)


@x64
def test_a_long_step_sees_the_sign_of_the_slope():
    slope, logits = jnp.array([3.0, -0.2, 1e-3, -7.0]), jnp.array([0.5, 0.1, -2.0, 1.0])
    value = lambda logits: IMLE(1e9, symmetric=True)(lambda z: z @ slope, Bernoulli(logits), key=jr.key(0))  # noqa: E731
    np.testing.assert_allclose(2e9 * jax.grad(value)(logits), jnp.sign(slope))


@x64
def test_lengths_of_the_adaptive_step_follow_the_slope():
    """The cost times 1000 has 1000 times the gradient; the step is beta of the length of the logits."""
    logits, slope = jnp.array([0.5, 0.1, -2.0, 1.0]), jnp.array([3.0, -0.2, 0.4, -7.0])
    value = lambda logits, c: AIMLE(0.7)(lambda z: c * z @ slope, Bernoulli(logits), key=jr.key(1))  # noqa: E731
    one, large = (jax.grad(value)(logits, c) for c in (1.0, 1000.0))
    assert np.any(one != 0)
    np.testing.assert_allclose(large, 1000 * one, rtol=1e-9)
    reach = AIMLE(0.7).reach(logits, slope)
    np.testing.assert_allclose(np.linalg.norm(reach * slope), 0.7 * np.linalg.norm(logits))
    plain = jax.grad(lambda free: IMLE(reach)(lambda z: z @ slope, Bernoulli(free), key=jr.key(1)))(logits)
    np.testing.assert_allclose(one, plain, rtol=1e-12)


# The trade-off in lambda: six bits, a cost far from linear.


def six(z):
    mix = jnp.asarray(np.random.default_rng(1).normal(size=(4, 6)))
    return 2 * jnp.sum(jnp.tanh(mix @ z) ** 2) + (z[0] + z[1] - 2 * z[2] - 0.5) ** 2 + 3


@x64
def test_a_longer_step_is_denser_and_quieter():
    """Card of the literature, on another cost: zeros .95 / .56 / .09 and noise 9.1 / 2.6 / .36 at 0.1, 1 and 10."""
    logits = jnp.array([0.8, -0.5, 0.1, -1.2, 0.4, 1.5])
    slopes = lambda g: jax.jit(jax.vmap(lambda key: jax.grad(lambda free: g(six, Bernoulli(free), key=key))(logits)))  # noqa: E731
    exact = np.asarray(slopes(Enumerate())(jr.split(jr.key(0), 1)))[0]
    found = [np.asarray(slopes(IMLE(step, symmetric=True))(jr.split(jr.key(1), 4000))) for step in (0.1, 1.0, 10.0)]
    zeros = [np.mean(f == 0) for f in found]
    noise = [np.sqrt(f.var(axis=0).sum()) / np.linalg.norm(exact) for f in found]
    assert zeros[0] > 0.85 > 0.6 > zeros[1] > 0.3 > 2 * zeros[2] and noise[0] > 2 * noise[1] > 4 * noise[2]
    assert min(worst(f, exact) for f in found[1:]) > 2 * LIMIT  # biased


@pytest.mark.slow
@x64
def test_the_step_multiplies_the_slope_of_one_row():
    """However many rows the cost is averaged over, and whatever their weights."""
    rows, key = jnp.asarray(np.random.default_rng(3).normal(size=(5, 4))), jr.split(jr.key(0), 5)
    one = lambda logits, row, key: IMLE(2.0)(lambda z: 3 * z @ row, Bernoulli(logits), key=key)  # noqa: E731
    share = jnp.array([0.1, 0.4, 0.0, 0.2, 0.3])
    mean = jax.grad(lambda logits: share @ jax.vmap(one, (None, 0, 0))(logits, rows, key))(jnp.zeros(4))
    alone = jax.vmap(jax.grad(one), (None, 0, 0))(jnp.zeros(4), rows, key)
    assert np.count_nonzero(alone) > 4
    np.testing.assert_allclose(mean, share @ alone, rtol=1e-12)


# The number that is learned.


class Subsets(eqx.Module):
    logits: jax.Array
    gradient: AIMLE


def choosing(model: Subsets, batch: Row, *, key):
    """Twelve numbers, of which a row wants some in: an objective."""

    def one(row, key):
        cost = lambda z: jnp.sum((z - row.x) ** 2)  # noqa: E731
        return model.gradient(cost, Subset(model.logits, 4), key=key)

    value = averaged(one, batch, key=key)
    return value, {"cost": value}


def learned(gradient: AIMLE, steps: int, weight=None) -> AIMLE:
    stream = np.random.default_rng(2)
    rule = as_arrays(Descend(choosing, Optimiser(optax.sgd, (0.0,))))
    batch = Row(jnp.asarray(stream.normal(size=(50, 12))), weight=weight)
    logits = jnp.asarray(stream.normal(size=12))
    model = strong(as_arrays(Subsets(logits, gradient.learning(12, (12,), key=jr.key(0)))))
    arrays, rest = eqx.partition((model, rule.init(model, batch, key=jr.key(0))), eqx.is_array)

    def step(arrays, i):
        model, state = eqx.combine(arrays, rest)
        model, state, _ = rule.step(model, state, batch, key=jr.fold_in(jr.key(1), i), step=i)
        return eqx.filter((model, state), eqx.is_array), None

    end = jax.jit(lambda arrays: jax.lax.scan(step, arrays, jnp.arange(steps))[0])(arrays)
    return eqx.combine(end, rest)[0].gradient


@pytest.mark.slow
@x64
def test_the_number_of_non_zeros_approaches_its_target():
    """From below and from above; where the counts are known, the step is up or down by the rate, and never below 0."""
    low, high = learned(AIMLE(0.0, target=2.0, rate=0.02), 300), learned(AIMLE(6.0, target=2.0, rate=0.02), 400)
    for found in (low, high):
        assert abs(float(found.learned.mean) - 2.0) < 0.4
    assert abs(float(low.learned.value - high.learned.value)) < 0.3 and float(low.learned.value) > 0.1
    first = learned(AIMLE(0.0, rate=0.02), 1).learned
    assert (float(first.value), float(first.mean)) == (pytest.approx(0.02), pytest.approx(0.9))
    assert float(learned(AIMLE(0.01, target=0.0, rate=0.02), 1).learned.value) == 0.0


@pytest.mark.slow
@x64
def test_padding_is_not_counted_and_weights_do_not_matter():
    half = jnp.where(jnp.arange(50) < 25, 3.0, 0.0)
    padded, empty = learned(AIMLE(5.0), 1, half).learned, learned(AIMLE(5.0), 1, jnp.zeros(50)).learned
    whole = learned(AIMLE(5.0), 1).learned
    assert abs(float(padded.mean - whole.mean)) < 0.1 and float(whole.mean) > 1.05
    assert (float(empty.value), float(empty.mean)) == (5.0, 1.0)


@pytest.mark.slow
def test_many_draws_are_one_mean_count():
    """Of several copies and of several draws: the mean count stays a mean."""
    d, counter = OneNode(Subset(jnp.array([1.0, 0.0, 0.3, -1.0]), 2)), AIMLE(9.0).learning(4, (4,), key=jr.key(0))

    def told(posterior, gradient):
        def value(steered):
            cost = lambda z, log_q: jnp.mean(jnp.reshape(z, (-1, 4)) @ jnp.arange(4.0))  # noqa: E731
            return posterior.expect(cost, dataclasses.replace(gradient, learned=steered), key=jr.key(5))

        return jax.jit(jax.grad(value))(gradient.learned)

    for found in (told(Several(d, 3), counter), told(d, dataclasses.replace(counter, k=3))):
        assert float(found.value) == 3 and 0 < float(found.mean) <= 12
        assert isinstance(found, AbstractMoved)


def test_a_steered_number_is_moved_by_its_rate():
    steered = Steered(jnp.array(0.5), jnp.array(1.0), target=1.0, rate=0.1, decay=0.5)
    up, down = (
        steered.moved(steered.counted(jnp.array(4), jnp.array(0.5))),
        steered.moved(dataclasses.replace(steered, value=jnp.array(4.0), mean=jnp.array(12.0))),
    )
    assert (float(up.value), float(up.mean)) == (pytest.approx(0.1), pytest.approx(-0.25))
    assert (float(down.value), float(down.mean)) == (pytest.approx(-0.1), pytest.approx(1.0))


# Extremes.

EXTREME = [IMLE(1e-6), IMLE(1e6, symmetric=True), AIMLE(0.0), AIMLE(1e-4), AIMLE(50.0)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gradient", some(EXTREME, *EXTREME[1:3]), ids=repr)
def test_far_logits_and_costs_are_survived(kind, gradient):
    law, wanted = WANTED[kind]
    far = jnp.where(wanted > 0, -50.0, 50.0).at[..., 0].set(0.1)

    def value(logits, times, key):
        return cast(gradient, jnp.float32)(lambda z: times * jnp.sum((z - wanted) ** 2), law(logits), key=key)

    one = jax.vmap(jax.vmap(jax.value_and_grad(value), (None, None, 0)), (None, 0, None))
    found = jax.jit(lambda far: one(far, jnp.array([0.0, 1e-9, 1.0, 1e6], "float32"), jr.split(jr.key(0), 500)))
    for leaf in jax.tree.leaves((found(cast(far, jnp.float32)), found(jnp.zeros_like(far, "float32")))):
        assert leaf.dtype == jnp.float32 and np.all(np.isfinite(leaf))


@pytest.mark.slow
def test_a_cost_that_does_not_look_has_no_gradient():
    slope = jax.grad(lambda free: AIMLE()(lambda z: jnp.asarray(3.0), Bernoulli(free), key=jr.key(0)))(jnp.ones(3))
    assert np.all(slope == 0)


# A solver from outside: heaviest spanning trees of four nodes.

EDGES = list(itertools.combinations(range(4), 2))


def heaviest_tree(weights: np.ndarray) -> np.ndarray:
    """Kruskal's algorithm."""
    root, tree = list(range(4)), np.zeros(len(EDGES), weights.dtype)
    for e in np.argsort(-weights, kind="stable"):
        a, b = (root[v] for v in EDGES[e])
        if a != b:
            tree[e], root = 1, [b if r == a else r for r in root]
    return tree


class SpanningTree(AbstractSolved):
    """Trees on four nodes, their weights the sums of the logits of their edges."""

    logits: jax.Array

    def map_state(self, logits):
        shape = jax.ShapeDtypeStruct(logits.shape, logits.dtype)
        return jax.pure_callback(heaviest_tree, shape, logits, vmap_method="sequential")

    def states(self):
        subsets = np.array(list(itertools.product([0.0, 1.0], repeat=6)))
        return jnp.asarray(np.array([s for s in subsets if s.sum() == 3 and np.all(heaviest_tree(s) == s)]))

    def log_prob(self, value, mask=None):
        return value @ self.logits - jax.nn.logsumexp(self.states() @ self.logits)

    def mean(self):
        return jax.nn.softmax(self.states() @ self.logits) @ self.states()

    def sample(self, *, key):
        return self.states()[jr.categorical(key, self.states() @ self.logits)]


@pytest.mark.slow
def test_it_learns_through_a_solver_in_numpy():
    """Compiled, over a batch of draws: the tree that is wanted becomes the heaviest."""
    wanted = jnp.asarray(heaviest_tree(np.array([0.0, 3.0, 0.0, 2.0, 1.0, 0.0], "float32")))
    start = -3 * wanted
    assert len(SpanningTree(start).states()) == 16 and not np.any(SpanningTree(start).map_state(start) * wanted > 1)

    def cost(z, log_q):
        return jnp.sum((z - wanted) ** 2)

    @jax.jit
    def slopes(logits, keys):
        value = lambda free, key: OneNode(SpanningTree(free)).expect(cost, IMLE(4.0), key=key)  # noqa: E731
        return jax.vmap(jax.value_and_grad(value), (None, 0))(logits, keys)

    logits, costs = start, []
    for i in range(25):
        value, slope = slopes(logits, jr.split(jr.key(i), 8))
        logits, costs = logits - 3 * slope.mean(axis=0), [*costs, float(value.mean())]
    assert costs[0] > 2 and costs[-1] < 0.6
    assert np.array_equal(SpanningTree(logits).map_state(logits), wanted)


def test_what_has_no_solver_is_refused_in_one_line():
    with pytest.raises(
        TypeError, match=r"IMLE cannot differentiate through Gaussian: it is made for .*; use .*Pathwise"
    ):
        OneNode(Gaussian(jnp.zeros(2), jnp.ones(2))).expect(lambda z, log_q: z.sum(), IMLE(), key=jr.key(0))


def test_who_serves_a_subset_and_a_solver():
    law = SpanningTree(jnp.zeros(6))
    assert serving(law) == sorted(["AIMLE", "IMLE", "NVIL", "RLOO", "ScoreFunction"])
    lists = ["ConcreteSubset", "Enumerate", "MuProp", "PartialEnumerate", "SIMPLE"]
    assert serving(Subset(jnp.zeros(4), 2)) == sorted([*serving(law), *lists])


# Subsets as the output of a network.


@pytest.mark.slow
@x64
def test_links_of_subsets_start_at_the_shares():
    mean = jnp.array([[0.9, 0.5, 0.4, 0.2], [0.3, 0.8, 0.5, 0.4]])
    law = KHot(2)(KHot(2).start(mean), mean.shape)
    assert isinstance(law, Subset) and law.k == 2
    np.testing.assert_allclose(law.mean(), mean, atol=1e-3)
    doubled = KHot(2)(KHot(2).start(mean / 7), mean.shape)
    np.testing.assert_allclose(doubled.mean(), mean, atol=1e-3)
