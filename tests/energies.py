"""Small energies of every pairing of unit types. Their states are listed, or are the nodes of a quadrature.

A sum over the nodes, each with its weight, is an integral of a smooth law to about 1e-13: reals reach 8 standard
deviations to both sides. So the same sums serve every pairing.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from scipy.special import logsumexp

from ravine._tree import Fixed
from ravine.core import Row
from ravine.models.energy import Convolution, Dense, Harmonium
from ravine.models.unit_groups import Beside, CountUnits
from ravine.models.units import (
    BinaryUnits,
    GaussianUnits,
    PottsUnits,
    RectifiedUnits,
    SoftmaxUnits,
    SpinUnits,
)

WORDS = 3  # of a document of `CountUnits`


def numbers(shape: tuple[int, ...], seed: int, size: float = 0.5) -> Array:
    """Fixed numbers of about a size, none of them more than twice as large."""
    drawn = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(size * np.clip(drawn, -2, 2))


def real(seed: int) -> GaussianUnits:
    """One real cell of unit scale."""
    return GaussianUnits((1,), numbers((1,), seed, 0.3), jnp.zeros(1))


# Every function makes units of its type; another seed makes another law.
UNITS: dict[str, Callable[[int], Any]] = {
    "binary": lambda seed: BinaryUnits((3,), numbers((3,), seed)),
    "spin": lambda seed: SpinUnits((1, 3), numbers((1, 3), seed)),
    "gaussian": lambda seed: GaussianUnits((2,), numbers((2,), seed, 0.3), numbers((2,), seed + 50, 0.05)),
    "rectified": lambda seed: RectifiedUnits((2,), numbers((2,), seed)),
    "potts": lambda seed: PottsUnits((2,), 3, numbers((2, 3), seed)),
    "softmax": lambda seed: SoftmaxUnits((4,), numbers((4,), seed)),
    "softmaxes": lambda seed: SoftmaxUnits((2, 3), numbers((2, 3), seed)),
    "count": lambda seed: CountUnits((3,), WORDS, numbers((3,), seed)),
    "beside": lambda seed: Beside(
        (BinaryUnits((2,), numbers((2,), seed)), SoftmaxUnits((3,), numbers((3,), seed + 9)))
    ),
    "mixed": lambda seed: Beside((real(seed), BinaryUnits((2,), numbers((2,), seed + 9)))),
}
REAL = ("gaussian", "rectified", "mixed")
PAIRINGS = [f"{visible} {hidden}" for visible in UNITS if visible != "softmaxes" for hidden in UNITS]
# In every run each kind of unit is on one side of a machine, and each kind of hidden unit that is summed out otherwise.
QUICK = [name for name in PAIRINGS if name.endswith(" binary")]
QUICK += ["binary gaussian", "binary rectified", "potts softmaxes", "beside mixed"]
GOLDEN, CONVOLUTION = "golden", "convolution"


# States and nodes.


class Points(NamedTuple):
    """States on a leading axis, and the logarithm of the weight of each of their cells."""

    states: PyTree[Array]
    log_weights: np.ndarray

    @property
    def log_weight(self) -> np.ndarray:
        """Of each state."""
        return self.log_weights.sum(axis=1)

    @property
    def number(self) -> int:
        """How many states there are."""
        return len(self.log_weights)


def nodes(low: float, high: float, order: int) -> tuple[np.ndarray, np.ndarray]:
    """A Gauss-Legendre rule."""
    places, weights = np.polynomial.legendre.leggauss(order)
    half = 0.5 * (high - low)
    return low + half * (places + 1), np.log(half * weights)


def axis(units: Any) -> tuple[np.ndarray, np.ndarray]:
    """The values of one cell, and the logarithms of their weights."""
    if isinstance(units, GaussianUnits):
        return nodes(-10.5, 10.5, 48)
    if isinstance(units, RectifiedUnits):
        return nodes(0.0, 10.5, 30)
    if isinstance(units, CountUnits):
        counts = [c for c in itertools.product(range(WORDS + 1), repeat=math.prod(units.shape)) if sum(c) == WORDS]
        return np.asarray(counts, float), np.zeros(len(counts))
    if isinstance(units, SoftmaxUnits):
        return np.eye(units.shape[-1]), np.zeros(units.shape[-1])
    values = {BinaryUnits: [0.0, 1.0], SpinUnits: [-1.0, 1.0], PottsUnits: range(getattr(units, "levels", 0))}
    return np.asarray(values[type(units)], float), np.zeros(len(values[type(units)]))


def points(units: Any) -> Points:
    """All states of units, in the order of no other listing."""
    if isinstance(units, Beside):
        parts = [points(group) for group in units.groups]
        places = list(itertools.product(*(range(part.number) for part in parts)))
        chosen = [(part, np.asarray([place[i] for place in places])) for i, part in enumerate(parts)]
        states = tuple(jax.tree.map(lambda leaf, at=at: leaf[at], part.states) for part, at in chosen)
        return Points(states, np.concatenate([part.log_weights[at] for part, at in chosen], axis=1))
    values, log_weights = axis(units)
    cells = math.prod(units.shape) // math.prod(values.shape[1:])
    places = np.asarray(list(itertools.product(range(len(values)), repeat=cells)))
    return Points(jnp.asarray(values[places].reshape(-1, *units.shape)), log_weights[places])


def blank_mask(units: Any) -> PyTree[np.ndarray]:
    """A mask of the right structure: a softmax group, and the counts of a document, are one cell."""
    if isinstance(units, Beside):
        return tuple(blank_mask(group) for group in units.groups)
    shapes = {SoftmaxUnits: units.shape[:-1], CountUnits: ()}
    return np.zeros(shapes.get(type(units), units.shape), bool)


def masks(units: Any) -> PyTree[Array]:
    """Every pattern of observed cells, stacked; the first of them observes nothing, the last one all."""
    leaves, structure = jax.tree.flatten(blank_mask(units))
    cells = [leaf.size for leaf in leaves]
    patterns = np.asarray(list(itertools.product([False, True], repeat=sum(cells))))
    parts = np.split(patterns, np.cumsum(cells)[:-1], axis=1)
    stacked = [jnp.asarray(part.reshape(-1, *leaf.shape)) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, stacked)


def pick(tree: PyTree, i: Any) -> PyTree:
    """One of what is stacked, or some."""
    return jax.tree.map(lambda leaf: leaf[i], tree)


def flat_states(states: PyTree[Array]) -> np.ndarray:
    """Each state as one vector."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(states)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


