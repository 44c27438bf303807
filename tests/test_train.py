"""The loop: which rows a step sees, and what may and may not change the result. Trainings are in `training.RUNS`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import training
from helpers import some
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Array
from training import (
    ROWS,
    RUNS,
    STEP,
    Counted,
    Distance,
    bits,
    distance,
    halves,
    last,
    mapped,
    part,
    same,
    source,
    watched,
)

from ravine import train as loop
from ravine._jax import key_words
from ravine.core import Row
from ravine.data import ArraySource
from ravine.gradients import Pathwise
from ravine.objectives import AnalyticELBO
from ravine.recipes.factor_analysis import FactorAnalysis
from ravine.recipes.vae import VAE
from ravine.rules import EM, Best, Descend
from ravine.train import Stage, permutation, positions, train, train_together

TINY: dict[str, Any] = {"latents": 2, "hidden": (4,), "steps": 60, "batch_size": 16}
PIECES = {"one by one": {"chunk": 7, "seconds": 1e-9}, "seven": {"chunk": 7}, "all": {"seconds": 1e9}}


def stage(batch: int | None, ordered: bool = False, steps: int = 9) -> Stage:
    return Stage(Counted(), steps, batch, ordered)


# Which rows.


@pytest.mark.parametrize(("rows", "batch"), [(23, 4), (23, 23), (5, 8), (1, 3), (7, 1), (6, 100)])
def test_every_epoch_is_a_permutation(rows, batch, key):
    count = -(-5 * rows // batch)
    epochs = positions(stage(batch), rows, key, 0, count).ravel()[: 5 * rows].reshape(5, rows)
    assert all(np.array_equal(np.sort(epoch), np.arange(rows)) for epoch in epochs)
    assert rows < 6 or len({epoch.tobytes() for epoch in epochs}) == 5


@given(st.integers(1, 40), st.integers(1, 50), st.booleans(), st.lists(st.integers(1, 9), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_positions_do_not_depend_on_the_pieces(rows, batch, ordered, counts):
    key, own = jr.key(3), stage(batch, ordered)
    whole = positions(own, rows, key, 0, sum(counts))
    starts = np.cumsum([0, *counts[:-1]]).tolist()
    pieces = [positions(own, rows, key, start, count) for start, count in zip(starts, counts, strict=True)]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert whole.shape == (sum(counts), batch)
    assert whole.min() >= -1 and whole.max() < rows and (ordered or whole.min() >= 0)


def test_the_order_is_a_function_of_key_and_epoch_alone():
    words = [tuple(int(w) for w in key_words(jr.key(seed))) for seed in (1, 2)]
    orders = {(w, epoch): permutation(w, epoch, 50).tobytes() for w in words for epoch in (0, 1, 7)}
    assert len(set(orders.values())) == 6
    permutation.cache_clear()
    assert all(permutation(w, epoch, 50).tobytes() == order for (w, epoch), order in reversed(orders.items()))


@pytest.mark.parametrize(("rows", "batch"), [(23, 4), (24, 4), (23, 50), (1, 1)])
def test_ordered_passes_pad_only_the_end(rows, batch, key):
    passes = -(-rows // batch)
    places = positions(stage(batch, ordered=True), rows, key, passes, 2 * passes).reshape(2, passes * batch)
    padding = np.full(passes * batch - rows, -1)
    assert np.array_equal(places, np.tile(np.concatenate([np.arange(rows), padding]), (2, 1)))


KEPT = np.setdiff1d(np.arange(ROWS), [0, 4, 11, 12, 22])
SOURCES = {
    "array": (lambda path: source(), np.arange(ROWS)),
    "mapped": (mapped, np.arange(ROWS)),
    "part-of-array": (lambda path: part(source()), KEPT),
    "part-of-mapped": (lambda path: part(mapped(path)), KEPT),
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(("batch", "ordered"), [(4, False), (50, False), (4, True), (50, True), (None, False)])
def test_every_row_has_its_turn(name, batch, ordered, tmp_path):
    """Counted where a rule sees them: after whole passes every row weighs the same, what is not in the part nothing."""
    make, kept = SOURCES[name]
    if batch is None and "mapped" in name:
        with pytest.raises(ValueError, match="batch"):
            list(train(jnp.zeros(ROWS), [stage(None)], make(tmp_path / "x.npy"), key=jr.key(0)))
        return
    rows = len(kept)
    steps = 3 if batch is None else 3 * -(-rows // batch) if ordered else rows  # batch passes without order
    *_, chunk = train(jnp.zeros(64), [stage(batch, ordered, steps)], make(tmp_path / "x.npy"), key=jr.key(0), chunk=5)
    expected = np.zeros(64)
    expected[kept] = batch if batch is not None and not ordered else 3
    assert np.array_equal(chunk.state.model, expected)


def test_padding_keeps_sample_weights(tmp_path):
    weight = np.linspace(0.5, 2, ROWS).astype("float32")
    for data in (source(weight=weight), mapped(tmp_path / "x.npy", weight=weight)):
        *_, chunk = train(jnp.zeros(ROWS), [stage(4, True, 12)], data, key=jr.key(0))
        assert np.allclose(chunk.state.model, 2 * weight)


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_a_mapped_file_gives_the_same_bits(holes, ordered, tmp_path):
    weight = np.linspace(0.5, 2, ROWS).astype("float32") if holes else None
    run = training.one(lambda: STEP, 50, 4, ordered=ordered)
    assert same(last(run, source(holes, weight)), last(run, mapped(tmp_path / "x.npy", holes, weight)))


# What may not change the result.


BRIEF = {"adam", "em", "em-online", "best-stops", "then-em", "nested"}  # in every run of the tests


def brief(names):
    """The runs by name, those beyond `BRIEF` marked slow."""
    marked = some(names, *BRIEF)
    return pytest.mark.parametrize("name", marked)


@brief(RUNS)
def test_pieces_do_not_change_a_bit(name):
    run, data = RUNS[name], source()
    ends = {pieces: last(run, data, **options) for pieces, options in PIECES.items()}
    assert len({tuple(bits(end.model)) for end in ends.values()}) == 1
    assert all(int(end.stage) == len(run.stages()) for end in ends.values())
    assert not same(ends["all"].model, last(run, data, seed=1).model) or name.startswith("em")
    assert np.isfinite(jax.flatten_util.ravel_pytree(eqx.filter(ends["all"].model, eqx.is_array))[0]).all()


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_from_any_of_its_states(name):
    run, data = RUNS[name], source()
    chunks = list(train(run.model(), run.stages(), data, key=jr.key(0), chunk=7))
    for chunk in chunks[:-1]:
        *_, end = train(None, run.stages(), data, key=jr.key(9), chunk=7, state=chunk.state)
        assert same(end.state, chunks[-1].state)
    assert list(train(None, run.stages(), data, key=jr.key(0), state=chunks[-1].state)) == []


def test_chunks_add_up():
    run = training.one(lambda: STEP, 33)
    chunks = list(train(run.model(), run.stages(), source(), key=jr.key(0), chunk=7))
    steps = [int(chunk.state.step) for chunk in chunks]
    assert steps == [7, 14, 21, 28, 33]
    assert [len(chunk.metrics["loss"]) for chunk in chunks] == [7, 7, 7, 7, 5]
    *_, whole = train(run.model(), run.stages(), source(), key=jr.key(0), seconds=1e9)
    losses = np.concatenate([chunk.metrics["loss"] for chunk in chunks])
    assert np.array_equal(losses[-len(whole.metrics["loss"]) :], whole.metrics["loss"])


def test_a_stage_with_nothing_left_to_do_is_passed():
    """A run may be taken up again with fewer steps than it has made."""
    long, short = training.one(lambda: STEP, 20), training.one(lambda: STEP, 5)
    chunk = next(iter(train(halves(), long.stages(), source(), key=jr.key(0))))
    *_, end = train(None, short.stages(), source(), key=jr.key(0), state=chunk.state)
    assert same(end.state.model, chunk.state.model) and int(end.state.stage) == 1 and end.metrics == {}


def test_a_rule_that_stopped_ends_its_stage():
    far = Run_em(1e-2, 500)
    chunks = list(train(training.linear(), far, source(), key=jr.key(0), chunk=5))
    assert chunks[-1].metrics["stopped"][-1] and not chunks[-2].metrics["stopped"].any()
    assert int(chunks[-1].state.step) < 500 and int(chunks[-1].state.stage) == 1
    two = [*far, Stage(Counted_bias(), 4, 4)]
    *_, end = train(training.linear(), two, source(), key=jr.key(0), chunk=5)
    assert int(end.state.stage) == 2 and int(end.state.step) == 4


def Run_em(tol: float, steps: int) -> list[Stage]:
    return [Stage(EM(tol), steps)]


def Counted_bias() -> Descend:
    return Descend(Pull())


class Pull(eqx.Module):
    def __call__(self, model: Any, batch: Row, *, key: Array) -> tuple[Array, dict[str, Array]]:
        return jnp.sum(model.bias**2), {}


@pytest.mark.parametrize("name", ["best-stops", "guarded", "em"])
def test_double_precision_follows_the_model(name, x64):
    run = RUNS[name]
    end = last(run, source())
    floats = [leaf for leaf in jax.tree.leaves(end.model) if eqx.is_inexact_array(leaf)]
    assert all(leaf.dtype == jnp.float64 for leaf in floats)


def test_single_precision_stays_single_among_doubles(x64):
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, halves())
    data = ArraySource(Row(jnp.asarray(training.table(), jnp.float32)))
    *_, chunk = train(model, RUNS["best-stops"].stages(), data, key=jr.key(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(chunk.state.model) if eqx.is_inexact_array(leaf))


# Compiled once.


class Traced(eqx.Module):
    """An objective that counts how often it is traced."""

    inner: AnalyticELBO = AnalyticELBO(Pathwise())

    def __call__(self, model: Any, batch: Row, *, key: Array) -> tuple[Array, dict[str, Array]]:
        TRACES.append(batch.x.shape)
        return self.inner(model, batch, key=key)


TRACES: list[tuple[int, ...]] = []


def test_fits_of_one_recipe_trace_once():
    """Other seeds, other floats, other numbers of rows of one bucket, in one chunk or several, with or without end."""
    x = training.table(120)
    VAE(**TINY, objective=Traced(), random_state=0).fit(x)
    traces = len(TRACES)
    assert 0 < traces < 10
    VAE(**TINY, objective=Traced(), random_state=1, rate=3e-3, patience=3).fit(x[:100])
    VAE(**TINY | {"steps": 41}, objective=Traced(AnalyticELBO(Pathwise(), 0.5)), random_state=2).fit(x[:90] + 1)
    assert len(TRACES) == traces


# Several runs at once.

WAYS = ("_side_by_side", "_one_after_another")


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """One of the two ways; the other does the same, so that its time does not matter."""
    monkeypatch.setattr(loop, WAYS[1 - WAYS.index(request.param)], getattr(loop, request.param))
    return request.param


@brief([name for name in RUNS if name not in ("adam", "every", "em-online")])
def test_runs_together_equal_runs_alone(name, way):
    run, data, seeds = RUNS[name], source(), (3, 1, 2)
    models = [run.model() if name.startswith("em") else moved(run.model(), seed) for seed in seeds]
    together = train_together(models, [run.stages()] * 3, [data] * 3, keys=[jr.key(s) for s in seeds])
    for model, seed, state in zip(models, seeds, together, strict=True):
        *_, alone = train(model, run.stages(), data, key=jr.key(seed))
        assert distance(state.model, alone.state.model) < 1e-5
        assert int(state.stage) == len(run.stages()) and same(state.key, jr.key(seed))


@pytest.mark.parametrize("kind", ["mapped", "parts", "parts-in-passes"])
def test_runs_together_may_see_different_rows(kind, tmp_path):
    """A file is read by each run in its own order, and each run may hold out rows of its own."""
    whole = mapped(tmp_path / "x.npy") if kind == "mapped" else source()
    kept = [np.sort(np.random.default_rng(seed).permutation(ROWS)[:17]) for seed in range(2)]
    data = [loop.Subset(whole, places) for places in kept]
    stages = [Stage(STEP, 33, None if kind == "parts-in-passes" else 4)]
    together = train_together([halves()] * 2, [stages] * 2, data, keys=[jr.key(0), jr.key(1)])
    for seed, state in enumerate(together):
        *_, alone = train(halves(), stages, data[seed], key=jr.key(seed))
        assert distance(state.model, alone.state.model) < 1e-5


def moved(model: Any, seed: int) -> Any:
    return eqx.tree_at(lambda m: m.p, model, jr.normal(jr.key(seed), model.p.shape))


@pytest.mark.parametrize(
    "recipe", [VAE(**TINY, objective=Traced()), FactorAnalysis(latents=1, iterations=40)], ids=["vae", "em"]
)
def test_seeds_together_equal_seeds_alone(recipe, way):
    x, seeds = training.table(120), [1, 2, 3]
    together = recipe.fit_seeds(x, seeds)
    for seed, fitted in zip(seeds, together, strict=True):
        alone = type(recipe)(**recipe.get_params(deep=False) | {"random_state": seed}).fit(x)
        assert distance(fitted.model_, alone.model_) < 1e-5
        assert fitted.seed_ == alone.seed_ and fitted.complete_
    assert recipe.validation == 0 or distance(together[0].model_, together[1].model_) > 1e-2


def names(jaxpr: Any, inside: tuple[str, ...] = ()) -> Any:
    """Every primitive of a traced function, and the primitives it is part of."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name, inside
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            if hasattr(inner, "eqns"):
                yield from names(getattr(inner, "jaxpr", inner), (*inside, equation.primitive.name))


