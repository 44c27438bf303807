"""A table of small trainings, and the parts they are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array

from ravine._tree import AbstractSchedule, Fixed, Linear, Part, Power
from ravine.core import AbstractRule, Row, averaged, weights
from ravine.data import ArraySource, Binarise, MappedSource, Schema, rows
from ravine.models.linear_gaussian import DiagonalNoise, LinearGaussian
from ravine.rules import EM, Best, Descend, Every, Guarded, InTurn, Optimiser, Redrawn, Repeat
from ravine.train import Stage, Subset, TrainState, train

ROWS, COLUMNS = 23, 4


class Halves(eqx.Module):
    """Two free vectors whose sum is compared with a row, a constant, and what no rule should look at."""

    p: Array
    q: Array
    prior: Fixed
    steps: Array  # an integer
    name: Callable = jnp.tanh


def halves() -> Halves:
    return Halves(jnp.linspace(0.1, 0.4, COLUMNS), jnp.zeros(COLUMNS), Fixed(jnp.full(COLUMNS, 2.0)), jnp.array(3))


def linear() -> LinearGaussian:
    return LinearGaussian(
        jnp.linspace(0.2, 0.8, COLUMNS)[:, None], jnp.zeros(COLUMNS), DiagonalNoise(jnp.ones(COLUMNS))
    )


class Now(AbstractSchedule):
    """The step itself: an objective that holds it can change with the step."""

    def __call__(self, step: Array) -> Array:
        return jnp.asarray(step, float)


class Distance(eqx.Module):
    """Squared distance of rows to p + q plus noise; everything that could differ between two runs is in it."""

    scale: float | AbstractSchedule = 1.0
    noise: float = 0.1

    def __call__(self, model: Halves, batch: Row, *, key: Array) -> tuple[Array, dict[str, Array]]:
        centre = model.p + model.q + 0.1 * model.prior.value

        def one(row: Row, key: Array) -> Array:
            miss = centre + self.noise * jr.normal(key, centre.shape) - row.x
            seen = jnp.ones_like(row.x) if row.mask is None else row.mask
            return jnp.sum(jnp.where(seen == 1, miss, 0) ** 2)

        loss = self.scale * averaged(one, batch, key=key)
        return loss, {"distance": loss}


class Broken(eqx.Module):
    """A distance that is not a finite number at one step of three."""

    step: AbstractSchedule | Array = Now()

    def __call__(self, model: Halves, batch: Row, *, key: Array) -> tuple[Array, dict[str, Array]]:
        loss, metrics = Distance()(model, batch, key=key)
        return jnp.where(self.step % 3 == 1, jnp.nan, loss), metrics


class Doubled(eqx.Module):
    """Between two stages: every array twice as large."""

    def __call__(self, model: Any, source: Any, *, key: Array) -> Any:
        return eqx.tree_at(lambda m: m.p, model, 2 * model.p + jr.normal(key, model.p.shape))


class Together(eqx.Module):
    """Between two stages: a model of another type."""

    def __call__(self, model: Halves, source: Any, *, key: Array) -> LinearGaussian:
        return eqx.tree_at(lambda m: m.bias, linear(), model.p + model.q)


ADAM, SGD = Optimiser(optax.adam, (0.05,)), Optimiser(optax.sgd, (Linear(0.1, 0.01, 20.0),), clip=1.0)
STEP = Descend(Distance(), ADAM)


def held_out() -> Row:
    return Row(jnp.asarray(table(7, seed=5), jnp.float32))


def watched(rule: Any, patience: int = 4) -> Best:
    return Best(rule, Distance(), held_out(), jnp.array(3), jnp.array(patience))


class Run(NamedTuple):
    """A training: where the model starts, and the stages."""

    model: Callable[[], Any]
    stages: Callable[[], list[Stage]]


def one(rule: Callable[[], Any], steps: int = 33, batch: int | None = 4, **options: Any) -> Run:
    return Run(halves, lambda: [Stage(rule(), steps, batch, **options)])


RUNS: dict[str, Run] = {
    "adam": one(lambda: STEP),
    "sgd-clipped": one(lambda: Descend(Distance(Power(-0.5)), SGD, Part("p")), batch=50),
    "guarded": one(lambda: Guarded(Descend(Broken(), ADAM)), ordered=True),
    "best-stops": one(lambda: watched(Descend(Distance(), Optimiser(optax.sgd, (0.4,))), patience=2), 60),
    "every": one(lambda: Every(4, Guarded(STEP)), batch=None),
    "nested": one(lambda: watched(Redrawn(Binarise(), InTurn((Every(2, STEP), Repeat(Guarded(STEP), 2)))))),
    "em": Run(linear, lambda: [Stage(EM(1e-3), 33)]),
    "em-in-batches": Run(linear, lambda: [Stage(EM(1e-9, batches=jnp.array(3)), 33, 8, ordered=True)]),
    "em-online": Run(linear, lambda: [Stage(EM(rate=Power(-0.6)), 33, 8)]),
    "two-stages": Run(
        halves, lambda: [Stage(watched(STEP), 20, 4), Stage(STEP, 13, 5, ordered=True, prepare=Doubled())]
    ),
    "then-em": Run(halves, lambda: [Stage(STEP, 20, 4), Stage(EM(1e-9), 13, prepare=Together())]),
}


def table(count: int = ROWS, seed: int = 0, holes: bool = False) -> np.ndarray:
    """Numbers between 0 and 1, and NaN in some cells if asked."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(count, COLUMNS))
    return np.where(rng.uniform(size=x.shape) < 0.2, np.nan, x) if holes else x