class Held(NamedTuple):
    """What a mask holds: a number for each state of what is held of it and of the rest, and the weight of the rest."""

    held: np.ndarray
    free: np.ndarray
    log_weight: np.ndarray


def held(support: Points, mask: PyTree[Array]) -> Held:
    """For every state, by what it holds."""
    wide = jax.tree.map(lambda m, x: np.broadcast_to(_wider(m, x.ndim - 1), x.shape[1:]), mask, support.states)
    seen = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(wide)])
    cells = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(mask)])
    flat = flat_states(support.states)
    places = lambda columns: np.unique(columns, axis=0, return_inverse=True)[1].ravel()  # noqa: E731
    blank = np.zeros((support.number, 1))
    known, rest = (np.concatenate([blank, flat[:, which]], axis=1) for which in (seen, ~seen))
    return Held(places(known), places(rest), support.log_weights[:, ~cells].sum(axis=1))


def likeliest(groups: np.ndarray, law: np.ndarray, count: int) -> np.ndarray:
    """The groups of states with most mass, at most so many; sums over nodes of groups far out are no integrals."""
    return np.argsort(-np.bincount(groups, law), kind="stable")[:count]


def log_sums(log_terms: np.ndarray, groups: np.ndarray) -> list[float]:
    """log of the sum of exp(terms) of each group."""
    return [float(logsumexp(log_terms[groups == group])) for group in range(groups.max() + 1)]


# Energies.


def golden() -> Any:
    """Four visible and three hidden bits, whose every number is known."""
    i, j = jnp.arange(4.0)[:, None], jnp.arange(3.0)[None]
    visible = BinaryUnits((4,), 0.1 * (jnp.arange(4) - 1.5))
    hidden = BinaryUnits((3,), 0.2 * (1 - jnp.arange(3.0)))
    return Harmonium(visible, hidden, Dense(0.5 * jnp.cos(i + 2 * j)), Fixed(BinaryUnits((4,), numbers((4,), 5))))


def image() -> Any:
    """Two filters of 2 x 2 on an image of 3 x 3 bits."""
    coupling = Convolution(numbers((2, 1, 2, 2), 3, 0.8), (1, 3, 3))
    units = lambda shape, seed: BinaryUnits(shape, numbers(shape, seed))  # noqa: E731
    return Harmonium(units((1, 3, 3), 1), units(coupling.maps(), 2), coupling, Fixed(units((1, 3, 3), 4)))


def energy_of(name: str) -> Any:
    """The energy of a pairing, or one of the others."""
    if name in (GOLDEN, CONVOLUTION):
        return {GOLDEN: golden, CONVOLUTION: image}[name]()
    visible, hidden = (UNITS[part](seed) for part, seed in zip(name.split(), (1, 2), strict=True))
    size = 0.2 if any(part in REAL for part in name.split()) else 0.6
    weight = numbers((visible.size, hidden.size), 3, size)
    return Harmonium(visible, hidden, Dense(weight), Fixed(UNITS[name.split()[0]](4)))


