"""Bayesian mixtures: the bound against exact evidence, divergences against draws, and passes against scikit-learn's."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import LIMIT, some, z_scores
from scipy import stats
from scipy.special import logsumexp
from sklearn import mixture

from ravine._tree import Fixed
from ravine.core import Row, summed
from ravine.models.beliefs import DirichletShares, NormalGamma, NormalWishart, StickShares
from ravine.models.starts import nearest_seeds
from ravine.models.variational_mixture import VariationalMixture
from ravine.rules.em import EM

pytestmark = pytest.mark.usefixtures("x64")
N, D, K = 30, 2, 3
BELIEFS: dict[str, Any] = {"wishart": NormalWishart, "gamma": NormalGamma}
SHARES: dict[str, Any] = {
    "dirichlet": lambda k: DirichletShares(jnp.full(k, 0.5)),
    "sticks": lambda k: StickShares.of(k, 1.5),
}
every_belief = pytest.mark.parametrize("belief", BELIEFS)
every_share = pytest.mark.parametrize("share", SHARES)
dearly = pytest.mark.parametrize("share", some(SHARES, "sticks"))  # where what is compared takes long to compile
with_and_without = pytest.mark.parametrize("holes", [False, True], ids=["complete", "holes"])


def batch_of(holes: bool, n: int = N) -> Row:
    """Rows around three places, weighted; with holes one row is empty."""
    rng = np.random.default_rng(0)
    x = 3 + 4 * rng.normal(size=(K, D))[rng.integers(K, size=n)] + rng.normal(size=(n, D)) @ rng.normal(size=(D, D))
    weight = np.ones(n) if n < N else rng.integers(1, 3, size=n).astype(float)
    if not holes:
        return Row(jnp.asarray(x), weight=jnp.asarray(weight))
    mask = rng.random((n, D)) < 0.7
    mask[1] = False
    return Row(jnp.asarray(np.where(mask, x, 0)), jnp.asarray(mask), weight=jnp.asarray(weight))


def started(belief: str, share: str, batch: Row, k: int = K) -> VariationalMixture:
    groups = nearest_seeds(batch, k, key=jr.key(1))
    return VariationalMixture.from_responsibilities(batch, groups, SHARES[share](k), BELIEFS[belief].broad(batch, k))


@eqx.filter_jit
def learned(model: VariationalMixture, batch: Row, steps: int = 100) -> tuple[VariationalMixture, Any]:
    rule = EM(tol=-jnp.inf)

    def step(carry: Any, _: None) -> Any:
        model, state, metrics = rule.step(*carry, batch, key=jr.key(0), step=jnp.array(0))
        return (model, state), metrics["objective"] * jnp.sum(batch.weight)

    (model, _), bound = jax.lax.scan(step, (model, rule.init(model, batch, key=jr.key(0))), length=steps)
    return model, bound


@every_belief
@every_share
@with_and_without
def test_the_bound_never_falls_and_its_sums_are_those_of_rows(belief: str, share: str, holes: bool):
    batch = batch_of(holes)
    model, bound = learned(started(belief, share, batch), batch)
    assert np.all(np.diff(bound) > -1e-9)
    assert bound[-1] > bound[0] + 0.1
    fast, slow = model.expected(batch), eqx.filter_jit(summed)(model, batch)
    for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(slow), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@every_belief
def test_the_bound_of_one_component_is_the_evidence(belief: str):
    """Row after row, each predicted by what was believed after those before it: the chain rule."""
    batch = batch_of(False, 6)
    prior = VariationalMixture(SHARES["dirichlet"](1), BELIEFS[belief].broad(batch, 1))
    model = prior.maximise(prior.expected(batch)[0])
    bound = model.expected(batch)[1] + model.log_penalty()
    total = 0.0
    for i in range(6):
        here, until = (jax.tree.map(lambda leaf, r=r: leaf[r], batch) for r in (slice(i, i + 1), slice(0, i)))
        believed = prior if i == 0 else prior.maximise(prior.expected(until)[0])
        total += float(believed.log_evidence(Row(here.x[0])))
    np.testing.assert_allclose(bound, total, rtol=1e-10)


@every_belief
@dearly
def test_the_bound_is_below_the_sum_over_all_assignments(belief: str, share: str):
    n, k = 6, 2
    batch = batch_of(False, n)
    beliefs, shares = BELIEFS[belief].broad(batch, k), SHARES[share](k)
    _, collect = beliefs.components().evaluate(batch)

    @eqx.filter_jit
    def joint(hot: Any) -> Any:
        """log p(rows, assignment): by Bayes' rule at any parameters, here through the divergence of exact beliefs."""
        after = VariationalMixture(shares, beliefs).maximise((jnp.sum(hot, axis=0), collect(hot)))
        expected = after.beliefs.components().evaluate(batch)[0]
        each = expected + after.beliefs.doubt(batch) + after.shares.expected_log()[None]
        return jnp.sum(hot * each) + after.log_penalty()

    all_hot = [jnp.asarray(np.eye(k)[list(z)]) for z in itertools.product(range(k), repeat=n)]
    exact = logsumexp([float(joint(hot)) for hot in all_hot])
    _, bound = learned(started(belief, share, batch, k), batch)
    assert bound[-1] < exact
    assert exact - bound[-1] < 3  # nats, of about 25


