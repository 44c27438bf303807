"""How far a missing cell may be from its imputation: quantiles of its law given the observed cells of its row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine._check import require, shown, whole
from ravine._containers import as_given
from ravine._jax import precision
from ravine._tree import row_keys
from ravine.core import (
    AbstractDirected,
    AbstractDistribution,
    AbstractDraw,
    AbstractTractable,
    Row,
)
from ravine.data import AnySchema, TableSchema
from ravine.dist import FullGaussian, Gaussian, LowRankGaussian
from ravine.evidence import drawn_completion, held_cells, weighted_draws
from ravine.imputation._fitted import Imputer
from ravine.models.laws import Held, MixtureLaw
from ravine.verbs import blockwise, drawn

DRAWS = 199  # an interval of 50, 90, 95 or 99 % then ends at two of the draws
BISECTIONS = 60
ROWS = 1024  # whose draws are in memory at once

Marginals = tuple[Float[Array, " k"], Float[Array, "k d"], Float[Array, "k d"]]


def intervals(fitted: Imputer, X: Any, level: float = 0.95, draws: int = DRAWS) -> np.ndarray:
    r"""Central credible intervals of the missing cells given the observed ones of their row.

    The ends are the quantiles :math:`(1 \mp \mathrm{level}) / 2` of p(cell | observed cells): exact for Gaussian models
    and mixtures of them, those of ``draws`` draws elsewhere. The parameters are taken as known, so on few rows the
    intervals are too narrow; an unordered category has no interval and gets NaN.

    Parameters
    ----------
    fitted : an estimator after `fit`.
    X : rows with NaN where a cell is missing.
    level : probability inside, between 0 and 1.
    draws : conditional draws per row where there is no closed form.

    Returns
    -------
    Array of shape (2, rows, columns), low and high ends in the units of X (dates, levels and truths as the numbers
    that stand for them); an observed cell is at its value.

    Raises
    ------
    ValueError
        When the level is not between 0 and 1, or X does not fit the estimator.

    Examples
    --------
    >>> from ravine.recipes.factor_analysis import FactorAnalysis
    >>> X = np.random.default_rng(0).normal(size=(50, 3)).cumsum(axis=1)
    >>> low, high = intervals(FactorAnalysis(latents=1, random_state=0).fit(X), [[0.5, np.nan, 1.0]])
    >>> bool(low[0, 1] < 0.75 < high[0, 1]), bool(low[0, 0] == high[0, 0])
    (True, True)
    """
    require(0 < level < 1, "interval", "a probability between 0 and 1", shown(level), "say 0.95")
    values, count = fitted._ready(X), whole("draws", draws)
    tails = np.array([0.5 - 0.5 * level, 0.5 + 0.5 * level])
    with precision(fitted.precision):
        row, draw, key = fitted._row(values), fitted.schema_.draw(), jr.fold_in(fitted._key(), 4)
        if _has_quantiles(fitted.model_, row):
            made = blockwise(_exact, row, fitted.model_, draw, jnp.asarray(tails), key)
            made = _ordered(fitted._outward(fitted.schema_.point(np.moveaxis(made, 1, 0))))
        else:
            arguments = fitted.model_, draw, fitted.particles, count, key
            parts = [_spread(fitted, rows, tails, arguments) for rows in _blocks(row, len(values))]
            made = np.concatenate(parts, axis=1)
    made = np.where(_unordered(fitted.schema_, values.shape[1]), np.nan, made)
    return np.where(np.isnan(values), made, values)


class Interval(NamedTuple):
    """Low and high ends of intervals, each of the kind of table that was given."""

    low: Any
    high: Any


def imputed_interval(fitted: Imputer, X: Any, level: float = 0.95, draws: int = DRAWS) -> Interval:
    """The ends of `intervals` as two tables like X: data frames keep their columns, data types and index.

    A missing cell of an unordered category stays missing in both.

    Parameters
    ----------
    fitted, X, level, draws : as in `intervals`.

    Raises
    ------
    ValueError
        When the level is not between 0 and 1, or X does not fit the estimator.

    Examples
    --------
    >>> from ravine.recipes.factor_analysis import FactorAnalysis
    >>> X = np.random.default_rng(0).normal(size=(50, 3)).cumsum(axis=1)
    >>> ends = imputed_interval(FactorAnalysis(latents=1, random_state=0).fit(X), [[0.5, np.nan, 1.0]], 0.9)
    >>> ends.low.shape, bool(ends.low[0, 1] < ends.high[0, 1])
    ((1, 3), True)
    """
    ends = intervals(fitted, X, level, draws)
    if isinstance(fitted.schema_, TableSchema):
        return Interval(*(fitted.schema_.filled(X, end) for end in ends))
    return Interval(*(as_given(X, end.astype(fitted._ready(X).dtype)) for end in ends))


def _ordered(ends: np.ndarray) -> np.ndarray:
    """The lower end first: black may be the higher number."""
    return np.sort(ends, axis=0)


def _blocks(row: Row, rows: int) -> Iterator[Row]:
    for start in range(0, rows, ROWS):
        yield jax.tree.map(lambda leaf, start=start: leaf[start : start + ROWS], row)


def _spread(fitted: Imputer, row: Row, tails: np.ndarray, arguments: tuple[Any, ...]) -> np.ndarray:
    """Quantiles of draws, as values that were drawn."""
    made = np.moveaxis(blockwise(_completions, row, *arguments), 1, 0)
    return np.quantile(fitted._outward(fitted.schema_.point(made)), tails, axis=0, method="inverted_cdf")


def _unordered(schema: AnySchema, columns: int) -> np.ndarray:
    """Which columns have no order."""
    if not isinstance(schema, TableSchema):
        return np.zeros(columns, bool)
    return np.array([column.kind == "category" for column in schema.columns])


def _has_quantiles(model: Any, row: Row) -> bool:
    one = jax.tree.map(lambda leaf: leaf[0], row)
    return jax.eval_shape(lambda row: _marginals(model, row), one) is not None


def _exact(
    block: Row, model: AbstractTractable, draw: AbstractDraw | None, tails: Float[Array, " q"], key: PRNGKeyArray
) -> Array:
    return jax.vmap(lambda row: jax.vmap(lambda p: cell_quantile(model, row, p))(tails))(drawn(block, draw, key))


def cell_quantile(model: PyTree, row: Row, p: Float[Array, ""]) -> Float[Array, " d"]:
    """The ``p`` quantile of every missing cell given the observed ones; observed cells as they are.

    Exact to rounding for a Gaussian conditional, and for a mixture of them, whose distribution function is inverted by
    bisection. In the units that the model sees.

    Raises
    ------
    TypeError
        When the conditional of the model is of another kind.

    Examples
    --------
    >>> from ravine.models.linear_gaussian import DiagonalNoise, LinearGaussian
    >>> model = LinearGaussian(jnp.zeros((2, 1)), jnp.zeros(2), DiagonalNoise(jnp.ones(2)))
    >>> row = Row(jnp.array([3.0, 0.0]), jnp.array([True, False]))
    >>> [round(float(x), 3) for x in cell_quantile(model, row, jnp.array(0.975))]
    [3.0, 1.96]
    """
    found = _marginals(model, row)
    if found is None:
        raise TypeError(f"{type(model).__name__} has no Gaussian conditional to take quantiles of; use draws.")
    share, location, scale = found
    reach = jax.scipy.special.ndtri(p)  # each component's quantile; that of the mixture lies between them
    each = location + scale * reach

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = 0.5 * (ends[0] + ends[1])
        below = share @ jax.scipy.special.ndtr((middle[None] - location) / scale) < p
        return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

    low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.min(each, axis=0), jnp.max(each, axis=0)))
    return row.clamp(0.5 * (low + high))


def _marginals(model: Any, row: Row) -> Marginals | None:
    """Weights, means and deviations of the cells given the observed ones, when these are mixtures of Gaussians."""
    if not isinstance(model, AbstractTractable):
        return None
    law = model.conditional(row)
    law = law.law if isinstance(law, Held) else law
    if isinstance(law, MixtureLaw):
        scale = jax.vmap(_deviation)(law.laws)
        return (
            None if scale is None else (jax.nn.softmax(law.logits), jax.vmap(lambda one: one.mean())(law.laws), scale)
        )
    scale = _deviation(law)
    return None if scale is None else (jnp.ones(1, scale.dtype), law.mean()[None], scale[None])


def _deviation(law: AbstractDistribution) -> Array | None:
    """Standard deviation of each cell of a Gaussian; None for another law."""
    if isinstance(law, Gaussian):
        return law.scale
    if isinstance(law, FullGaussian):
        square = jnp.sum(law.lower() ** 2, axis=1)
        return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 1)  # an observed cell has none
    if isinstance(law, LowRankGaussian):
        return jnp.sqrt(jnp.sum(law.loading**2, axis=1) + law.scale**2)
    return None


def _completions(
    block: Row, model: PyTree, draw: AbstractDraw | None, particles: int, draws: int, key: PRNGKeyArray
) -> Array:
    keys = row_keys(key, held_cells(block))
    return jax.vmap(lambda row, k: _completed(model, row, particles, draws, k))(drawn(block, draw, key), keys)


def _completed(model: PyTree, row: Row, k: int, draws: int, key: PRNGKeyArray) -> Array:
    """Draws of one row; where not exact, resampled from one set of weighted latents, so that it is decoded once."""
    if not isinstance(model, AbstractDirected) or isinstance(model, AbstractTractable):
        return jax.vmap(lambda one: drawn_completion(model, row, k, key=one))(jr.split(key, draws))
    latents, pick, noise = jr.split(key, 3)
    z, share = weighted_draws(model, row, k, key=latents)
    chosen = jr.categorical(pick, jnp.log(share), shape=(draws,))
    some = jax.tree.map(lambda leaf: leaf[chosen], z)
    one = lambda z, key: row.clamp(model.likelihood(z, row.context).sample(key=key))  # noqa: E731
    return jax.vmap(one)(some, jr.split(noise, draws))