def random_rbm(visible: int, hidden: int, seed: int, spread: float = 1.0) -> Any:
    """Bits with normal weights and biases; the path begins at independent bits of probability one half."""
    stream = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(stream.normal(size=shape))  # noqa: E731
    v, h = (BinaryUnits((n,), draw(n)) for n in (visible, hidden))
    weight = spread * draw(visible, hidden)
    return Harmonium(v, h, Dense(weight), Fixed(BinaryUnits((visible,), jnp.zeros(visible))))


# What is known of an energy.


class Table(NamedTuple):
    """Everything about a small energy, at all states v (rows) and h (columns)."""

    model: Any  # a harmonium
    v: Points
    h: Points
    joint: np.ndarray  # minus the joint energy
    minus_free: np.ndarray  # minus the energy of v
    up: np.ndarray  # log p(h | v) as the library has it
    down: np.ndarray  # log p(v | h) likewise, (h, v)
    start: np.ndarray  # minus the joint energy at 0
    end: np.ndarray  # minus the energy of v at 1

    def log_marginal(self) -> np.ndarray:
        """log of the sum over h of exp(-E), at every v."""
        return logsumexp(self.joint + self.h.log_weight, axis=1)

    def log_z(self) -> float:
        """log of the sum over everything."""
        return float(logsumexp(self.log_marginal() + self.v.log_weight))

    def law(self) -> np.ndarray:
        """p(v), weights included."""
        return np.exp(self.log_marginal() + self.v.log_weight - self.log_z())

    def joint_law(self) -> np.ndarray:
        """p(v, h), weights included."""
        return np.exp(self.joint + self.v.log_weight[:, None] + self.h.log_weight - self.log_z())

    def sweep(self) -> np.ndarray:
        """The probability of each v after a sweep from each v, by the conditionals of the library."""
        return np.exp(self.up + self.h.log_weight) @ np.exp(self.down + self.v.log_weight)


@functools.cache
def table(name: str) -> Table:
    """The energy of that name; in double precision, whatever asks first."""
    with jax.enable_x64(True):
        model = energy_of(name)
        return tabulated(model, points(model.visible), points(model.hidden))


def tabulated(model: Any, v: Points, h: Points) -> Table:
    """The table of any energy."""
    return Table(model, v, h, *(np.asarray(part) for part in _tabulated(model, v.states, h.states)))


@eqx.filter_jit
def _tabulated(model: Any, v: PyTree[Array], h: PyTree[Array]) -> tuple[Array, ...]:
    pairs = lambda value: jax.vmap(lambda a: jax.vmap(lambda b: value(a, b))(h))(v)  # noqa: E731
    # the laws are made once for each state they depend on
    up = jax.vmap(lambda a: jax.vmap(model.hidden(model.up(a)).log_prob)(h))(v)
    down = jax.vmap(lambda b: jax.vmap(model.likelihood(b).log_prob)(v))(h)
    begin, end = model.at(jnp.array(0.0)), model.at(jnp.array(1.0))
    free = lambda energy: -jax.vmap(energy.energy)(v)  # noqa: E731
    joint, start = (pairs(lambda a, b, m=m: -m.joint_energy(a, b)) for m in (model, begin))
    return joint, free(model), up, down, start, free(end)


def rows_of(found: Table, places: Any, mask: PyTree[Array] | None = None) -> Row:
    """Some of the states as a batch, with the same mask for all; missing cells are 0."""
    x = pick(found.v.states, np.asarray(places))
    if mask is None:
        return Row(x)
    seen = jax.tree.map(lambda m: jnp.broadcast_to(m, (len(places), *m.shape)), mask)
    return Row(jax.tree.map(lambda m, leaf: jnp.where(_wider(m, leaf.ndim), leaf, 0), seen, x), seen)


def _wider(mask: Any, axes: int) -> Any:
    """The mask with axes added at its end."""
    return mask.reshape(mask.shape + (1,) * (axes - mask.ndim))


def clamped_sweep(sweep: np.ndarray, groups: Held, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places of the states that hold the same, and the law of a sweep from each to each: the held are put back."""
    at, order = np.flatnonzero(inside), np.argsort(groups.free, kind="stable")
    starts = np.searchsorted(groups.free[order], np.arange(groups.free.max() + 1))
    return at, np.add.reduceat(sweep[np.ix_(at, order)], starts, axis=1)[:, groups.free[at]]


def worst_feature(drawn, mass, states):
    """The largest distance of the mean of cells, and of products of two, from that of a law, in standard errors."""

    def features(x):
        return np.concatenate([x, np.einsum("ni,nj->nij", x, x).reshape(len(x), -1)], axis=1)

    wanted = features(states)
    mean = mass @ wanted
    error = np.sqrt((mass @ (wanted - mean) ** 2) / len(drawn))
    return float(np.max(np.abs(features(drawn).mean(axis=0) - mean) / (error + 1e-9)))
