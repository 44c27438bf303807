"""Rows that raise a latent, or the share of a class, as far as they can: what a unit looks for.

Erhan, Bengio, Courville & Vincent 2009, *Visualizing higher-layer features of a deep network*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine._check import require, shown, whole
from ravine._jax import highest_matmul, key_words, precision
from ravine.core import Row, Scalar
from ravine.data import Schema
from ravine.diagnose._pictures import strips
from ravine.diagnose.balls import L2, Box, Move
from ravine.diagnose.density import LogDensity, log_density
from ravine.diagnose.outputs import Asked, Output, Range, Seen, Vector, asked_for, limits, seen, sizes
from ravine.verbs import blockwise

LONGEST = 1e3  # step, in units of the scale
RECENT = 8  # values, the lowest of which a step may not fall below


class Ascent(NamedTuple):
    """How the highest rows are looked for.

    Attributes
    ----------
    starts : the mean row, and rows drawn from the given ones, one fewer than this.
    steps : up the slope from each, of lengths that follow its curvature; one that leads too far down is taken back.
    penalty : weight of half the squared distance from the mean row.
    pull : weight of log p(x) in nats, a bound of it, or minus the energy.
    radius : rows go at most so far from the mean row; infinite unless given.
    """

    starts: int = 8
    steps: int = 500
    penalty: float = 0.0
    pull: float = 0.0
    radius: float = np.inf


USUAL = Ascent()


@dataclass(frozen=True)
class Activation:
    """The highest row of each latent or class.

    Attributes
    ----------
    names : of what was raised.
    rows : the best row of each, in the units of the data; bits may be anywhere between 0 and 1.
    values : of the latent, or log p(class | x) in nats, at these rows.
    starts : the same at the end of every start.
    objective : what was raised there: the value, with the penalty and the pull.
    image_shape : of a row, where it is an image.
    """

    names: tuple[str, ...]
    rows: Float[np.ndarray, "outputs columns"]
    values: Float[np.ndarray, " outputs"]
    starts: Float[np.ndarray, "outputs starts"]
    objective: Float[np.ndarray, "outputs starts"]
    image_shape: tuple[int, ...] | None = None

    def plot(self, path: Any = None) -> Any:
        """A picture of the rows, where they are images. Needs matplotlib.

        Returns
        -------
        The figure, which is also written to ``path`` if one is given.

        Raises
        ------
        ValueError
            When rows are no images.
        """
        told = [f"{name}\n{value:.3g}" for name, value in zip(self.names, self.values, strict=True)]
        lines = [("highest", self.rows[i : i + 10], told[i : i + 10]) for i in range(0, len(told), 10)]
        return strips(lines, self.image_shape, path)


def activation_maximisation(
    fitted: Any,
    X: Any,
    *,
    latents: Any = None,
    labels: Any = None,
    bounds: Any = None,
    scale: Any = None,
    ascent: Ascent = USUAL,
) -> Activation:
    r"""Rows within the range of the cells at which a latent, or log p(y | x), is as high as it gets.

    .. math::
        \max_x \; E[z_k \mid x] - \tfrac{\lambda}{2} \|x - \bar x\|^2 + \gamma \log p(x)
        \quad\text{with } \|x - \bar x\| \le r, \; x \text{ in range}

    by spectral projected gradient ascent from several starts; distances are counted in units of ``scale``. The best of
    them is a local maximum: another number of starts may find a higher one.

    Parameters
    ----------
    fitted : an estimator with `transform` or `predict_proba`.
    X : rows such as it was fitted on: their mean, some to start from, and their range.
    latents : which columns of `transform`, by number; all of them unless labels are given.
    labels : which classes, by label.
    bounds : (low, high) of the cells, numbers or one for each column; None for `cell_range`.
    scale : what counts as 1 in each column; the range of the column unless given.
    ascent : starts, steps, penalty, pull and radius.

    Raises
    ------
    ValueError
        When the cells are discrete, other than bits, there is no such latent or label, a number of ``ascent`` is
        negative, or the model has no log p(x) to be pulled to.

    Examples
    --------
    >>> import ravine as rv
    >>> X = np.random.default_rng(0).normal(size=(60, 1)) * [1.0, 2.0]
    >>> model = rv.FactorAnalysis(latents=1, iterations=5, random_state=0).fit(X)
    >>> found = activation_maximisation(model, X, latents=0)
    >>> corners = np.array(np.meshgrid(*zip(X.min(axis=0), X.max(axis=0)))).reshape(2, -1).T
    >>> bool(np.isclose(found.values[0], model.transform(corners).max()))
    True
    """
    _refuse(ascent)
    asked = asked_for(fitted, latents, labels)
    here = seen(fitted, X, asked.output, relaxed=True)
    given = _own(fitted, here)
    width = sizes(fitted.schema_, scale, _span(limits(fitted, given, None)))
    place = _Place(here, given, width, limits(fitted, given, bounds))
    ends, values, objective = _climbed(fitted, asked, place, ascent)
    best = np.argmax(objective, axis=1)
    rows = place.outward(np.take_along_axis(ends, best[:, None, None], axis=1)[:, 0])
    chosen = np.take_along_axis(values, best[:, None], axis=1)[:, 0]
    return Activation(asked.names, rows, chosen, values, objective, fitted.schema_.image_shape)


def _refuse(ascent: Ascent) -> None:
    whole("starts", ascent.starts)
    whole("steps", ascent.steps)
    for name in ("penalty", "pull", "radius"):
        value = getattr(ascent, name)
        require(value >= 0, name, "a number of at least 0", shown(value), "change it")
    require(np.isfinite(ascent.penalty + ascent.pull), "penalty, pull", "finite numbers", "others", "change them")


def _own(fitted: Any, here: Seen) -> Float[np.ndarray, "rows columns"]:
    """The rows as the model sees them, in the user's units: bits for grey values that are cut."""
    x = np.asarray(here.row.x, np.float64)
    made = fitted.schema_.decode(x)
    return np.where(np.isnan(here.values), np.nan, made if fitted.schema_.binarise == "threshold" else here.values)


