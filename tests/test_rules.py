"""Rules against loops written by hand: descent, alternation, early stopping, and steps that are undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import LIMIT
from jaxtyping import Array
from training import ADAM, STEP, Broken, Distance, Halves, Now, distance, halves, same, schema, table

from ravine._tree import AbstractSchedule, Cosine, Fixed, Linear, Part, Power, as_arrays, strong
from ravine.core import AbstractRule, Row
from ravine.data import Binarise, rows
from ravine.rules import Best, Descend, Every, Guarded, InTurn, Optimiser, Redrawn, Repeat, gradient_descent
from ravine.rules.watch import LEAST_SHARE


def batch(seed: int = 0, count: int = 6) -> Row:
    return rows(table(count, seed), schema(), dtype=np.dtype(jax.dtypes.canonicalize_dtype(float)))


class Step(NamedTuple):
    """What a rule left behind after one step."""

    model: Any
    state: Any
    metrics: dict[str, Array]


def walk(rule: AbstractRule, model: Any, steps: int, first: int = 0) -> list[Step]:
    """A rule step by step, each with a batch and a key of its own."""
    rule, model = as_arrays(rule), strong(as_arrays(model))
    state = strong(rule.init(model, batch(), key=jr.key(1)))
    arrays, static = eqx.partition((rule, model, state), eqx.is_array)

    @jax.jit
    def go(arrays, batch, key, step):
        rule, model, state = eqx.combine(arrays, static)
        model, state, metrics = rule.step(model, state, batch, key=key, step=step)
        return eqx.filter((rule, model, state), eqx.is_array), metrics

    path = []
    for step in range(first, first + steps):
        arrays, metrics = go(arrays, batch(step), jr.key(step), jnp.asarray(step))
        _, model, state = eqx.combine(arrays, static)
        path.append(Step(model, state, metrics))
    return path


# Descent.


class Descent(NamedTuple):
    """A rule, and the optimiser and loss of Optax that it should equal."""

    rule: Callable[[], Descend]
    optimiser: Callable[[], optax.GradientTransformation]
    scale: Callable[[int], float] = lambda step: 1.0


def clipped(optimiser: Callable[[], optax.GradientTransformation]) -> Callable[[], optax.GradientTransformation]:
    return lambda: optax.chain(optax.clip_by_global_norm(0.5), optimiser())


DESCENTS = {
    "sgd": Descent(lambda: Descend(Distance(), Optimiser(optax.sgd, (0.1,))), lambda: optax.sgd(0.1)),
    "momentum": Descent(
        lambda: Descend(Distance(), Optimiser(optax.sgd, (0.1, 0.9, True))), lambda: optax.sgd(0.1, 0.9, True)
    ),
    "plain": Descent(lambda: Descend(Distance(), gradient_descent(0.1)), lambda: optax.sgd(0.1)),
    "with momentum": Descent(lambda: Descend(Distance(), gradient_descent(0.1, 0.9)), lambda: optax.sgd(0.1, 0.9)),
    "rising momentum": Descent(
        lambda: Descend(Distance(), gradient_descent(0.1, Linear(0.0, 0.9, 6.0))),
        lambda: optax.inject_hyperparams(optax.sgd)(0.1, optax.linear_schedule(0.0, 0.9, 6)),
    ),
    "linear": Descent(
        lambda: Descend(Distance(), Optimiser(optax.adam, (Linear(0.1, 0.01, 6.0),))),
        lambda: optax.adam(optax.linear_schedule(0.1, 0.01, 6)),
    ),
    "cosine": Descent(
        lambda: Descend(Distance(), Optimiser(optax.adamw, (Cosine(0.1, 8.0, 0.02),))),
        lambda: optax.adamw(optax.cosine_decay_schedule(0.1, 8, 0.2)),
    ),
    "clipped": Descent(
        lambda: Descend(Distance(), Optimiser(optax.sgd, (0.1,), clip=0.5)), clipped(lambda: optax.sgd(0.1))
    ),
    "objective": Descent(
        lambda: Descend(Distance(Power(-0.5, 2.0)), ADAM), lambda: optax.adam(0.05), lambda step: 2 * (step + 1) ** -0.5
    ),
}


@pytest.mark.parametrize("name", DESCENTS)
def test_descent_equals_a_loop_of_optax(name):
    descent, model = DESCENTS[name], halves()
    optimiser, free = descent.optimiser(), {"p": model.p, "q": model.q}
    state = optimiser.init(free)

    @jax.jit
    def loss(free, batch, key, scale):
        return Distance(scale)(Halves(**free, prior=model.prior, steps=model.steps), batch, key=key)[0]

    for step, got in enumerate(walk(descent.rule(), model, 10)):
        value, gradient = jax.value_and_grad(loss)(free, batch(step), jr.key(step), descent.scale(step))
        updates, state = optimiser.update(gradient, state, free)
        free = optax.apply_updates(free, updates)
        assert distance((got.model.p, got.model.q), (free["p"], free["q"])) < 1e-6
        assert np.isclose(got.metrics["loss"], value, rtol=1e-5)
        assert np.isclose(got.metrics["distance"], value, rtol=1e-5)
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradient.values()))
        assert np.isclose(got.metrics["gradient_norm"], norm, rtol=1e-5)


@pytest.mark.parametrize("name", ["p", "q"])
def test_only_the_selected_part_moves(name):
    """Weight decay too leaves the rest alone, to the bit."""
    start, rule = halves(), Descend(Distance(), Optimiser(optax.adamw, (0.1,)), Part(name))
    end = walk(rule, start, 5)[-1]
    other = {"p": "q", "q": "p"}[name]
    assert not np.any(np.asarray(getattr(end.model, name)) == np.asarray(getattr(start, name)))
    assert same(getattr(end.model, other), getattr(start, other))
    moments = [leaf for leaf in jax.tree.leaves(end.state) if jnp.ndim(leaf) == 1]
    assert len(moments) == 2


def test_what_is_fixed_or_no_real_number_stays():
    start = halves()
    end = walk(Descend(Distance(), Optimiser(optax.adamw, (0.1,))), start, 5)[-1].model
    assert same(end.prior, start.prior) and same(end.steps, start.steps) and end.name is start.name
    assert not same(end.p, start.p) and not same(end.q, start.q)


# Rules made of rules.


class Add(AbstractRule):
    """Adds one, the key's draw and the batch's mean to p; counts its steps."""

    by: float = 1.0

    def init(self, model: Any, batch: Row, *, key: Array) -> Array:
        return jnp.array(0)

    def step(self, model: Any, state: Array, batch: Row, *, key: Array, step: Array) -> Any:
        change = self.by + jr.normal(key) + jnp.mean(batch.x) + step
        return eqx.tree_at(lambda m: m.p, model, model.p + change), state + 1, {"p": model.p[0], "by": jnp.float32(1)}


class Scale(AbstractRule):
    """Multiplies p by two."""

    def init(self, model: Any, batch: Row, *, key: Array) -> tuple[()]:
        return ()

    def step(self, model: Any, state: tuple[()], batch: Row, *, key: Array, step: Array) -> Any:
        return eqx.tree_at(lambda m: m.p, model, 2 * model.p), state, {"p": model.p[0]}


def added(p: Array, key: Array, step: int, by: float = 1.0) -> Array:
    return p + by + jr.normal(key) + jnp.mean(batch(step).x) + step


def test_in_turn_on_one_batch():
    path, p = walk(InTurn((Add(), Scale(), Add(-3.0))), halves(), 4), halves().p
    for step, got in enumerate(path):
        keys = jr.split(jr.key(step), 3)
        middle = added(p, keys[0], step)
        assert np.allclose(got.metrics["0.p"], p[0]) and np.allclose(got.metrics["1.p"], middle[0], rtol=1e-5)
        p = added(2 * middle, keys[2], step, -3.0)
        assert np.allclose(got.model.p, p, rtol=1e-5)
        assert set(got.metrics) == {"0.p", "0.by", "1.p", "2.p", "2.by"}
    assert [int(path[-1].state[i]) for i in (0, 2)] == [4, 4]


def test_repeat_with_fresh_keys_on_one_batch():
    path, p = walk(Repeat(Add(), 3), halves(), 4), halves().p
    for step, got in enumerate(path):
        for key in jr.split(jr.key(step), 3):
            before, p = p, added(p, key, step)
        assert np.allclose(got.model.p, p, rtol=1e-5)
        assert np.allclose(got.metrics["p"], before[0], rtol=1e-5)
    assert int(path[-1].state) == 12


@pytest.mark.parametrize("first", [0, 2])
def test_every_third_step(first):
    path, p = walk(Every(3, Add()), halves(), 8, first), halves().p
    seen = 0.0
    for step, got in enumerate(path, first):
        if step % 3 == 0:
            seen, p = p[0], added(p, jr.key(step), step)
        assert np.allclose(got.model.p, p, rtol=1e-5)
        assert np.allclose(got.metrics["p"], seen, rtol=1e-5)
    assert int(path[-1].state[0]) == sum(step % 3 == 0 for step in range(first, first + 8))


def test_every_rule_keeps_to_the_bit_what_it_does_not_touch():
    path = walk(Every(3, STEP), halves(), 4)
    assert same(path[2].model, path[0].model) and same(path[2].state, path[0].state)
    assert not same(path[3].model, path[2].model)


class Keep(AbstractRule):
    """Shows the batch."""

    def init(self, model: Any, batch: Row, *, key: Array) -> Array:
        return batch.x

    def step(self, model: Any, state: Array, batch: Row, *, key: Array, step: Array) -> Any:
        return model, batch.x, {}


def test_redrawn_at_every_step():
    grey = Row(jnp.full((40, 4), 0.3))
    rule = Redrawn(Binarise(), Keep())
    step = jax.jit(lambda i: rule.step((), grey.x, grey, key=jr.key(i), step=i)[1])
    drawn = np.stack([rule.init((), grey, key=jr.key(99)), *(step(i) for i in range(30))])
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert len({cells.tobytes() for cells in drawn}) == len(drawn)
    assert len({row.tobytes() for row in drawn[1].T}) == 4
    error = np.sqrt(0.3 * 0.7 / drawn.size)
    assert abs(drawn.mean() - 0.3) < LIMIT * error


# Early stopping.


class Follow(AbstractRule):
    """A model that is, after step i, number i of a script."""

    script: Array

    def init(self, model: Any, batch: Row, *, key: Array) -> tuple[()]:
        return ()

    def step(self, model: Any, state: tuple[()], batch: Row, *, key: Array, step: Array) -> Any:
        return self.script[step], state, {"at": step}


class Value(eqx.Module):
    """The model itself is the loss; the key adds nothing unless it changes."""

    def __call__(self, model: Array, batch: Row, *, key: Array) -> tuple[Array, dict[str, Array]]:
        return model + 100 * jr.normal(key), {}


NAN, INF = float("nan"), float("inf")
SCRIPTS = {
    "falls": [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, -1, -2],
    "rises": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
    "turns": [5, 3, 4, 4, 4, 2, 6, 1, 7, 7, 0, 7],
    "broken": [NAN, 5, NAN, INF, 4, NAN, NAN, NAN, 3, NAN, 2, 1],
    "never": [NAN] * 6 + [INF] * 6,
    "level": [3] * 12,
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("patience", [1, 2, 50])
def test_best_returns_the_best_so_far(name, every, patience):
    script = SCRIPTS[name]
    path = best_path(jnp.asarray(script, jnp.float32), jnp.array(every), jnp.array(patience))
    shift = 100 * float(jr.normal(jr.key(1)))
    best, lowest, waited, stopped = 99.0, INF, 0, False
    for step, value in enumerate(script):
        due = (step + 1) % every == 0
        loss = value + shift if np.isfinite(value) else INF
        if not stopped and due and loss < lowest:
            best, lowest, waited = value, loss, 0
        else:
            if not stopped and due and lowest == INF:
                best = value
            waited += due
        assert np.array_equal(path["model"][step], np.float32(best), equal_nan=True), step
        assert np.isclose(path["held_out"][step], lowest, rtol=1e-5)
        stopped = stopped or waited >= patience
        assert path["stopped"][step] == stopped
        assert path["at"][step] == step


@jax.jit
def best_path(script: Array, every: Array, patience: Array) -> dict[str, Array]:
    """The model that `Best` shows, and its metrics, after each step of a script."""
    rule = Best(Follow(script), Value(), batch(), every, patience)
    model = jnp.array(99.0)
    state, path = rule.init(model, batch(), key=jr.key(1)), []

    def go(carry: Any, step: Array) -> Any:
        model, state, metrics = rule.step(*carry, batch(), key=jr.key(7), step=step)
        return (model, state), metrics | {"model": model}

    _, path = jax.lax.scan(go, (model, state), jnp.arange(script.size))
    return path


def test_best_measures_with_the_schedule_of_each_step_unless_resolved():
    """Why `fitting` resolves: a yardstick that grows calls the first model the best."""
    moving = Best(Add(), Distance(Linear(0.0, 1.0, 4.0)), batch(), jnp.array(1), jnp.array(9))
    assert same(walk(moving, halves(), 4)[-1].model, walk(moving, halves(), 1)[-1].model)


# Steps that are undone.


class Overflow(AbstractSchedule):
    """A rate too large for a number at steps 2 and 3."""

    def __call__(self, step: Array) -> Array:
        return jnp.where((step == 2) | (step == 3), jnp.inf, 0.05)


class Edge(eqx.Module):
    """A finite loss with a gradient that is not: the square root at 0."""

    step: AbstractSchedule | Array = Now()

    def __call__(self, model: Halves, batch: Row, *, key: Array) -> tuple[Array, dict[str, Array]]:
        at = jnp.where((self.step == 2) | (self.step == 3), 0.0, 1.0)
        return Distance()(model, batch, key=key)[0] + jnp.sqrt(at * jnp.sum(model.p**2)), {}


class Bad(eqx.Module):
    """A loss, or one of several numbers beside it, that is not finite at steps 2 and 3."""

    what: float
    beside: bool = eqx.field(static=True, default=False)
    step: AbstractSchedule | Array = Now()

    def __call__(self, model: Halves, batch: Row, *, key: Array) -> tuple[Array, dict[str, Array]]:
        loss = Distance()(model, batch, key=key)[0]
        spoilt = jnp.where((self.step == 2) | (self.step == 3), self.what, 0.0)
        return (loss, {"cells": loss + spoilt * jnp.arange(1.0, 4.0)}) if self.beside else (loss + spoilt, {})


class Tick(AbstractRule):
    """Counts its steps in the model, beside another rule."""

    rule: AbstractRule

    def init(self, model: Any, batch: Row, *, key: Array) -> Any:
        return self.rule.init(model, batch, key=key)

    def step(self, model: Any, state: Any, batch: Row, *, key: Array, step: Array) -> Any:
        model, state, metrics = self.rule.step(model, state, batch, key=key, step=step)
        return eqx.tree_at(lambda m: m.steps, model, model.steps + 1), state, metrics


ACCIDENTS = {
    "nan": Descend(Bad(NAN), ADAM),
    "inf": Descend(Bad(INF), ADAM),
    "minus-inf": Descend(Bad(-INF), ADAM),
    "metric": Descend(Bad(NAN, beside=True), ADAM),
    "gradient": Descend(Edge(), ADAM),
    "rate": Descend(Distance(), Optimiser(optax.adam, (Overflow(),))),
    "counted": Tick(Descend(Bad(NAN), ADAM)),
    "in-turn": InTurn((Descend(Distance(), ADAM, Part("p")), Descend(Bad(NAN), ADAM, Part("q")))),
}


@pytest.mark.parametrize("name", ACCIDENTS)
def test_a_bad_step_is_undone(name):
    path = walk(Guarded(ACCIDENTS[name]), halves(), 8)
    for step in (2, 3):
        assert same(path[step].model, path[1].model)
        assert same(path[step].state.inner, path[1].state.inner)
    assert [int(got.metrics["undone"]) for got in path] == [0, 0, 1, 2, 2, 2, 2, 2]
    shares = [1, 1, 1 / 2, 1 / 4, 1.02 / 4, 1.02**2 / 4, 1.02**3 / 4, 1.02**4 / 4]
    assert np.allclose([got.state.share for got in path], shares, rtol=1e-5)
    assert not same(path[4].model, path[3].model)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(path[-1]) if eqx.is_inexact_array(leaf))


def test_without_accidents_the_guard_changes_nothing():
    """No more than the rounding that another program may do in another order."""
    guarded, plain = walk(Guarded(STEP), halves(), 5), walk(STEP, halves(), 5)
    for a, b in zip(guarded, plain, strict=True):
        assert distance((a.model, a.state.inner), (b.model, b.state)) < 1e-6
    assert float(guarded[-1].state.share) == 1


def test_after_an_accident_a_share_of_each_step_is_taken():
    sgd = Optimiser(optax.sgd, (0.1,))
    path = walk(Guarded(Descend(Bad(NAN), sgd), growth=1.5), halves(), 9)
    shares = [float(got.state.share) for got in path]
    assert np.allclose(shares, [1, 1, 1 / 2, 1 / 4, 3 / 8, 9 / 16, 27 / 32, 1, 1])
    for step in range(4, 9):
        before = path[step - 1].model
        gradient = jax.grad(lambda p, m=before, i=step: Distance()(with_p(m, p), batch(i), key=jr.key(i))[0])(before.p)
        assert np.allclose(path[step].model.p, before.p - 0.1 * shares[step - 1] * gradient, rtol=1e-5, atol=1e-7)


def with_p(model: Halves, p: Array) -> Halves:
    return eqx.tree_at(lambda m: m.p, model, p)


class Unbounded(eqx.Module):
    """Parameters between bounds that may be infinite."""

    p: Array
    q: Array
    prior: Fixed
    steps: Array
    bound: Array


def test_infinite_numbers_of_a_model_survive_part_of_a_step():
    start = halves()
    start = Unbounded(start.p, start.q, start.prior, start.steps, jnp.array([-INF, INF]))
    path = walk(Guarded(Descend(Bad(NAN), ADAM)), start, 6)
    assert all(same(got.model.bound, start.bound) for got in path)
    assert int(path[-1].metrics["undone"]) == 2


@pytest.mark.parametrize("what", [NAN, INF, -INF])
def test_a_hopeless_objective_leaves_the_start(what):
    class Hopeless(eqx.Module):
        def __call__(self, model: Halves, batch: Row, *, key: Array) -> tuple[Array, dict[str, Array]]:
            return what * jnp.sum(model.p + model.q + 9), {}

    path = walk(Guarded(Descend(Hopeless(), ADAM)), halves(), 20)
    assert all(same(got.model, halves()) for got in path)
    assert int(path[-1].metrics["undone"]) == 20
    assert float(path[-1].state.share) == LEAST_SHARE


def test_a_long_bad_stretch_is_survived():
    """The share of a step that is taken does not fall to zero, where it could not grow."""

    class Late(eqx.Module):
        step: AbstractSchedule | Array = Now()

        def __call__(self, model: Halves, batch: Row, *, key: Array) -> tuple[Array, dict[str, Array]]:
            return jnp.where(self.step < 200, jnp.nan, Distance()(model, batch, key=key)[0]), {}

    path = walk(Guarded(Descend(Late(), ADAM), growth=1.1), halves(), 300)
    assert float(path[199].state.share) == LEAST_SHARE and float(path[-1].state.share) == 1
    assert same(path[199].model, halves()) and distance(path[-1].model.p, halves().p) > 0.1


def test_one_step_of_three_is_bad_and_learning_goes_on():
    path = walk(Guarded(Descend(Broken(), ADAM)), halves(), 60)
    losses = [float(got.metrics["distance"]) for step, got in enumerate(path) if step % 3 != 1]
    assert int(path[-1].metrics["undone"]) == 20
    assert np.mean(losses[-10:]) < np.mean(losses[:3])
