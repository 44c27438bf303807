"""Deep Boltzmann machines against lists of the states of all their layers, and what they learn.

The statistical tests have fixed seeds and a limit of 4.5 standard errors: with another seed each number fails once in
150,000 times.
"""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import LIMIT, some, z_scores
from scipy.special import expit, logsumexp

from ravine._tree import Fixed, trainable
from ravine.core import Row
from ravine.dist import Bernoulli
from ravine.evidence import AIS, Normalised, Variational
from ravine.models.boltzmann import Filling, MeanField
from ravine.models.deep_boltzmann import DeepBoltzmann, Pairwise, Stacked
from ravine.models.energy import Harmonium
from ravine.models.unit_groups import Beside
from ravine.models.units import BinaryUnits, GaussianUnits
from ravine.objectives import Contrast
from ravine.recipes.deep_boltzmann_machine import DeepBoltzmannMachine
from ravine.rules import Contrastive, Persistent, centred
from ravine.verbs import log_likelihood

NETS = {"4-3-2": (4, 3, 2), "3-2-2-2": (3, 2, 2, 2)}
EVERY = pytest.mark.parametrize("sizes", NETS.values(), ids=NETS)
ONE = pytest.mark.parametrize("sizes", some(NETS.values(), (4, 3, 2)), ids=NETS)


def net(sizes: tuple[int, ...], seed: int = 0, strength: float = 1.0) -> DeepBoltzmann:
    stream = np.random.default_rng(seed)
    units = [BinaryUnits((n,), jnp.asarray(0.5 * stream.normal(size=n))) for n in sizes]
    weights = [jnp.asarray(strength * stream.normal(size=pair)) for pair in itertools.pairwise(sizes)]
    even = Beside(tuple(units[::2]))
    base = Beside((BinaryUnits((sizes[0],), jnp.asarray(stream.normal(size=sizes[0]))), *even.groups[1:]))
    return DeepBoltzmann(Harmonium(even, Beside(tuple(units[1::2])), Stacked(tuple(weights)), Fixed(base)))


def biases(model: DeepBoltzmann) -> list[np.ndarray]:
    """Of each layer, from the lowest."""
    pairs = itertools.zip_longest(model.pair.visible.groups, model.pair.hidden.groups)
    return [np.asarray(group.bias) for group in itertools.chain(*pairs) if group is not None]


def listed(model: DeepBoltzmann) -> tuple[list[np.ndarray], np.ndarray]:
    """Every state of all layers, layer by layer, and minus its energy."""
    b = biases(model)
    states = np.array(list(itertools.product([0.0, 1.0], repeat=sum(map(len, b)))))
    layers = np.split(states, np.cumsum([len(part) for part in b])[:-1], axis=1)
    value = sum(layer @ part for layer, part in zip(layers, b, strict=True))
    for weight, low, high in zip(model.coupling.weights, layers[:-1], layers[1:], strict=True):
        value = value + np.einsum("ni,ij,nj->n", low, np.asarray(weight), high)
    return layers, value