class Marked(eqx.Module):
    """An objective with a primitive that nothing else uses."""

    def __call__(self, model: Any, batch: Row, *, key: Array) -> tuple[Array, dict[str, Array]]:
        return jnp.mean(jnp.arctan2(model.p[None, :], batch.x)), {}


@pytest.mark.parametrize("runs", [1, 2])
def test_held_out_rows_are_looked_at_only_when_due(runs, monkeypatch):
    """Side by side too: a condition that differed between the runs would evaluate both of its branches."""
    seen, advance = [], getattr(loop, "_advance" if runs == 1 else "_advance_together")

    def traced(*arguments: Any) -> Any:
        seen.extend(names(eqx.filter_make_jaxpr(getattr(advance, "__wrapped__", advance))(*arguments)[0].jaxpr))
        return advance(*arguments)

    rules = [Best(STEP, Marked(), Row(jnp.full((3, 4), 0.1 * i)), jnp.array(5), jnp.array(3)) for i in range(2)]
    monkeypatch.setattr(loop, "_advance" if runs == 1 else "_advance_together", traced)
    if runs == 1:
        list(train(halves(), [Stage(rules[0], 10, 4)], source(), key=jr.key(0)))
    else:
        monkeypatch.setattr(loop, "_one_after_another", loop._side_by_side)
        stages = [[Stage(rule, 10, 4)] for rule in rules]
        train_together([halves()] * 2, stages, [source()] * 2, keys=[jr.key(0), jr.key(1)])
    marks = [inside for name, inside in seen if name == "atan2"]
    assert marks and all("cond" in inside for inside in marks)