def _span(ends: Range) -> Vector:
    far = ends.high - ends.low
    return np.where(far > 0, far, 1.0)


class _Place(NamedTuple):
    """Where to look: the rows, the size and the range of their columns."""

    seen: Seen
    values: Float[np.ndarray, "rows columns"]
    width: Vector
    ends: Range

    def centre(self) -> Vector:
        """The mean row; the middle of the range where nothing was observed."""
        known = ~np.isnan(self.values)
        sums, counts = np.where(known, self.values, 0.0).sum(axis=0), known.sum(axis=0)
        middle = np.where(np.isfinite(self.ends.low + self.ends.high), 0.5 * (self.ends.low + self.ends.high), 0.0)
        return np.where(counts > 0, np.clip(sums / np.maximum(counts, 1), *self.ends), middle)

    def starts(self, count: int, key: PRNGKeyArray) -> Float[np.ndarray, "starts columns"]:
        """Moves from the mean row: none, and those to some of the rows."""
        stream, rows = np.random.default_rng(key_words(key).tolist()), self.values
        drawn = rows[stream.integers(len(rows), size=count - 1)]
        moves = (np.where(np.isnan(drawn), self.centre(), drawn) - self.centre()) / self.width
        return np.concatenate([np.zeros((1, rows.shape[1])), moves])

    def outward(self, moves: Float[np.ndarray, "outputs columns"]) -> Float[np.ndarray, "outputs columns"]:
        """Moves from the mean row as rows."""
        return np.clip(self.centre() + moves * self.width, *self.ends)


class _Hill(NamedTuple):
    """What is climbed: the output with its penalty and pull, around a row."""

    output: Output
    density: LogDensity | None
    penalty: Scalar
    pull: Scalar
    radius: Scalar
    centre: Move
    unit: Move
    box: Box

    def value(self, model: PyTree, move: Move, place: Array) -> tuple[Scalar, Scalar]:
        """What is raised, and the output alone."""
        row = Row(self.centre + self.unit * move)
        told = self.output(row, model)[place]
        raised = told - 0.5 * self.penalty * jnp.sum(move**2)
        return raised if self.density is None else raised + self.pull * self.density(row, model), told


