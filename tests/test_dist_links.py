"""Links, conditionals, chains of them, and numpyro's families as our laws."""

import itertools
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as nd
import pytest
import scipy.stats as st

from ravine.dist import (
    Ancestral,
    Bernoulli,
    Binomial,
    Bits,
    Censored,
    CensoredGaussian,
    Classes,
    Conditional,
    ContinuousBernoulli,
    Counts,
    Gaussian,
    HeavyTailed,
    Homoscedastic,
    KHot,
    Levels,
    ManyZeros,
    NegativeBinomial,
    Numpyro,
    NumpyroReparametrised,
    OneHot,
    Ordered,
    Overdispersed,
    Poisson,
    Real,
    SharedCovariance,
    StudentT,
    Subset,
    TruncatedGaussian,
    UnitInterval,
    Within,
    ZeroInflated,
)

KEY = jr.key(20260101)


def a(values):
    """An array of the default float type."""
    return jnp.asarray(values, float)


def assert_mean(draw, means, n=20_000):
    """Every number within 4.5 standard errors: a correct law fails with probability 7e-6 each, some 30 in this file."""
    for samples, mean in zip(jax.jit(jax.vmap(draw))(jr.split(KEY, n)), means, strict=True):
        error = np.std(samples, axis=0) / n**0.5
        assert np.all(np.abs(np.mean(samples, axis=0) - np.asarray(mean)) < 4.5 * error)


LINKS = {
    "bits": (Bits(), 1, Bernoulli),
    "real": (Real(floor=0.1), 2, Gaussian),
    "homoscedastic": (Homoscedastic(jnp.zeros((2, 3)), floor=0.1), 1, Gaussian),
    "homoscedastic-shared": (Homoscedastic(jnp.zeros(())), 1, Gaussian),
    "heavy-tailed": (HeavyTailed(floor=0.1), 3, StudentT),
    "levels": (Levels(5), 1, Binomial),
    "counts": (Counts(), 1, Poisson),
    "unit-interval": (UnitInterval(), 1, ContinuousBernoulli),
    "classes": (Classes(), 1, OneHot),
    "k-hot": (KHot(1), 1, Subset),
    "ordered": (Ordered(), 1, OneHot),
    "overdispersed": (Overdispersed(), 2, NegativeBinomial),
    "many-zeros": (ManyZeros(), 3, ZeroInflated),
    "within": (Within((0.0,), (1.0,), floor=0.1), 2, TruncatedGaussian),
    "within-several": (
        Within((-1.0, 0.0, 0.0, 0.0, 0.0, -2.0), (1.0, 1.0, 1.0, 2.0, np.inf, 3.0)),
        2,
        TruncatedGaussian,
    ),
    "censored": (Censored((-np.inf,), (1.0,), floor=0.1), 2, CensoredGaussian),
}
LINK = pytest.mark.parametrize(("link", "each", "law"), LINKS.values(), ids=LINKS)


@LINK
def test_links_make_laws_of_the_right_shape(link, each, law):
    shape = (2, 3)
    assert link.size(shape) == each * 6
    d = link(jr.normal(KEY, (each * 6,)), shape)
    assert type(d) is law
    assert d.mean().shape == jax.eval_shape(lambda: d.sample(key=KEY)).shape == shape
    assert jnp.isfinite(d.log_prob(jnp.ones(shape)))
    again = link(jr.normal(KEY, (each * 6,)).reshape(each, 2, 3), shape)
    assert eqx.tree_equal(d, again)


@LINK
def test_links_refuse_another_number_of_numbers(link, each, law):
    with pytest.raises(ValueError, match=rf"needs {6 * each} numbers, got 7"):
        link(jnp.zeros(7), (2, 3))


@LINK
def test_links_start_near_the_mean(link, each, law):
    mean = jnp.array([[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]])
    raw = link.start(mean)
    assert raw.shape == (link.size(mean.shape),)
    np.testing.assert_allclose(link(raw, mean.shape).mean(), mean, atol=0.06)


