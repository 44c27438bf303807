"""Deep belief nets: what the layers are worth together, by listing every state of small ones."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import LIMIT, some

import ravine as rv
from ravine._tree import Fixed
from ravine.core import Row
from ravine.data import ArraySource
from ravine.evidence import Layered
from ravine.models.deep_belief import DeepBelief, Rates, ToNetwork, TwoWay, blank_top, two_ways, unfolded
from ravine.models.energy import Dense, Harmonium
from ravine.models.units import BinaryUnits
from ravine.objectives import Contrast, UpDown
from ravine.recipes.deep_belief_net import up_and_down
from ravine.rules import Contrastive, ContrastiveDivergence, Greedy, Optimiser
from ravine.verbs import log_likelihood


def bits(n: int) -> np.ndarray:
    return np.array(list(itertools.product((0.0, 1.0), repeat=n)))


def units(n: int, stream: np.random.Generator) -> BinaryUnits:
    return BinaryUnits((n,), jnp.asarray(stream.normal(size=n)))


def machine(seed: int, visible: int = 4, hidden: int = 3) -> Harmonium:
    stream = np.random.default_rng(seed)
    v, h = units(visible, stream), units(hidden, stream)
    return Harmonium(
        v, h, Dense(jnp.asarray(stream.normal(size=(visible, hidden)))), Fixed(BinaryUnits().sized((visible,)))
    )


def net(seed: int, sizes: tuple[int, ...] = (4, 3, 2), classes: int = 0) -> DeepBelief:
    """A net with random weights, other ones each way."""
    stream = np.random.default_rng(seed)
    random = lambda *shape: Dense(jnp.asarray(0.5 * stream.normal(size=shape)))  # noqa: E731
    pairs = itertools.pairwise(sizes[:-1])
    layers = tuple(TwoWay(units(a, stream), units(b, stream), random(a, b), random(a, b)) for a, b in pairs)
    top = blank_top(sizes[-2], sizes[-1], classes, 50, key=jr.key(seed))
    noise = lambda leaf: leaf + jnp.asarray(stream.normal(size=leaf.shape)) if eqx.is_inexact_array(leaf) else leaf  # noqa: E731
    return DeepBelief(layers, jax.tree.map(noise, top))


def evidence(model: DeepBelief, X: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """log p(observed cells) of rows, by listing the latents and asking log Z of the machine on top."""
    shapes = [layer.upper.shape[0] for layer in model.layers]
    listed = list(itertools.product(*(bits(n) for n in shapes)))
    states = tuple(jnp.asarray(np.array([z[i] for z in listed])) for i in range(len(shapes)))
    return np.asarray(
        listed_evidence(model, states, Row(jnp.asarray(X), mask=None if mask is None else jnp.asarray(mask)))
    )


@eqx.filter_jit
def listed_evidence(model: DeepBelief, states: tuple, rows: Row) -> jnp.ndarray:
    joint = jax.vmap(lambda row: jax.vmap(lambda z: model.log_joint(z, row))(states))(rows)
    return jax.nn.logsumexp(joint, axis=1) - model.top.log_partition()


@pytest.mark.parametrize("seed", range(3))
def test_an_unfolded_machine_is_the_machine(seed, x64):
    here = machine(seed)
    deep = unfolded(here)
    want = -jax.vmap(here.energy)(jnp.asarray(bits(4))) - here.log_partition()
    np.testing.assert_allclose(evidence(deep, bits(4)), want, atol=1e-10)


@pytest.mark.parametrize("classes", [0, 3])
def test_a_net_is_a_law(classes, x64):
    model = net(1, (3, 3, 2), classes)
    assert np.exp(evidence(model, bits(3))).sum() == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("classes", [0, 3])
def test_importance_weights_of_the_way_up_find_the_evidence(classes, x64):
    """Each row within 4.5 standard errors: a right estimate fails once in 9,000 runs of this test."""
    model, X = net(2, (4, 3, 3, 2), classes), bits(4)
    got = log_likelihood(model, Layered(k=4000), Row(jnp.asarray(X)), None, key=jr.key(0))
    want = evidence(model, X)
    assert got.direction == "lower" and got.shared_error == 0
    assert (np.abs(got.value - want) < LIMIT * got.standard_error).all() and got.standard_error.max() < 0.2


@pytest.mark.slow
def test_one_draw_is_a_lower_bound_on_average(x64):
    model, X = net(3), np.repeat(bits(4), 200, axis=0)
    rows = Row(jnp.asarray(X), index=jnp.arange(len(X)))
    keys = jr.split(jr.key(1), len(X))
    one = lambda row, k: model.log_joint((z := model.posterior(row).sample(key=k))[0], row) - z[1]  # noqa: E731
    values = np.asarray(jax.vmap(one)(rows, keys)).reshape(16, 200) - float(model.top.log_partition())
    exact = evidence(model, bits(4))
    error = values.std(axis=1, ddof=1) / np.sqrt(200)
    assert (values.mean(axis=1) < exact + LIMIT * error).all()
    assert values.mean() < exact.mean() - 0.1  # the way up is random here, and the bound is loose


def test_missing_cells_are_summed_out_and_an_empty_row_scores_zero(x64):
    model, stream = net(4), np.random.default_rng(0)
    X, mask = bits(4), stream.random((16, 4)) < 0.5
    mask[0] = False
    got = log_likelihood(
        model, Layered(k=4000), Row(jnp.asarray(X * mask), mask=jnp.asarray(mask)), None, key=jr.key(0)
    )
    want = evidence(model, X * mask, mask)
    assert got.value[0] == 0
    assert (np.abs(got.value - want) <= LIMIT * got.standard_error + 1e-12).all()
    whole = np.exp(evidence(model, X))
    parts = [whole[(X == x)[:, m].all(axis=1)].sum() for x, m in zip(X, mask, strict=True)]
    np.testing.assert_allclose(want, np.log(parts), atol=1e-10)


def test_a_layer_upside_down_on_top_leaves_the_bound_as_it_was(x64):
    """Hinton, Osindero & Teh 2006, section 4: the next layer starts as the transpose of this one."""
    here = machine(5)
    deep, row = unfolded(here), Row(jnp.asarray(bits(4)[6]))
    q = deep.posterior(row)
    states = bits(3)
    log_q = jnp.stack([q.log_prob((jnp.asarray(h),)) for h in states])
    joint = jnp.stack([deep.log_joint((jnp.asarray(h),), row) for h in states])
    bound = float(jnp.exp(log_q) @ (joint - log_q) - deep.top.log_partition())
    assert bound == pytest.approx(float(-here.energy(row.x) - here.log_partition()), abs=1e-10)


@pytest.mark.parametrize("i", some(range(3), 1))
def test_greedy_learning_moves_one_layer_both_ways_alike(i):
    model = DeepBelief(
        two_ways(units(4, np.random.default_rng(0)), (3, 3), key=jr.key(0)), blank_top(3, 2, 0, 10, key=jr.key(1))
    )
    rule = Greedy(Contrastive(Contrast(), ContrastiveDivergence(1), Optimiser(optax.sgd, (0.1,))), i)
    batch = Row(jnp.asarray(bits(4), jnp.float32))
    state = rule.init(model, batch, key=jr.key(2))
    after, *_ = rule.step(model, state, batch, key=jr.key(3), step=jnp.array(0))
    weights = lambda net: [layer.generative.weight for layer in net.layers]  # noqa: E731
    moved = [not jnp.array_equal(a, b) for a, b in zip(weights(model), weights(after), strict=True)]
    moved.append(not jnp.array_equal(model.top.coupling.weight, after.top.coupling.weight))
    assert moved == [j == i for j in range(3)]
    assert all(jnp.array_equal(layer.generative.weight, layer.recognition.weight) for layer in after.layers)


def test_units_begin_at_the_rates_that_the_layers_below_have():
    model = net(6, (4, 3, 3, 2), 2)
    X = jnp.asarray(bits(4), jnp.float32)
    after = Rates(2)(model, ArraySource(Row(X)), key=jr.key(0))
    want = np.mean([np.asarray(model.climbed(Row(x))) for x in X], axis=0)
    np.testing.assert_allclose(after.top.pair.visible.groups[0](jnp.zeros(3)).mean(), want, atol=1e-5)


def test_no_way_learns_from_itself(x64):
    """The mean slope is that of the three parts in their own weights alone; a right one fails once in 10,000 runs."""
    model, row = net(7, (3, 2, 2)), Row(jnp.asarray([1.0, 0.0, 1.0]))
    objective, draws = UpDown(1), 20_000
    slope = eqx.filter_jit(eqx.filter_grad(lambda m, k: objective.loss(m, row, key=k)[0]))
    slopes = jax.vmap(lambda k: slope(model, k))(jr.split(jr.key(0), draws))
    layer = model.layers[0]
    q = layer.up(row.x)
    want = sum(float(jnp.exp(q.log_prob(h))) * wake_slope(layer, row.x, h) for h in map(jnp.asarray, bits(2)))
    close(slopes.layers[0].generative.weight, want)
    close(slopes.layers[0].recognition.weight, sleep_slope(model, q))


def wake_slope(layer: TwoWay, x: jnp.ndarray, h: jnp.ndarray) -> np.ndarray:
    """The delta rule, written out: what is there less what was foretold, times what foretold it."""
    return -np.outer(np.asarray(x - layer.down(h).mean()), np.asarray(h))


def sleep_slope(model: DeepBelief, q) -> np.ndarray:
    """The same the other way, over all states that one sweep on top may reach."""
    top, layer, total = model.top, model.layers[0], 0.0
    for h in map(jnp.asarray, bits(2)):
        for above in map(jnp.asarray, bits(2)):
            for last in map(jnp.asarray, bits(2)):
                chance = q.log_prob(h) + top.hidden(top.up(h)).log_prob(above)
                chance = jnp.exp(chance + top.visible(top.down(above)).log_prob(last))
                dreamt = layer.down(last).mean()
                total += float(chance) * -np.outer(np.asarray(dreamt), np.asarray(last - layer.up(dreamt).mean()))
    return total


def close(drawn: jnp.ndarray, want: np.ndarray) -> None:
    values = np.asarray(drawn)
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    assert (np.abs(values.mean(axis=0) - want) < LIMIT * error + 1e-12).all()


@pytest.mark.slow
def test_a_classifier_learns_dreams_and_fills():
    stream = np.random.default_rng(0)
    y = stream.integers(0, 2, size=400)
    X = np.where(stream.random((400, 12)) < 0.1, 1 - y[:, None], y[:, None]) * 1.0
    X[:, 6:] = 1 - X[:, 6:]
    model = rv.DeepBeliefClassifier(layers=(8, 8), greedy=600, steps=150, sweeps=50, random_state=0).fit(X, y)
    assert np.mean(model.predict(X) == y) > 0.97
    dreams = model.dream(1, 20)
    assert dreams[:, :6].mean() > 0.8 and dreams[:, 6:].mean() < 0.2
    holes = X[:50].copy()
    holes[:, :3] = np.nan
    filled = model.impute(holes)
    assert (filled[:, 3:] == X[:50, 3:]).all() and np.mean(filled[:, :3] == y[:50, None]) > 0.85
    alone, together = model.score_samples(X[:1]), model.score_samples(X[:40])
    assert alone[0] == together[0]
    with pytest.raises(ValueError, match=r"label: expected one of 0, 1, got 7"):
        model.dream(7)


@pytest.mark.slow
def test_up_down_improves_on_greedy_layers():
    """Learning both ways raises log p of the data, which is known here: the machine on top is listed."""
    stream = np.random.default_rng(1)
    X = np.repeat(stream.integers(0, 2, size=(600, 3)), 3, axis=1) * 1.0
    told = {"layers": (6, 6), "greedy": 500, "random_state": 0, "evidence": Layered(k=500)}
    greedy = rv.DeepBeliefNet(steps=None, **told).fit(X)
    tuned = rv.DeepBeliefNet(steps=6000, rate=0.05, **told).fit(X)
    assert tuned.evaluate(X).direction == "lower"
    assert tuned.score(X) > greedy.score(X) + 0.1


@pytest.mark.slow
def test_a_saved_net_answers_as_before(tmp_path):
    X = np.random.default_rng(2).integers(0, 2, size=(60, 5)) * 1.0
    y = np.arange(60) % 3
    model = rv.DeepBeliefClassifier(layers=(4, 4), greedy=20, steps=6, random_state=0).fit(X, y)
    again = rv.load(model.save(tmp_path / "net"))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(again.score_samples(X[:5]), model.score_samples(X[:5]))


def test_fields_of_layers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="layers: expected"):
        rv.DeepBeliefNet(layers=(5,)).fit(np.zeros((10, 3)))


def test_a_net_of_layers_becomes_a_network(x64):
    """The network reads out what the machine on top believes of its hidden units, to first order; then it learns."""
    model = net(8, (4, 3, 3, 2), 3)
    network, row = model.feed_forward(), Row(jnp.asarray([1.0, 0.0, 1.0, 1.0]))
    h = model.climbed(row)
    pair = model.top.pair
    above = pair.hidden.mean(pair.coupling.weight[:3].T @ h)
    want = pair.coupling.weight[3:] @ above + pair.visible.groups[1].bias
    np.testing.assert_allclose(network(row.x), want, atol=1e-12)
    tuned = ToNetwork()(model, None, key=jr.key(0))
    np.testing.assert_allclose(tuned.label_shares(row), jax.nn.softmax(want), atol=1e-12)


@pytest.mark.slow
def test_back_propagation_tunes_the_network_alone():
    stream = np.random.default_rng(3)
    y = stream.integers(0, 3, size=300)
    X = (stream.random((300, 9)) < np.where(np.arange(9) // 3 == y[:, None], 0.8, 0.2)) * 1.0
    told = {"layers": (8, 8), "greedy": 200, "steps": 30, "random_state": 0}
    plain = rv.DeepBeliefClassifier(**told).fit(X, y)
    tuned = rv.DeepBeliefClassifier(tuning=1500, tuning_rate=3e-3, **told).fit(X, y)
    assert np.mean(tuned.predict(X) == y) > np.mean(plain.predict(X) == y)
    np.testing.assert_allclose(tuned.score_samples(X[:5]), plain.score_samples(X[:5]), rtol=1e-5)


@pytest.mark.slow
def test_a_run_that_was_over_goes_on_with_another_stage(tmp_path):
    """To the bit, what one run of all stages learns: here the machine on top alone, by persistent chains."""
    X = np.random.default_rng(0).integers(0, 2, size=(60, 4)).astype(float)
    fields = {"layers": (3, 2), "greedy": 8, "steps": 6, "random_state": 0, "progress": False}
    whole = rv.DeepBeliefNet(**fields, top_steps=7).fit(X)
    first = rv.DeepBeliefNet(**fields).fit(X, folder=tmp_path)
    on = rv.DeepBeliefNet(**fields, top_steps=7).fit(X, folder=tmp_path, resume=True)
    again = rv.DeepBeliefNet(**fields, top_steps=7).fit(X, folder=tmp_path, resume=True)  # nothing is left to do
    for a, b, c in zip(*(jax.tree.leaves(model.model_) for model in (whole, on, again)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    moved = lambda part: not np.array_equal(part(first.model_), part(on.model_))  # noqa: E731
    assert moved(lambda net: net.top.coupling.weight) and not moved(lambda net: net.layers[0].generative.weight)


@pytest.mark.slow
def test_haste_is_of_the_machine_on_top_alone():
    model, batch = net(0, classes=2), Row(jnp.asarray(bits(4)[:3]), y=jnp.array([0, 1, 0]))
    slope = lambda haste: jax.grad(lambda m: UpDown(2, haste)(m, batch, key=jr.key(0))[0])(model)  # noqa: E731
    once, thrice = slope(1.0), slope(3.0)
    weight = lambda m: m.top.pair.coupling.weight  # noqa: E731
    assert np.abs(weight(once)).max() > 1e-3
    np.testing.assert_allclose(weight(thrice), 3 * weight(once), rtol=1e-4, atol=1e-6)
    for a, b in zip(jax.tree.leaves(once.layers), jax.tree.leaves(thrice.layers), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_rate_of_up_down_falls_over_all_of_its_parts():
    rates = [stage.rule.optimiser.args[0] for stage in up_and_down(300, 0.06, 10)]
    ends = [[float(rate(jnp.array(step))) for step in (0, 100)] for rate in rates]
    np.testing.assert_allclose(ends, [[0.06, 0.04], [0.04, 0.02], [0.02, 0.0]], atol=1e-7)


def test_a_free_energy_of_a_row_with_holes_is_refused():
    X = bits(3)
    model = rv.RBM(hidden=2, steps=3, progress=False, random_state=0).fit(X)
    X[2, 1] = np.nan
    with pytest.raises(ValueError, match="free_energy: expected complete rows, got 1 missing cells; ask score_samples"):
        model.free_energy(X)