def log_rows(model: DeepBoltzmann, X: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """log p of the observed cells of each row, by the list."""
    layers, value = listed(model)
    holds = [np.all((layers[0] == x) | ~m, axis=1) for x, m in zip(X, mask, strict=True)]
    return np.array([logsumexp(value[here]) - logsumexp(value) for here in holds])


def cells(n: int) -> np.ndarray:
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def every_hole(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Every row, with every pattern of missing cells."""
    X, mask = (np.array(part, float) for part in zip(*itertools.product(cells(n), cells(n)), strict=True))
    return X * mask, mask > 0


@eqx.filter_jit
def bounds(model: DeepBoltzmann, batch: Row, rounds: int = 50) -> jax.Array:
    return jax.vmap(lambda row: model.log_bound(model.lifted(row), rounds))(batch)


@ONE
def test_the_evidence_of_the_mean_field_is_a_bound(sizes, x64):
    """Of every row with every pattern of missing cells; log Z is listed, so that the number is a lower bound."""
    model, (X, mask) = net(sizes), every_hole(sizes[0])
    batch, truth = Row(jnp.asarray(X), mask=jnp.asarray(mask)), log_rows(model, X, mask)
    got = log_likelihood(model, Variational(), batch, None, key=jr.key(0))
    assert got.direction == "lower" and got.method.startswith("mean-field") and not got.shared_error
    np.testing.assert_allclose(got.value, np.where(mask.any(axis=1), bounds(model, batch) - model.log_partition(), 0))
    assert (got.value <= truth + 1e-9).all() and (got.value > truth - 1).mean() > 0.5
    annealed = log_likelihood(model, Variational(AIS(100, 50)), batch, None, key=jr.key(0))
    assert annealed.direction == "estimate" and 0 < annealed.shared_error < 1
    shift = np.asarray(annealed.value - got.value)[mask.any(axis=1)]
    assert np.ptp(shift) < 1e-9 and abs(shift[0]) < 4.5 * annealed.shared_error


def test_a_machine_without_a_mean_field_is_refused():
    machine, batch = net((3, 2, 2)).pair, Row(jnp.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"an energy with a mean field, got Harmonium; use Normalised\(\)"):
        log_likelihood(machine, Variational(), batch, None, key=jr.key(0))


# --- layers as two groups


def test_layers_act_on_their_neighbours_alone(x64):
    sizes, stream = (2, 3, 1, 2, 3), np.random.default_rng(0)
    coupling = Stacked(tuple(jnp.asarray(stream.normal(size=pair)) for pair in itertools.pairwise(sizes)))
    assert coupling.sizes() == sizes
    block, starts = np.zeros((11, 11)), np.cumsum([0, *sizes])
    for layer, weight in enumerate(coupling.weights):
        block[starts[layer] : starts[layer + 1], starts[layer + 1] : starts[layer + 2]] = weight
    parity = np.repeat(np.arange(5) % 2, sizes)
    dense = (block + block.T)[parity == 0][:, parity == 1]
    v, h = stream.normal(size=6), stream.normal(size=5)
    np.testing.assert_allclose(coupling.up(jnp.asarray(v)), v @ dense, atol=1e-12)
    np.testing.assert_allclose(coupling.down(jnp.asarray(h)), dense @ h, atol=1e-12)


def test_one_hidden_layer_is_refused():
    with pytest.raises(ValueError, match="two hidden layers at least, got 1; use RBM"):
        DeepBoltzmann.of(BinaryUnits().sized((3,)), (2,), key=jr.key(0))


@EVERY
def test_energies_and_log_z_are_those_of_a_list(sizes, x64):
    model = net(sizes)
    layers, value = listed(model)
    joint = jax.jit(jax.vmap(model.pair.joint_energy))(*(tuple(map(jnp.asarray, layers[i::2])) for i in (0, 1)))
    np.testing.assert_allclose(-joint, value, atol=1e-12)
    assert float(model.log_partition()) == pytest.approx(logsumexp(value), abs=1e-10)
    even = tuple(map(jnp.asarray, layers[::2]))
    summed = jax.jit(jax.vmap(model.energy))(even)
    assert logsumexp(-summed) - np.log(2.0 ** sum(sizes[1::2])) == pytest.approx(logsumexp(value), abs=1e-10)


@ONE
def test_sweeps_leave_the_law_as_it_is(sizes, x64):
    """The laws that a sweep draws from, state by state; then the sweep itself, from one state, by many draws."""
    model, (even, odd) = net(sizes), (np.cumsum([0, *net(sizes).coupling.sizes()[i::2]]) for i in (0, 1))
    split = lambda states, ends: tuple(map(jnp.asarray, np.split(states, ends[1:-1], axis=1)))  # noqa: E731
    s, h = split(cells(even[-1]), even), split(cells(odd[-1]), odd)
    up = jax.vmap(lambda s: jax.vmap(model.pair.hidden(model.pair.up(s)).log_prob)(h))(s)
    down = jax.vmap(lambda h: jax.vmap(model.pair.visible(model.pair.down(h)).log_prob)(s))(h)
    moves = np.exp(up) @ np.exp(down)
    log_law = -np.asarray(jax.vmap(model.energy)(s))
    law = np.exp(log_law - logsumexp(log_law))
    np.testing.assert_allclose(law @ moves, law, atol=1e-12)
    np.testing.assert_allclose(law[:, None] * moves, (law[:, None] * moves).T, atol=1e-12)
    start = jax.tree.map(lambda leaf: leaf[3], s)
    drawn = jax.jit(jax.vmap(lambda k: model.kernel().step(start, key=k)[0]))(jr.split(jr.key(0), 20_000))
    assert np.abs(z_scores(np.concatenate(drawn, axis=1), moves[3] @ cells(even[-1]))).max() < LIMIT


def test_the_path_begins_at_cells_and_layers_on_their_own(x64):
    model = net((4, 3, 2))
    layers, _ = listed(model)
    base = [np.asarray(model.pair.base.value.groups[0].bias), *biases(model)[1:]]
    alone = sum(layer @ part for layer, part in zip(layers, base, strict=True))
    assert float(model.log_start()) == pytest.approx(logsumexp(alone), abs=1e-12)
    x, mask = np.array([1.0, 0.0, 0.0, 1.0]), np.array([True, False, True, False])
    row = model.lifted(Row(jnp.asarray(x * mask), jnp.asarray(mask)))
    here = np.all((layers[0] == x) | ~mask, axis=1)
    assert float(model.log_start(row)) == pytest.approx(logsumexp(alone[here]), abs=1e-12)


# --- log p(v), with and without holes


@EVERY
def test_holes_and_layers_are_summed_out_exactly(sizes, x64):
    """By a list of the odd layers, and by one of the even ones."""
    model = net(sizes)
    X, mask = every_hole(sizes[0])
    batch, want = Row(jnp.asarray(X), jnp.asarray(mask)), log_rows(model, X, mask)

    def completed(row: Row) -> jax.Array:
        states, once = model.completions(row)
        return jax.nn.logsumexp(jnp.where(once, -jax.vmap(model.energy)(states), -jnp.inf))

    both = lambda row: (model.log_unnormalised(row), completed(row), model.completable(row))  # noqa: E731
    odd, even, able = jax.jit(jax.vmap(lambda row: both(model.lifted(row))))(batch)
    np.testing.assert_allclose(odd - model.log_partition(), want, atol=1e-10)
    np.testing.assert_allclose(even - model.log_partition(), want, atol=1e-10)
    assert able.all() and np.abs(want[~mask.any(axis=1)]).max() < 1e-12
    got = log_likelihood(model, Normalised(), batch, None, key=jr.key(0))
    np.testing.assert_allclose(got.value, want, atol=1e-10)
    assert got.direction == "exact" and got.method == "enumerated"


@pytest.mark.slow
def test_layers_with_too_many_states_are_annealed(x64):
    """Thirteen odd and eleven even hidden units: more than either list may hold for each row."""
    model = net((3, 13, 11), strength=0.3)
    assert not bool(model.completable(model.lifted(Row(jnp.zeros(3)))))
    X = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    mask = np.array([[True, True, True], [True, False, True]])
    batch = Row(jnp.asarray(X), jnp.asarray(mask))
    want = jax.jit(jax.vmap(lambda r: model.log_unnormalised(model.lifted(r))))(batch) - model.log_partition()
    got = log_likelihood(model, Normalised(steps=200, chains=20), batch, None, key=jr.key(0))
    error = np.asarray(got.standard_error)
    assert got.direction == "estimate" and (0 < error).all() and (error < 0.2).all()
    assert (np.abs(np.asarray(got.value) - want) < LIMIT * error).all()


@ONE
def test_annealing_finds_log_z(sizes, x64):
    model = net(sizes)
    found = AIS(steps=200, chains=100)(model, key=jr.key(1))
    assert 0 < found.standard_error < 0.1
    assert abs(found.value - float(model.log_partition())) < 4 * found.standard_error


# --- mean field


@ONE
def test_the_bound_is_never_above_and_never_falls(sizes, x64):
    X, mask = every_hole(sizes[0])
    batch = Row(jnp.asarray(X), jnp.asarray(mask))
    for seed, strength in ((0, 0.5), (1, 2.0), (2, 6.0)):
        model = net(sizes, seed, strength)
        layers, value = listed(model)
        exact = log_rows(model, X, mask) + logsumexp(value)
        found = np.array([bounds(model, batch, rounds) for rounds in (0, 1, 4, 50)])
        assert (found <= exact + 1e-10).all() and np.diff(found, axis=0).min() > -1e-10
        assert found[-1].mean() > exact.mean() - 2.5
        assert float(model.log_bound()) <= logsumexp(value)


def test_the_bound_is_exact_without_weights(x64):
    model = net((4, 3, 2), strength=0.0)
    X, mask = every_hole(4)
    found = bounds(model, Row(jnp.asarray(X), jnp.asarray(mask)))
    np.testing.assert_allclose(found - model.log_partition(), log_rows(model, X, mask), atol=1e-12)


@EVERY
def test_the_posterior_is_a_fixed_point_in_every_layer(sizes, x64):
    model, x = net(sizes), np.arange(sizes[0]) % 2
    found = jax.jit(lambda x: model.posterior(Row(x)).mean())(jnp.asarray(x, float))
    assert [len(m) for m in found] == list(sizes[1:])
    layers, weights = [x, *map(np.asarray, found)], [np.asarray(w) for w in model.coupling.weights]
    for i in range(1, len(sizes)):
        above = weights[i] @ layers[i + 1] if i + 1 < len(sizes) else 0
        np.testing.assert_allclose(
            layers[i], expit(biases(model)[i] + layers[i - 1] @ weights[i - 1] + above), atol=1e-7
        )
    shown = model.likelihood(found)
    assert isinstance(shown, Bernoulli)
    np.testing.assert_allclose(shown.mean(), expit(biases(model)[0] + weights[0] @ layers[1]), atol=1e-10)


def test_the_slope_at_the_mean_field_is_that_of_the_bound(x64):
    """The odd layers are summed out at the means of the even ones, where these are their own mean field."""
    model, step = net((4, 3, 2), strength=0.7), 1e-5
    X, mask = every_hole(4)
    batch = Row(jnp.asarray(X[::7]), jnp.asarray(mask[::7]))
    parts, rest = trainable(model)
    x = jax.jit(jax.vmap(lambda row: MeanField(300)(model, model.lifted(row), key=jr.key(0))))(batch)
    pulled = jax.grad(lambda p: jnp.mean(jax.vmap(eqx.combine(p, rest).energy)(x)))(parts)
    for weight, i, j in ((0, 1, 2), (0, 3, 0), (1, 2, 1)):
        where = lambda p, w=weight: p.pair.coupling.weights[w]  # noqa: E731
        moved = [eqx.tree_at(where, parts, where(parts).at[i, j].add(s)) for s in (step, -step)]
        up, down = (-jnp.mean(bounds(eqx.combine(p, rest), batch, 300)) for p in moved)
        assert float(where(pulled)[i, j]) == pytest.approx(float(up - down) / (2 * step), abs=1e-8)


def test_reals_below_bits(x64):
    """Visible units of another type: log Z by a list of the layers above, each a Gaussian integral."""
    stream = np.random.default_rng(0)
    visible = GaussianUnits((2,), jnp.asarray(stream.normal(size=2)), jnp.array([-0.2, 0.1]))
    model = DeepBoltzmann.of(visible, (3, 2), key=jr.key(0))
    weights = tuple(jnp.asarray(stream.normal(size=s)) for s in ((2, 3), (3, 2)))
    model = eqx.tree_at(lambda m: m.pair.coupling.weights, model, weights)
    scale, b = np.exp(np.asarray(visible.log_scale)), np.asarray(visible.bias)
    h1, h2 = (np.array(part) for part in zip(*itertools.product(cells(3), cells(2)), strict=True))
    field = h1 @ np.asarray(weights[0]).T
    value = np.einsum("ni,ij,nj->n", h1, np.asarray(weights[1]), h2)
    value = value + np.sum(np.log(scale) + 0.5 * np.log(2 * np.pi) + (field**2 / 2 + b * field) / scale**2, axis=1)
    assert float(model.log_partition()) == pytest.approx(logsumexp(value), abs=1e-10)
    assert float(model.log_bound()) <= float(model.log_partition())
    X = jnp.asarray(stream.normal(size=(5, 2)))
    exact = jax.jit(jax.vmap(lambda x: model.log_unnormalised(model.lifted(Row(x)))))(X)
    gap = exact - bounds(model, Row(X))
    assert (gap >= -1e-10).all() and (gap < 1).all()


# --- learning


def test_centring_keeps_the_law(x64):
    model = net((4, 3, 2))
    X = jnp.asarray(cells(4)[::3])
    mu, lam = eqx.filter_jit(model.offsets)(X)
    np.testing.assert_allclose(mu[:4], X.mean(axis=0), atol=1e-12)
    there = model.centred((mu, lam))
    even = tuple(map(jnp.asarray, listed(model)[0][::2]))
    got, want = (np.asarray(jax.vmap(m.energy)(even)) for m in (there, model))
    np.testing.assert_allclose(got, want, atol=1e-12)
    back = there.plain()
    np.testing.assert_allclose(back.pair.hidden.groups[0].bias, model.pair.hidden.groups[0].bias, atol=1e-12)
    assert isinstance(back, DeepBoltzmann) and there.lifted(Row(X[0])).mask[1].tolist() == [False, False]


def test_lifting_twice_is_lifting_once():
    model = net((4, 3, 2))
    once = model.lifted(Row(jnp.ones(4)))
    assert model.lifted(once) is once and model.shown(once.x).tolist() == [1.0] * 4


def test_a_step_moves_the_weights_of_every_layer():
    model, batch = net((4, 3, 2)), Row(jnp.asarray(cells(4), jnp.float32), jnp.asarray(cells(4)[::-1] > 0))
    rule = Filling(MeanField(5), centred(Contrastive(Contrast(), Persistent(1, 10)), 0.1))
    after, *_ = eqx.filter_jit(rule.step)(
        model, eqx.filter_jit(rule.init)(model, batch, key=jr.key(0)), batch, key=jr.key(1), step=jnp.array(0)
    )
    assert isinstance(after, DeepBoltzmann)
    for old, new in zip(model.coupling.weights, after.coupling.weights, strict=True):
        assert np.abs(old - new).max() > 1e-3


@EVERY
def test_pairs_of_layers_compose_the_net_that_they_were_taken_from(sizes):
    model = net(sizes)
    machines = model.machines()
    assert [len(m.visible.groups) for m in machines] == [2] * (len(sizes) - 2) + [1]
    assert [len(m.hidden.groups) for m in machines] == [1] + [2] * (len(sizes) - 2)
    again = model.composed(machines)
    assert jax.tree.structure(again) == jax.tree.structure(model)
    jax.tree.map(np.testing.assert_array_equal, again, model)


def test_a_layer_stands_in_for_one_like_it(x64):
    """Salakhutdinov & Hinton 2009: with equal layers on both sides the lowest machine is the net itself."""
    model, lowest = net((3, 2, 3)), net((3, 2, 3)).machines()[0]
    same = lambda m: (m.pair.visible.groups[1].bias, m.coupling.weights[1])  # noqa: E731
    mirror = eqx.tree_at(same, model, (model.pair.visible.groups[0].bias, model.coupling.weights[0].T))
    assert float(lowest.log_partition()) == pytest.approx(float(mirror.log_partition()), abs=1e-12)
    v, h = cells(6), cells(2)
    dense = np.concatenate([np.asarray(model.coupling.weights[0])] * 2)
    np.testing.assert_allclose(jax.vmap(lowest.coupling.up)(jnp.asarray(v)), v @ dense, atol=1e-12)
    np.testing.assert_allclose(jax.vmap(lowest.coupling.down)(jnp.asarray(h)), h @ dense.T, atol=1e-12)


@pytest.mark.slow
def test_pairs_learn_apart_and_their_copies_stay_alike():
    model, batch = net((4, 3, 2, 2)), Row(jnp.asarray(cells(4), jnp.float32), jnp.asarray(cells(4)[::-1] > 0))
    rule = Pairwise(centred(Contrastive(Contrast(), Persistent(1, 10)), 0.1))
    state = eqx.filter_jit(rule.init)(model, batch, key=jr.key(0))
    after, (machines, _), metrics = eqx.filter_jit(rule.step)(model, state, batch, key=jr.key(1), step=jnp.array(0))
    assert {"0.loss", "1.loss", "2.loss"} <= set(metrics)
    for old, new in zip(model.coupling.weights, after.coupling.weights, strict=True):
        assert np.abs(old - new).max() > 1e-3
    for machine in machines:
        for units in (machine.visible, machine.hidden):
            np.testing.assert_array_equal(units.groups[0].bias, units.groups[-1].bias)
    np.testing.assert_allclose(
        after.pair.hidden.groups[0].bias, (machines[0].hidden.groups[0].bias + machines[1].visible.groups[0].bias) / 2
    )


def crosses() -> np.ndarray:
    """Bars and stripes of 3 x 3 cells: fourteen images."""
    bars = [np.tile(bits, (3, 1)) for bits in cells(3)]
    return np.unique([image.ravel() for bar in bars for image in (bar, bar.T)], axis=0)


@functools.cache
def fitted() -> tuple[DeepBoltzmannMachine, np.ndarray]:
    X = np.repeat(crosses(), 8, axis=0)
    fields = {"pairs": 2000, "pairs_rate": 0.1, "rate": 0.1, "steps": 2000, "negatives": Persistent(1, 100)}
    return DeepBoltzmannMachine(layers=(6, 3), sweeps=30, random_state=0, **fields).fit(X), X


@pytest.mark.slow
def test_it_learns_bars_and_stripes_with_both_layers():
    model, X = fitted()
    rates = X.mean(axis=0)
    alone = np.mean(np.sum(np.log(np.where(X > 0, rates, 1 - rates)), axis=1))
    assert -np.log(14) > model.score(X) > -3.6 > alone + 2
    severed = eqx.tree_at(lambda m: m.coupling.weights[1], model.model_, replace_fn=jnp.zeros_like)
    got = log_likelihood(severed, Normalised(), Row(jnp.asarray(X)), None, key=jr.key(0))
    assert float(np.mean(got.value)) < model.score(X) - 0.3


@pytest.mark.slow
def test_the_verbs_of_the_recipe():
    model, X = fitted()
    assert model.transform(X).shape == (len(X), 9) and model.reconstruct(X).shape == X.shape
    assert set(np.unique(model.sample(20))) <= {0.0, 1.0}
    assert model.log_partition().direction == "exact"
    rows = X[::8]
    holed = np.where(np.arange(9) % 4 == 1, np.nan, rows)
    np.testing.assert_allclose(
        model.score_samples(holed), log_rows(model.model_, np.nan_to_num(holed), ~np.isnan(holed)), atol=1e-3
    )
    full = model.impute(holed)
    np.testing.assert_array_equal(full[~np.isnan(holed)], rows[~np.isnan(holed)])
    assert np.mean(full == rows) > 0.9