def schema(holes: bool = False) -> Schema:
    return Schema.infer(table(holes=holes), kind="real")


def source(holes: bool = False, weight: np.ndarray | None = None) -> ArraySource:
    values = table(holes=holes)
    return ArraySource(rows(values, schema(holes), weight=weight, dtype=default()))


def mapped(path: Any, holes: bool = False, weight: np.ndarray | None = None) -> MappedSource:
    np.save(path, table(holes=holes))
    return MappedSource(np.load(path, mmap_mode="r"), schema(holes), default(), weight=weight)


def default() -> np.dtype:
    """The floating type of the precision in use."""
    return np.dtype(jax.dtypes.canonicalize_dtype(float))


def part(of: Any) -> Subset:
    """All but five rows of a source."""
    return Subset(of, np.setdiff1d(np.arange(ROWS), [0, 4, 11, 12, 22]))


class Counted(AbstractRule):
    """Learns nothing but how often each row was seen, by weight."""

    def init(self, model: Array, batch: Row, *, key: Array) -> tuple[()]:
        return ()

    def step(self, model: Array, state: tuple[()], batch: Row, *, key: Array, step: Array) -> Any:
        return model.at[batch.index].add(weights(batch)), state, {}


def last(run: Run, data: Any, *, seed: int = 0, **options: Any) -> TrainState:
    """The state at the end of a training."""
    *_, chunk = train(run.model(), run.stages(), data, key=jr.key(seed), **options)
    return chunk.state


def bits(tree: Any) -> list[bytes]:
    """Every array of a tree, as bytes."""
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_array))
    return [np.asarray(jr.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x).tobytes() for x in leaves]


def same(one: Any, other: Any) -> bool:
    """True when two trees hold the same arrays to the bit."""
    return bits(one) == bits(other)


def distance(one: Any, other: Any) -> float:
    """Largest difference between two trees, in units of the largest number of that array."""
    pairs = zip(*(jax.tree.leaves(eqx.filter(t, eqx.is_inexact_array)) for t in (one, other)), strict=True)
    return max(float(np.max(np.abs(a - b)) / max(1e-3, np.max(np.abs(b)))) for a, b in map(as_numpy, pairs))


def as_numpy(pair: tuple[Array, Array]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(pair[0]), np.asarray(pair[1])