def _climbed(fitted: Any, asked: Asked, place: _Place, ascent: Ascent) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every output and start: the move, the output there, and what was raised."""
    key, count = jr.fold_in(jr.key(fitted.seed_), 22), len(asked.places)
    starts, centre = place.starts(ascent.starts, key), place.centre()
    model, dtype = fitted.model_, place.seen.row.x.dtype
    with precision(fitted.precision), highest_matmul():
        cells = jnp.asarray(_inward(fitted.schema_, centre), dtype)
        far = [(end - centre) / place.width for end in place.ends]
        penalty, pull, radius = (jnp.asarray(n, dtype) for n in (ascent.penalty, ascent.pull, ascent.radius))
        unit, box = jnp.asarray(place.seen.unit * place.width, dtype), Box(*(jnp.asarray(e, dtype) for e in far))
        density = log_density(model, Row(cells)) if ascent.pull else None
        hill = _Hill(asked.output, density, penalty, pull, radius, cells, unit, box)
        which = jnp.asarray(np.repeat(asked.places, len(starts)))
        block = Row(jnp.asarray(np.tile(starts, (count, 1)), dtype), y=which)
        move, told, raised = blockwise(_highest, block, model, hill, ascent.steps)
    good = bool(np.isfinite(raised).all())
    require(good, type(fitted).__name__, "finite values at the starts", "others", "use precision='float64'")
    shaped = lambda part: np.asarray(part, np.float64).reshape(count, len(starts), *part.shape[1:])  # noqa: E731
    return shaped(move), shaped(told), shaped(raised)


def _inward(schema: Schema, row: Vector) -> Vector:
    """A row as the model sees it, where bits may be any number."""
    return (row / schema.divisor - np.asarray(schema.shift)) / np.asarray(schema.scale)


def _highest(block: Row, model: PyTree, hill: _Hill, steps: int) -> tuple[Array, Array, Array]:
    return jax.vmap(lambda row: _ascended(model, hill, row.x, row.y, steps))(block)


class _Climber(NamedTuple):
    """Where the ascent is: the move, its slope, the length of the next step, the last values, and the best place."""

    move: Move
    slope: Move
    length: Scalar
    recent: Float[Array, " recent"]
    best: tuple[Move, Scalar, Scalar]


def _ascended(model: PyTree, hill: _Hill, start: Move, place: Array, steps: int) -> tuple[Move, Scalar, Scalar]:
    """Spectral projected gradient ascent: steps may lead down, but not below the lowest of the last few values.

    Birgin, Martinez & Raydan 2000, *Nonmonotone spectral projected gradient methods on convex sets*.
    """
    ball = L2()
    look = jax.value_and_grad(lambda move: hill.value(model, move, place), has_aux=True)
    fit = lambda move: ball.project(move, hill.radius, hill.box)  # noqa: E731

    def step(_: Array, at: _Climber) -> _Climber:
        there = fit(at.move + at.length * ball.steepest(at.slope))
        (raised, told), slope = look(there)
        good = (raised >= jnp.min(at.recent)) & jnp.isfinite(raised) & jnp.all(jnp.isfinite(slope))
        choose = lambda yes, new, old: jax.tree.map(lambda a, b: jnp.where(yes, a, b), new, old)  # noqa: E731
        length = _spectral(there - at.move, at.slope, slope, at.length)
        best = choose(good & (raised > at.best[2]), (there, told, raised), at.best)
        new = _Climber(there, slope, length, jnp.roll(at.recent, 1).at[0].set(raised), best)
        return choose(good, new, at._replace(length=0.25 * at.length))

    first = fit(start)
    (raised, told), slope = look(first)
    begin = _Climber(first, slope, jnp.ones_like(raised), jnp.full(RECENT, raised), (first, told, raised))
    return jax.lax.fori_loop(0, steps, step, begin).best


def _spectral(moved: Move, before: Move, after: Move, length: Scalar) -> Scalar:
    r"""How long the next step is, by Barzilai & Borwein 1988: :math:`|s|^2 |g| / -s \cdot (g - g')`, up to `LONGEST`.

    Slopes are taken by the size of the later one, which may be tiny.
    """
    size = jnp.max(jnp.abs(after))
    here, there = (slope / jnp.where(size > 0, size, 1) for slope in (before, after))
    bend, square = -jnp.sum(moved * (there - here)), jnp.sum(moved**2)
    bowl = (bend > 0) & (square > 0)
    spectral = jnp.minimum(square * jnp.linalg.norm(there) / jnp.where(bowl, bend, 1), LONGEST)
    return jnp.where(bowl, spectral, jnp.where(square > 0, LONGEST, length))