@LINK
def test_links_tell_which_numbers_place_the_law(link, each, law):
    """Moved alone, one of them moves the mean of its own cell, or of its own categorical, and always up."""
    shape, raw = (2, 3), link.start(jnp.full((2, 3), 1 / 3))
    places = link.locations(shape)
    base = link(raw, shape).mean()
    assert len(places) == (2 if law is OneHot and isinstance(link, Ordered) else 6)
    for i, place in enumerate(places):
        moved = np.asarray(link(raw.at[place].add(0.5), shape).mean() - base)
        row = i if isinstance(link, Ordered) else i // 3
        assert np.abs(moved[1 - row]).max() == 0
        assert moved[row, -1] > 0 if isinstance(link, Ordered) else moved.ravel()[i] > 0


@LINK
def test_links_of_one_form_are_equal(link, each, law):
    copy = jax.tree.unflatten(jax.tree.structure(link), jax.tree.leaves(link))
    assert jax.tree.structure(copy) == jax.tree.structure(link)
    assert all(eqx.is_array(leaf) for leaf in jax.tree.leaves(link))


def test_scales_have_a_floor():
    raw = jnp.full(3, -200.0)
    assert Real(floor=0.25)(raw[:2], (1,)).scale == 0.25
    assert HeavyTailed(floor=0.25)(raw, (1,)).scale == 0.25
    assert Homoscedastic(raw[:1], floor=0.25)(raw[:1], (1,)).scale == 0.25


def test_a_shared_covariance_is_read_from_its_lower_triangle():
    factor = jnp.array([[-2.0, 9.0], [1.0, 3.0]])
    link, raw = SharedCovariance(factor), jnp.array([1.0, -1.0])
    assert link.size((2,)) == 2
    assert np.array_equal(link(raw, (2,)).mean(), raw)
    assert np.array_equal(link(raw, (2,)).factor, [[2, 0], [1, 3]])
    assert np.array_equal(link.start(raw), raw)
    with pytest.raises(ValueError, match="needs 2 numbers, got 3"):
        link(jnp.zeros(3), (2,))


def test_real_reads_means_then_scales():
    d = Real(floor=0.0)(jnp.arange(4.0), (2,))
    np.testing.assert_allclose(d.location, [0, 1])
    np.testing.assert_allclose(d.scale, np.log1p(np.exp([2, 3])), rtol=1e-6)


def test_levels_need_two():
    with pytest.raises(ValueError, match="at least 2 levels, got 1"):
        Levels(1)


def test_conditionals_ravel_parent_and_context():
    net = eqx.nn.Linear(6, 8, key=KEY)
    law = Conditional(net, Real(), (2, 2))
    parent, context = jnp.arange(4.0).reshape(2, 2), {"label": jnp.array([1, 0])}
    want = Real()(net(jnp.array([0.0, 1.0, 2.0, 3.0, 1.0, 0.0])), (2, 2))
    assert eqx.tree_equal(law(parent, context), want)
    split = law((parent[0], parent[1]), context)
    assert eqx.tree_equal(split, want)


def chain():
    k1, k2 = jr.split(KEY)
    middle = Conditional(eqx.nn.Linear(2, 3, key=k1), Bits(), (3,))
    last = Conditional(eqx.nn.Linear(3, 4, key=k2), Classes(), (2, 2))
    return Ancestral(Bernoulli(a([0.5, -1.0])), middle, last)


def test_a_chain_scores_the_product_of_its_links(x64):
    d = chain()
    z1, z2, z3 = a([1.0, 0.0]), a([0.0, 1.0, 1.0]), a([[0.0, 1.0], [1.0, 0.0]])
    assert [z.shape for z in jax.eval_shape(lambda: d.sample(key=KEY))] == [(2,), (3,), (2, 2)]
    parts = d.first.log_prob(z1) + d.conditionals[0](z1).log_prob(z2) + d.conditionals[1](z2).log_prob(z3)
    np.testing.assert_allclose(d.log_prob((z1, z2, z3)), parts, rtol=1e-12)


