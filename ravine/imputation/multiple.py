"""Completed tables that carry what is not known of the parameters: each is drawn from a model learned anew."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from ravine._check import complaint, whole
from ravine._containers import as_given
from ravine._jax import key_words, precision
from ravine.core import AbstractDraw, Row
from ravine.data import AnySchema, ArraySource, TableSchema
from ravine.evidence import drawn_completion
from ravine.fitting import Recipe, fit, plan, split
from ravine.imputation._fitted import Imputer
from ravine.verbs import blockwise, drawn

TRIALS = 1000  # resamples that may lose a column before that is a complaint


def multiple_impute(fitted: Imputer, X: Any, m: int = 20) -> Any:
    """Completed tables for multiple imputation, proper in Rubin's sense: each has a parameter draw of its own.

    For each table the rows of X are resampled with replacement, the recipe is fitted to the resample from its own start
    (an approximate draw of the parameters), and every missing cell of X is drawn once given the observed ones of its
    row. Analyse every table as if it were complete and combine the answers with `pool`. Intervals are valid when the
    cells are missing at random and the model is correctly specified. Rubin 1987, *Multiple imputation for
    nonresponse in surveys*, chapter 4; Little & Rubin 2002, *Statistical analysis with missing data*, section 10.2.3.

    Drawing with the fitted parameters, as ``impute(X, draws=m)`` does, leaves out what is not known of the parameters.

    Parameters
    ----------
    fitted : an estimator after `fit`; its schema (units, levels) is kept, its parameters are learned anew.
    X : the table it was fitted on, NaN where a cell is missing.
    m : how many tables. The first ones stay the same when more are asked for.

    Returns
    -------
    Array of shape (m, rows, columns) in the units of X, or a list of m data frames where columns are of several kinds.

    Raises
    ------
    ValueError
        When a column of X has so few observed cells that resamples keep missing all of them.

    Examples
    --------
    >>> from ravine.recipes.gaussian_mixture import GaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(30, 2))
    >>> X[::3, 1] = np.nan
    >>> tables = multiple_impute(GaussianMixture(components=1, random_state=0).fit(X), X, m=3)
    >>> tables.shape, bool((tables[0, ::3, 1] != tables[1, ::3, 1]).all())
    ((3, 30, 2), True)
    """
    values, count = fitted._ready(X), whole("m", m)
    with precision(fitted.precision):
        row, keys = fitted._row(values), jr.split(jr.fold_in(fitted._key(), 5), 2)
        made = np.stack([_drawn_table(fitted, row, *(jr.fold_in(key, i) for key in keys)) for i in range(count)])
    made = np.where(np.isnan(values), fitted._outward(fitted.schema_.point(made)), values)
    if isinstance(fitted.schema_, TableSchema):
        return fitted.schema_.filled(X, made)
    return as_given(X, made.astype(values.dtype))


def _drawn_table(fitted: Imputer, row: Row, learn: PRNGKeyArray, fill: PRNGKeyArray) -> np.ndarray:
    rows = row.x.shape[0]
    model = refitted(fitted, fitted.schema_, row, key=learn)
    # keys by place, not by what a row holds: rows that look alike must not be filled alike
    numbered = Row(row.x, row.mask, context=row.context, index=jnp.arange(rows))
    return blockwise(_filled, numbered, model, fitted.schema_.draw(), fitted.particles, fill)


def _filled(block: Row, model: PyTree, draw: AbstractDraw | None, particles: int, key: PRNGKeyArray) -> Array:
    keys = jax.vmap(lambda i: jr.fold_in(key, i))(block.index)
    return jax.vmap(lambda row, k: drawn_completion(model, row, particles, key=k))(drawn(block, draw, key), keys)


def refitted(recipe: Recipe, schema: AnySchema, row: Row, *, key: PRNGKeyArray) -> PyTree:
    """The recipe's model learned from a bootstrap resample of the rows: an approximate draw of its parameters.

    Efron & Tibshirani 1993, *An introduction to the bootstrap*. A resample has as many rows as the table, so refits
    compile nothing new. A recipe that stops early is judged by rows that its resample left out.
    """
    words = key_words(key)
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence([*words.tolist(), 2])))
    mask = np.ones(row.x.shape, bool) if row.mask is None else np.asarray(row.mask)
    places = resample(mask.reshape(len(mask), -1), stream)
    wanted = len(split(len(mask), recipe.validation, words)[1])
    left_out = np.setdiff1d(np.arange(len(mask)), places)[:wanted]
    kept, held = (jax.tree.map(lambda leaf, at=at: leaf[at], row) for at in (places, left_out))
    done = fit(recipe, plan(recipe, schema, ArraySource(kept), held if len(left_out) else None, key=key))
    if not done.complete:
        raise KeyboardInterrupt
    return done.state.model


def resample(mask: Bool[np.ndarray, "n d"], stream: np.random.Generator) -> np.ndarray:
    """Places of a bootstrap resample of n rows in which every column that was ever observed still is.

    A column observed twice or more keeps at least two of its rows, so that it has a spread. Resamples that do not are
    drawn again.

    Raises
    ------
    ValueError
        When that keeps failing; the line names the number of the column that is observed least.

    Examples
    --------
    >>> sorted(resample(np.eye(2, dtype=bool), np.random.default_rng(0)).tolist())
    [0, 1]
    """
    rows, seen = len(mask), mask.sum(axis=0)
    for _ in range(TRIALS):
        places = stream.integers(rows, size=rows)
        if (mask[np.unique(places)].sum(axis=0) >= np.minimum(seen, 2)).all():
            return places
    fewest = int(np.argmin(np.where(seen > 0, seen, rows)))
    do = "leave out columns that are hardly ever observed"
    got = f"{int(seen[fewest])} in column {fewest} of those the model sees"
    raise complaint("multiple_impute", "columns with enough observed cells to resample", got, do)
