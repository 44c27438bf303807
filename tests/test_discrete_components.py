"""Mixtures of bits, codes and counts, and of mixtures: exact, against lists of all values."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import LIMIT, z_scores
from scipy import stats

from ravine._tree import Fixed, trainable
from ravine.core import Row, summed
from ravine.models.diagonal_components import DiagonalCovariance
from ravine.models.discrete_components import BitComponents, CodeComponents, CountComponents, MixedComponents
from ravine.models.mixture import Mixture
from ravine.rules.em import EM

pytestmark = pytest.mark.usefixtures("x64")
K, D, C, N = 2, 3, 3, 40


def bits(rng: Any) -> BitComponents:
    return BitComponents(jnp.asarray(rng.normal(size=(K, D))), Fixed(jnp.asarray(0.5)))


FAMILIES: dict[str, Any] = {
    "bits": bits,
    "codes": lambda r: CodeComponents(jnp.asarray(r.normal(size=(K, D, C))), Fixed(jnp.asarray(0.5))),
    "counts": lambda r: CountComponents(jnp.asarray(r.normal(size=(K, D))), Fixed(jnp.asarray(0.5))),
    "mixed": lambda r: MixedComponents(
        jnp.asarray(r.normal(size=(K, 2))), BitComponents(jnp.asarray(r.normal(size=(2 * K, D))))
    ),
}
every_family = pytest.mark.parametrize("name", FAMILIES)
with_and_without = pytest.mark.parametrize("holes", [False, True], ids=["complete", "holes"])


def model_of(name: str) -> Mixture:
    rng = np.random.default_rng(3)
    return Mixture(jnp.asarray(rng.normal(size=K)), FAMILIES[name](rng))


def batch_of(name: str, holes: bool) -> Row:
    rng, keys = np.random.default_rng(4), jr.split(jr.key(1), N)
    x = np.asarray(jax.vmap(lambda key: model_of(name).sample(key=key)[1])(keys))
    weight = rng.uniform(0.5, 2, N)
    weight[5] = 0
    if not holes:
        return Row(jnp.asarray(x), weight=jnp.asarray(weight))
    mask = rng.random(x.shape) < 0.7
    mask[3] = False
    return Row(jnp.asarray(np.where(mask, x, 0)), jnp.asarray(mask), weight=jnp.asarray(weight))


def by_hand(components: Any, x: Any, mask: Any) -> np.ndarray:
    """log p(observed cells | component), cell by cell, by scipy."""
    if isinstance(components, MixedComponents):
        share = np.asarray(jax.nn.softmax(components.logits))
        parts = by_hand(components.parts, x, mask).reshape(share.shape)
        return np.log((share * np.exp(parts)).sum(axis=1))
    if isinstance(components, BitComponents):
        cells = stats.bernoulli.logpmf(x, 1 / (1 + np.exp(-np.asarray(components.logits))))
    elif isinstance(components, CountComponents):
        cells = stats.poisson.logpmf(x, np.exp(np.asarray(components.log_rate)))
    else:
        p = np.asarray(jax.nn.softmax(components.logits))
        cells = np.log(np.stack([p[:, i, int(v)] for i, v in enumerate(x)], axis=1))
    return np.where(mask, cells, 0).sum(axis=1)


@every_family
@with_and_without
def test_densities_and_sums_are_those_of_the_cells(name: str, holes: bool):
    model, batch = model_of(name), batch_of(name, holes)
    mask = np.ones((N, D), bool) if batch.mask is None else np.asarray(batch.mask)
    want = np.stack([by_hand(model.components, x, m) for x, m in zip(np.asarray(batch.x), mask, strict=True)])
    log_prob, _ = model.components.evaluate(batch)
    np.testing.assert_allclose(log_prob, want, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(jax.vmap(model.components.log_prob_all)(batch), want, rtol=1e-10, atol=1e-12)
    fast, slow = model.expected(batch), summed(model, batch)
    for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(slow), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["bits", "codes", "mixed"])
def test_probabilities_of_all_values_add_up_to_one_and_to_the_mean(name: str):
    model, levels = model_of(name), C if name == "codes" else 2
    values = jnp.asarray(np.array(list(itertools.product(range(levels), repeat=D)), float))
    p = jnp.exp(jax.vmap(lambda x: model.log_evidence(Row(x)))(values))
    mean = jax.nn.softmax(model.logits) @ jax.vmap(lambda z: model.components.law(z).mean())(jnp.eye(K))
    np.testing.assert_allclose(jnp.sum(p), 1, rtol=1e-12)
    np.testing.assert_allclose(p @ values, mean, rtol=1e-12)


@every_family
@with_and_without
def test_em_never_falls_and_ends_where_the_slope_is_none(name: str, holes: bool):
    model, batch = model_of(name), batch_of(name, holes)
    rule = EM(tol=-jnp.inf)

    @eqx.filter_jit
    def run(model: Any) -> Any:
        def step(carry: Any, _: None) -> Any:
            model, state, metrics = rule.step(*carry, batch, key=jr.key(0), step=jnp.array(0))
            return (model, state), metrics["objective"]

        (model, _), objective = jax.lax.scan(step, (model, rule.init(model, batch, key=jr.key(0))), length=500)
        return model, objective

    after, objective = run(model)
    assert np.all(np.diff(objective) > -1e-12)
    assert objective[-1] > objective[0] + 1e-3
    for _ in range(20):
        after, _ = run(after)

    def posterior(model: Any) -> Any:
        return batch.weight @ jax.vmap(model.log_evidence)(batch) + model.log_penalty()

    parameters, rest = trainable(after)
    slope = jax.tree.leaves(jax.jit(jax.grad(lambda p: posterior(eqx.combine(p, rest))))(parameters))
    assert max(float(jnp.max(jnp.abs(part))) for part in slope) < 1e-4


@every_family
def test_holes_are_filled_from_the_law_given_the_rest(name: str):
    """4000 draws against the exact mean; one correct run in 150,000 a number would fail."""
    model, batch = model_of(name), batch_of(name, True)
    some = int(np.flatnonzero(np.asarray(batch.mask).sum(axis=1) == 1)[0])
    row = jax.tree.map(lambda leaf: leaf[some], batch)
    law, free = model.conditional(row), ~np.asarray(row.mask)
    draws = np.asarray(jax.vmap(lambda key: law.sample(key=key))(jr.split(jr.key(2), 4000)))
    assert free.any() and np.array_equal(
        draws[:, ~free], np.broadcast_to(np.asarray(row.x)[~free], draws[:, ~free].shape)
    )
    assert np.max(np.abs(z_scores(draws[:, free], np.asarray(law.mean())[free]))) < LIMIT
    value = jnp.asarray(draws[0])
    np.testing.assert_allclose(law.log_prob(value), model.log_evidence(Row(value)) - model.log_evidence(row), rtol=1e-9)


@every_family
def test_a_component_without_rows_keeps_what_it_had(name: str):
    model, batch = model_of(name), batch_of(name, False)
    none = lambda node: Fixed(jnp.zeros(())) if isinstance(node, Fixed) and jnp.ndim(node.value) == 0 else node  # noqa: E731
    model = jax.tree.map(none, model, is_leaf=lambda node: isinstance(node, Fixed))  # no smoothing
    _, collect = model.components.evaluate(batch)
    shares = jnp.stack([jnp.ones(N), jnp.zeros(N)], axis=1)
    after = model.components.maximise(collect(shares), jnp.sum(shares, axis=0))
    before = jax.vmap(model.components.log_prob_all)(batch)[:, 1]
    np.testing.assert_allclose(jax.vmap(after.log_prob_all)(batch)[:, 1], before, rtol=1e-12)
    assert not np.allclose(
        jax.vmap(after.log_prob_all)(batch)[:, 0], jax.vmap(model.components.log_prob_all)(batch)[:, 0]
    )


def test_parts_must_be_as_many_as_weights():
    with pytest.raises(ValueError, match=r"2 x 2; got 3 parts"):
        MixedComponents(jnp.zeros((2, 2)), DiagonalCovariance(jnp.zeros((3, 1)), jnp.ones((3, 1))))