def draws_of(model: VariationalMixture, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Parameters of the first component drawn from q, with log q - log prior at each: by scipy."""
    rng, b = np.random.default_rng(0), model.beliefs

    def densities(m: Any, root: Any, strength: Any, freedom: Any, mu: Any, precision: Any) -> Any:
        m, root = np.asarray(m)[0], np.asarray(root)[0]
        if isinstance(b, NormalWishart):
            scale = np.linalg.inv(float(freedom[0]) * root @ root.T)
            wishart = stats.wishart.logpdf(np.moveaxis(precision, 0, -1), float(freedom[0]), scale)
            residual = mu - m
            square = np.einsum("ni,nij,nj->n", residual, precision, residual) * float(strength[0])
            log_det = np.linalg.slogdet(precision)[1] + D * np.log(float(strength[0]))
            return wishart + 0.5 * (log_det - square - D * np.log(2 * np.pi))
        shape, rate = np.asarray(freedom)[0] / 2, np.asarray(freedom)[0] / 2 * root**2
        gamma = stats.gamma.logpdf(precision, shape, scale=1 / rate)
        normal = stats.norm.logpdf(mu, m, 1 / np.sqrt(np.asarray(strength)[0] * precision))
        return (gamma + normal).sum(axis=1)

    if isinstance(b, NormalWishart):
        root, nu, beta = np.asarray(b.factors)[0], float(b.freedom[0]), float(b.strength[0])
        precision = stats.wishart.rvs(nu, np.linalg.inv(nu * root @ root.T), size=n, random_state=rng)
        noise = np.linalg.solve(np.moveaxis(np.linalg.cholesky(precision), -1, -2), rng.normal(size=(n, D, 1)))[..., 0]
        mu = np.asarray(b.means)[0] + noise / np.sqrt(beta)
        own = (b.means, b.factors, b.strength, b.freedom)
    else:
        nu, beta = np.asarray(b.freedom)[0], np.asarray(b.strength)[0]
        precision = rng.gamma(nu / 2, 2 / (nu * np.asarray(b.scales)[0] ** 2), size=(n, D))
        mu = np.asarray(b.means)[0] + rng.normal(size=(n, D)) / np.sqrt(beta * precision)
        own = (b.means, b.scales, b.strength, b.freedom)
    ratio = densities(*own, mu, precision) - densities(*b.prior.value, mu, precision)
    return mu, precision, ratio


@every_belief
def test_divergence_and_prediction_are_those_of_draws(belief: str):
    """20,000 draws by scipy; one correct run in 150,000 a number would fail."""
    batch = batch_of(False, 6)
    prior = VariationalMixture(SHARES["dirichlet"](1), BELIEFS[belief].broad(batch, 1))
    model = prior.maximise(prior.expected(batch)[0])
    mu, precision, ratio = draws_of(model, 20_000)
    assert abs(float(z_scores(ratio, float(model.beliefs.divergence())))) < LIMIT
    x = np.asarray(batch.x[0])
    if belief == "wishart":
        square = np.einsum("ni,nij,nj->n", x - mu, precision, x - mu)
        log_p = 0.5 * (np.linalg.slogdet(precision)[1] - square - D * np.log(2 * np.pi))
    else:
        log_p = stats.norm.logpdf(x, mu, precision**-0.5).sum(axis=1)
    density = float(jnp.exp(model.log_evidence(Row(batch.x[0]))))
    assert abs(float(z_scores(np.exp(log_p), density))) < LIMIT
    row = Row(batch.x[0])
    expected = model.beliefs.components().log_prob_all(row) + model.beliefs.doubt(row)
    assert abs(float(z_scores(log_p, float(expected[0])))) < LIMIT


@every_share
def test_beliefs_about_shares_are_those_of_draws(share: str):
    rng, model = np.random.default_rng(1), SHARES[share](K).maximise(jnp.array([3.0, 0.5, 1.0]))
    if share == "dirichlet":
        drawn = rng.dirichlet(np.asarray(model.concentration), size=20_000)
        log_pdf = lambda c: stats.dirichlet.logpdf(drawn.T, np.asarray(c))  # noqa: E731
        ratio = log_pdf(model.concentration) - log_pdf(model.prior.value)
    else:
        v = rng.beta(np.asarray(model.taken), np.asarray(model.left), size=(20_000, K - 1))
        drawn = np.column_stack([v, np.ones(20_000)]) * np.column_stack([np.ones(20_000), np.cumprod(1 - v, axis=1)])
        own = stats.beta.logpdf(v, np.asarray(model.taken), np.asarray(model.left))
        ratio = (own - stats.beta.logpdf(v, 1, 1.5)).sum(axis=1)
    assert np.max(np.abs(z_scores(drawn, np.asarray(model.mean())))) < LIMIT
    assert np.max(np.abs(z_scores(np.log(drawn), np.asarray(model.expected_log())))) < LIMIT
    assert abs(float(z_scores(ratio, float(model.divergence())))) < LIMIT


def test_passes_are_those_of_scikit_learn():
    batch = batch_of(False, 25)
    x, groups = np.asarray(batch.x), np.asarray(nearest_seeds(batch, K, key=jr.key(1)))
    theirs = mixture.BayesianGaussianMixture(
        n_components=K,
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=0.5,
        reg_covar=0,
    )
    theirs._check_parameters(
        x, xp=np
    ) if "xp" in theirs._check_parameters.__code__.co_varnames else theirs._check_parameters(x)
    theirs.random_state = 0
    theirs._initialize(x, groups)
    prior = NormalWishart(
        jnp.tile(jnp.mean(batch.x, axis=0), (K, 1)),
        jnp.tile(jnp.linalg.cholesky(jnp.atleast_2d(jnp.cov(batch.x.T)) / D), (K, 1, 1)),
        jnp.ones(K),
        jnp.full(K, float(D)),
    )
    ours = VariationalMixture.from_responsibilities(batch, jnp.asarray(groups), SHARES["dirichlet"](K), prior)
    for _ in range(5):
        np.testing.assert_allclose(ours.beliefs.means, theirs.means_, rtol=1e-8)
        spread = ours.beliefs.factors @ jnp.swapaxes(ours.beliefs.factors, 1, 2)
        np.testing.assert_allclose(spread, theirs.covariances_, rtol=1e-7)
        np.testing.assert_allclose(ours.shares.concentration, theirs.weight_concentration_, rtol=1e-8)
        _, log_resp = theirs._e_step(x)
        theirs._m_step(x, log_resp)
        ours = ours.maximise(ours.expected(batch)[0])


@every_belief
@dearly
def test_what_is_predicted_is_a_density_with_exact_marginals(belief: str, share: str):
    batch = batch_of(True)
    model, _ = learned(started(belief, share, batch), batch, 10)
    axis = np.linspace(-60, 60, 801)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(jax.jit(jax.vmap(lambda x: model.log_evidence(Row(x))))(jnp.asarray(grid))).reshape(801, 801)
    alone = jax.jit(jax.vmap(lambda x: model.log_evidence(Row(x, jnp.array([True, False])))))(
        jnp.asarray(np.column_stack([axis, 0 * axis]))
    )
    step = axis[1] - axis[0]
    np.testing.assert_allclose(density.sum() * step**2, 1, atol=2e-2)
    np.testing.assert_allclose(density.sum(axis=1) * step, np.exp(alone), atol=2e-3)
    row = Row(jnp.asarray(grid[300 * 801 + 400]), jnp.array([True, False]))
    law, value = model.conditional(row), jnp.asarray(grid[300 * 801 + 410])
    whole = float(model.log_evidence(Row(value)) - model.log_evidence(row))
    np.testing.assert_allclose(law.log_prob(value), whole, rtol=1e-9)


def test_more_components_than_there_are_groups_lose_their_share():
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(-6, 1, size=(60, 2)), rng.normal(6, 1, size=(60, 2))])
    batch = Row(jnp.asarray(x), weight=jnp.ones(120))
    groups = nearest_seeds(batch, 8, key=jr.key(0))
    shares = DirichletShares(jnp.full(8, 1e-3))
    model = VariationalMixture.from_responsibilities(batch, groups, shares, NormalWishart.broad(batch, 8))
    model, _ = learned(model, batch, 400)
    assert int(jnp.sum(model.shares.mean() > 0.01)) == 2


def test_an_empty_row_tells_nothing():
    batch = batch_of(True)
    model = started("wishart", "dirichlet", batch)
    heavy = eqx.tree_at(lambda b: b.weight, batch, batch.weight.at[1].set(100.0))
    for a, b in zip(jax.tree.leaves(model.expected(batch)), jax.tree.leaves(model.expected(heavy)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_prior_is_kept_while_beliefs_move():
    batch = batch_of(False)
    model = started("wishart", "dirichlet", batch)
    after = model.maximise(model.expected(batch)[0])
    assert isinstance(model.beliefs.prior, Fixed)
    assert eqx.tree_equal(model.beliefs.prior, after.beliefs.prior)