# Several devices.

DEVICES = """
import sys
sys.path.insert(0, {tests!r})
import jax, numpy as np, test_train
assert jax.device_count() == 4
np.savez({out!r}, **test_train.on_these_devices())
"""
BATCHES = ((48,), (50,), (7,), (48, 50), (50, 48), (None,))


class Shown(eqx.Module):
    """A distance that tells how the batch is spread over devices when it is compiled."""

    inner: Distance = Distance()

    def __call__(self, model: Any, batch: Row, *, key: Array) -> tuple[Array, dict[str, Array]]:
        jax.debug.inspect_array_sharding(
            batch.x, callback=lambda s: SHARDS.append(len(set(map(str, indices(s, batch)))))
        )
        return self.inner(model, batch, key=key)


SHARDS: list[int] = []


def indices(sharding: Any, batch: Row) -> list[Any]:
    return list(sharding.devices_indices_map(batch.x.shape).values())


def on_these_devices() -> dict[str, np.ndarray]:
    """Parameters after 50 steps, and in how many shares the batches were, for each entry of BATCHES."""
    data, ends = ArraySource(Row(jnp.asarray(training.table(200)))), {}
    for sizes in BATCHES:
        SHARDS.clear()
        jax.clear_caches()  # what is compiled already would not tell
        stages = [Stage(Descend(Shown(), training.ADAM), 50, size) for size in sizes]
        *_, chunk = train(halves(), stages, data, key=jr.key(0))
        ends[f"{sizes} model"] = np.concatenate([chunk.state.model.p, chunk.state.model.q])
        ends[f"{sizes} shares"] = np.unique(SHARDS)
    seeds = [jr.key(seed) for seed in range(2)]
    together = train_together([halves()] * 2, [[Stage(watched(STEP), 50, 48)]] * 2, [data] * 2, keys=seeds)
    return ends | {"together": np.stack([state.model.p for state in together])}


@pytest.mark.slow
def test_four_devices_share_the_rows_of_a_batch(tmp_path, monkeypatch):
    out = tmp_path / "four.npz"
    script = DEVICES.format(tests=str(Path(__file__).parent), out=str(out))
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4")
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=300)
    got, expected = np.load(out), on_these_devices()
    for name in expected:
        if "shares" not in name:
            assert np.max(np.abs(got[name] - expected[name])) < 1e-5 * np.max(np.abs(expected[name])), name
    shares = {sizes: got[f"{sizes} shares"].tolist() for sizes in BATCHES}
    assert shares[(48,)] == [4] and shares[(50,)] == [2] and shares[(7,)] == [1]
    assert shares[(48, 50)] == shares[(50, 48)] == [2, 4]
