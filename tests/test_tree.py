"""Selecting, fixing, scheduling and hashing parts of a tree."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import CELLS, MODELS, affine

from ravine._tree import (
    Cosine,
    Decay,
    Fixed,
    Layer,
    Linear,
    Part,
    Power,
    Staircase,
    Whole,
    all_finite,
    as_arrays,
    choose,
    number,
    parameter_count,
    resolve,
    row_keys,
    strong,
    trainable,
    unfix,
)
from ravine.dist import Bernoulli, Gaussian
from ravine.gradients import Enumerate
from ravine.objectives import ELBO


class Stack(eqx.Module):
    layers: tuple
    rate: float = 0.5
    nothing: Fixed | None = None


def stack() -> Stack:
    return Stack((affine(2, 2, 0), affine(2, 3, 1), Fixed(affine(3, 1, 2))))


# Selecting.

SELECTIONS = {
    "whole": (Whole(), lambda model: model),
    "part": (Part("p"), lambda model: model.p),
    "deep": (Part("q.conditional.net.bias"), lambda model: model.q.conditional.net.bias),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_part_is_got_and_set_and_the_rest_is_left_alone(name):
    part, where = SELECTIONS[name]
    model = MODELS["bits"]()
    assert part.get(model) is where(model)
    assert eqx.tree_equal(part.set(model, part.get(model)), model)
    moved = jax.tree.map(lambda leaf: leaf + 1, part.get(model))
    assert eqx.tree_equal(part.get(part.set(model, moved)), moved)
    assert eqx.tree_equal(part.set(part.set(model, moved), where(model)), model)


def test_an_empty_part_can_be_filled_and_a_layer_replaced():
    filled = Part("nothing").set(stack(), Fixed(jnp.ones(2)))
    assert eqx.tree_equal(filled.nothing, Fixed(jnp.ones(2)))
    assert Layer(1).get(stack()).bias.shape == (3,)
    changed = Layer(0).set(stack(), affine(2, 2, 9))
    assert eqx.tree_equal(changed.layers[0], affine(2, 2, 9))
    assert eqx.tree_equal(changed.layers[1:], stack().layers[1:])


def test_selections_compare_by_value():
    assert Part("p") == Part("p") != Part("q")
    assert hash(Part("p.net")) == hash(Part("p.net"))
    assert Layer(1) == Layer(1) != Layer(2)


def test_what_is_fixed_is_not_trained():
    parameters, rest = trainable(stack())
    assert [leaf.shape for leaf in jax.tree.leaves(parameters)] == [(2, 2), (2,), (3, 2), (3,)]
    assert eqx.tree_equal(eqx.combine(parameters, rest), stack())
    assert parameter_count(stack()) == 4 + 2 + 6 + 3
    assert parameter_count(Fixed(stack())) == 0
    assert parameter_count({"whole": jnp.arange(3), "flag": jnp.array(True), "key": jr.key(0)}) == 0
    assert eqx.tree_equal(unfix(Fixed(3)), 3)
    assert unfix("as it is") == "as it is"


def test_a_fixed_prior_has_no_gradient_and_a_learned_one_has():
    def trained(prior):
        model = eqx.tree_at(lambda m: m.p.prior_law, MODELS["bits"](), prior)
        return parameter_count(model.p)

    assert trained(Bernoulli(jnp.zeros(3))) == trained(Fixed(Bernoulli(jnp.zeros(3)))) + 3


# Numbers that change with the step.

SCHEDULES = {
    "linear": (Linear(2.0, 0.0, 10.0), {0: 2.0, 5: 1.0, 10: 0.0, 1000: 0.0}),
    "decay": (Decay(0.1, floor=0.3, start=2.0), {0: 2.0, 10: 2.0 * np.exp(-1.0), 100: 0.3}),
    "power": (Power(-0.5, start=3.0), {0: 3.0, 3: 1.5, 99: 0.3}),
    "cosine": (Cosine(1.0, 8.0, stop=0.2), {0: 1.0, 2: 0.2 + 0.8 * (2 + np.sqrt(2)) / 4, 4: 0.6, 8: 0.2, 99: 0.2}),
    "staircase": (
        Staircase(1.0, 0.5, unit=2.0),
        {0: 1.0, 1: 1.0, 2: 0.5, 7: 0.5, 8: 0.25, 25: 0.25, 26: 0.125, 79: 0.125, 80: 0.0625},
    ),
}


@pytest.mark.parametrize("wide", [False, True], ids=["x32", "x64"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_has_the_values_of_its_formula(name, wide):
    schedule, values = SCHEDULES[name]
    with jax.enable_x64(wide):
        got = jax.jit(jax.vmap(schedule))(jnp.asarray(list(values)))
    np.testing.assert_allclose(got, list(values.values()), rtol=1e-6, atol=1e-7)
    assert got.dtype == (np.float64 if wide else np.float32)


def test_the_stairs_of_the_paper_on_restricted_machines_hold_for_ten_boundaries():
    steps = np.concatenate([[(3**i - 1) // 2 - 1, (3**i - 1) // 2] for i in range(1, 11)])
    got = jax.jit(jax.vmap(Staircase(1.0, 0.5, 1.0)))(jnp.asarray(steps))
    np.testing.assert_allclose(-np.log2(got), np.repeat(np.arange(11), 2)[1:-1], atol=1e-6)


def test_resolving_replaces_schedules_wherever_they_are():
    tree = {"a": (Linear(0.0, 1.0, 4.0), 7), "b": ELBO(Enumerate(), Power(-1.0)), "c": jnp.ones(2)}
    here = resolve(tree, jnp.array(1))
    assert (float(here["a"][0]), here["a"][1], float(here["b"].beta)) == (0.25, 7, 0.5)
    assert here["c"] is tree["c"]


def test_a_schedule_is_a_leaf_of_what_is_compiled_so_another_one_does_not_trace_again():
    traced = []

    @jax.jit
    def value(schedule, step):
        traced.append(1)
        return schedule(step)

    values = [value(as_arrays(Linear(0.0, stop, 10.0)), jnp.array(5)) for stop in (1.0, 2.0)]
    assert [float(v) for v in values] == [0.5, 1.0]
    assert len(traced) == 1


def test_number_passes_numbers_and_names_a_schedule_that_was_not_resolved():
    assert float(number(0.5)) == float(number(jnp.array(0.5))) == 0.5
    with pytest.raises(TypeError, match="Linear must be resolved at a step first"):
        number(Linear(0.0, 1.0, 10.0))


# Trees of arrays.


def test_floats_become_arrays_and_weak_types_strong():
    tree = as_arrays({"rate": 0.5, "count": 3, "name": "x", "array": jnp.ones(2)})
    assert isinstance(tree["rate"], jax.Array)
    assert (tree["count"], tree["name"]) == (3, "x")
    firm = strong(tree | {"key": jr.key(0), "twice": jnp.asarray(1.0) * 2})
    assert not any(firm[name].weak_type for name in ("rate", "array", "twice"))
    assert firm["rate"].dtype == tree["rate"].dtype
    assert jnp.array_equal(jr.key_data(firm["key"]), jr.key_data(jr.key(0)))


@pytest.mark.parametrize("flag", [True, False])
def test_choosing_takes_every_array_of_one_tree(flag):
    yes, no = (jnp.ones(2), jnp.array(1), jr.key(1), "same"), (jnp.zeros(2), jnp.array(2), jr.key(2), "same")
    got = choose(jnp.array(flag), yes, no)
    expected = yes if flag else no
    assert jnp.array_equal(got[0], expected[0])
    assert got[1] == expected[1] and got[1].dtype == expected[1].dtype
    assert jnp.array_equal(jr.key_data(got[2]), jr.key_data(expected[2]))
    assert got[3] == "same"


@pytest.mark.parametrize("bad, finite", [(0.0, True), (np.nan, False), (np.inf, False), (-np.inf, False)])
def test_all_finite_finds_one_bad_number(bad, finite):
    tree = (jnp.arange(3), jr.key(0), "x", Gaussian(jnp.array([1.0, bad]), jnp.ones(2)))
    assert bool(all_finite(tree)) == finite
    assert bool(all_finite(("no arrays", 1)))


# Keys of rows.

HALF = [jnp.float16, jnp.bfloat16]


@jax.jit
def words(cells):
    return jr.key_data(row_keys(jr.key(0), cells))[:, 0]


def bits_of(words: np.ndarray) -> np.ndarray:
    return np.unpackbits(np.asarray(words, np.uint32).view(np.uint8).reshape(len(words), 4), axis=1)


def test_flipping_any_bit_of_any_cell_gives_an_unrelated_key():
    base = np.random.default_rng(0).normal(size=CELLS).astype(np.float32).view(np.uint32)
    one_bit = np.uint32(1) << np.arange(32, dtype=np.uint32)
    flips = (np.eye(CELLS, dtype=np.uint32)[:, None, :] * one_bit[:, None]).reshape(-1, CELLS)
    rows = np.concatenate([base[None], base ^ flips]).view(np.float32)
    keys = np.asarray(words(jnp.asarray(rows)))
    assert len(set(keys.tolist())) == len(keys)
    changed = bits_of(keys[1:]) != bits_of(keys[:1])
    assert np.all(np.abs(changed.mean(axis=0) - 0.5) < 4.5 * 0.5 / np.sqrt(len(changed)))
    assert changed.sum(axis=1).min() >= 4


def test_swapping_cells_rows_or_blocks_matters_as_it_should():
    x = jnp.array([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [1.0, 2.0, 0.0]])
    keys = words(x)
    assert keys[0] == keys[2] != keys[1]
    assert jnp.array_equal(words(x[::-1]), keys[::-1])
    assert words(x[1:2])[0] == keys[1]
    assert words((x, jnp.ones((3, 1), bool)))[0] != words((x, jnp.zeros((3, 1), bool)))[0]
    assert words(x + 0.0)[0] == keys[0]
    assert jr.key_data(row_keys(jr.key(1), x))[0, 0] != keys[0]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, *HALF], ids=lambda d: d.__name__)
def test_both_zeros_are_one_value_compiled_or_not(dtype):
    with jax.enable_x64(True):
        x = jnp.array([[0.0, 0.3], [-0.0, 0.3], [0.0, 0.7]], dtype)
        for keys in (words(x), jr.key_data(row_keys(jr.key(0), x))[:, 0]):
            assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("dtype", [bool, jnp.uint8, jnp.int16, jnp.int32, jnp.int64], ids=lambda d: d.__name__)
def test_integer_cells_are_told_apart(dtype):
    with jax.enable_x64(True):
        keys = words(jnp.asarray([[0, 1], [1, 0], [1, 1]], dtype))
    assert len(set(np.asarray(keys).tolist())) == 3


def test_large_integers_differ_in_their_upper_half():
    with jax.enable_x64(True):
        keys = words(jnp.asarray([[5], [5 + 2**40]], jnp.int64))
    assert keys[0] != keys[1]