def test_a_chain_sums_to_one_and_draws_what_it_scores(x64):
    d = chain()
    supports = [
        Bernoulli(a([0.0] * 2)).support(),
        Bernoulli(a([0.0] * 3)).support(),
        OneHot(a([[0.0] * 2] * 2)).support(),
    ]
    places = np.array(list(itertools.product(*map(range, map(len, supports)))))
    values = tuple(s[places[:, i]] for i, s in enumerate(supports))
    mass = np.exp(jax.vmap(d.log_prob)(values))
    np.testing.assert_allclose(np.sum(mass), 1, rtol=1e-12)
    assert_mean(lambda k: d.sample(key=k), [np.tensordot(mass, value, 1) for value in values])


def test_a_chain_of_affine_means_has_their_mean(x64):
    d = Ancestral(
        Gaussian(a([0.5, -1.0, 2.0]), a([0.7, 1.5, 0.3])),
        Conditional(eqx.nn.Linear(3, 2, key=KEY), Homoscedastic(a([0.0, 0.0])), (2,)),
    )
    assert_mean(lambda k: d.sample(key=k), d.mean())


def test_a_chain_refuses_masks_and_short_tuples():
    d, value = chain(), (jnp.ones(2), jnp.ones(3), jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="tuple of 3 values, got 2"):
        d.log_prob(value[:2])
    with pytest.raises(ValueError, match="cannot marginalise"):
        d.log_prob(value, (value[0] > 0, value[1] > 0, value[2] > 0))


def dirichlet(rows=2):
    return Numpyro(nd.Dirichlet, {"concentration": jnp.ones((rows, 3)) * jnp.array([[1.0, 2.0, 3.0]])})


def test_numpyro_events_are_scored_whole(x64):
    d, x = dirichlet(), jnp.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    want = st.dirichlet.logpdf(np.asarray(x[0]), [1, 2, 3])
    holed = x.at[1].set(jnp.nan)
    score = eqx.filter_value_and_grad(lambda d: d.log_prob(holed, jnp.array([True, False])))
    value, slope = score(d)
    np.testing.assert_allclose(value, want, rtol=1e-9)
    assert np.all(np.isfinite(slope.parameters["concentration"]))
    with pytest.raises(ValueError, match=r"mask of Dirichlet must have shape \(2,\)"):
        d.log_prob(x, jnp.ones((2, 3), bool))


def test_a_family_without_gradients_is_not_reparametrised():
    with pytest.raises(TypeError, match="a draw of Poisson has no gradient"):
        NumpyroReparametrised(nd.Poisson, {"rate": jnp.ones(1)})


@pytest.mark.parametrize(
    ("family", "parameters"),
    [
        (nd.Categorical, {"logits": jnp.array([[0.0, 1.0, -1.0], [0.5, 0.0, 2.0]])}),
        (nd.NegativeBinomial2, {"mean": jnp.array([3.0, 1.0]), "concentration": jnp.array([2.0, 2.0])}),
        (nd.BetaBinomial, {"concentration1": jnp.ones(2), "concentration0": jnp.ones(2), "total_count": jnp.array(4)}),
    ],
)
def test_numpyro_counts_and_codes_are_floats(family, parameters):
    d, x = Numpyro(family, parameters), jnp.array([2.0, 1.0])
    assert jax.eval_shape(lambda: d.sample(key=KEY)).dtype == d.log_prob(x).dtype == x.dtype
    np.testing.assert_allclose(d.log_prob(x), np.sum(family(**parameters).log_prob(x.astype(int))), rtol=1e-6)
    alone = d.log_prob(x.at[1].set(jnp.nan), jnp.array([True, False]))
    np.testing.assert_allclose(alone, family(**parameters).log_prob(x.astype(int))[0], rtol=1e-6)


@pytest.mark.parametrize(
    "make", [dirichlet, lambda: Binomial(jnp.zeros(2), 3), lambda: Gaussian(a([0.5, 1.0]), a([1.0, 2.0]))]
)
def test_laws_of_one_form_trace_once(make):
    traces = []
    score = eqx.filter_jit(lambda d, x: traces.append(0) or d.log_prob(x))
    for d in (make(), jax.tree.map(lambda leaf: 2 * leaf, make())):
        score(d, d.mean())
    assert len(traces) == 1


@pytest.mark.slow
def test_numpyro_is_imported_only_when_used():
    program = "import sys, ravine.dist; sys.exit('numpyro' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
