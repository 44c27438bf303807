"""What a fitted estimator says of a row, as a function of its cells that has a slope: latents, shares of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ravine._check import require, shown, translated
from ravine._jax import highest_matmul, precision
from ravine.core import Row
from ravine.data import Schema
from ravine.labels import Classifying, Telling, log_shares, places_of
from ravine.models.experts import ClassExperts
from ravine.verbs import blockwise, flat

Output = Callable[[Row, PyTree], Float[Array, " outputs"]]  # (a row as the model sees it, the model)
Vector = Float[np.ndarray, " columns"]


def latent_means(row: Row, model: Any) -> Float[Array, " latents"]:
    """Posterior means of the latents, or features of what has none, as `transform` gives them."""
    if isinstance(model, Classifying):
        return model.features(row)
    return flat(model.posterior(row).mean())


class Asked(NamedTuple):
    """Which numbers of a row are meant: some places of an output, and what they are called."""

    output: Output
    places: Int[np.ndarray, " outputs"]
    names: tuple[str, ...]


class Seen(NamedTuple):
    """Rows of which slopes are taken.

    Attributes
    ----------
    values : in the user's units, NaN where a cell is missing.
    row : the same as the model sees them.
    unit : how far a cell of the model moves when the user's moves by 1.
    """

    values: Float[np.ndarray, "rows columns"]
    row: Row
    unit: Vector


def seen(fitted: Any, X: Any, asked: Output, *, relaxed: bool = False) -> Seen:
    """Rows as the model sees them, once it is sure that what is asked of them has slopes.

    Parameters
    ----------
    fitted : an estimator of rows.
    X : rows such as it was fitted on.
    asked : what is asked of them.
    relaxed : let bits be any number between 0 and 1.

    Raises
    ------
    ValueError
        When the cells are discrete, or the model has no slope.
    """
    kind, schema = _named(fitted), fitted.schema_
    values = np.asarray(fitted._ready(X), np.float64)
    several = "columns of several kinds, some of them discrete"
    require(isinstance(schema, Schema), f"the cells of {kind}", "real numbers", several, "fit an array of real columns")
    smooth = schema.measure == "lebesgue" or (schema.kind == "binary" and (relaxed or _reads_grey(fitted, asked)))
    do = "fit real columns" if relaxed else "fit real columns, or grey values with binarise='dynamic'"
    require(smooth, f"the cells of {kind}", "real numbers, which can be moved by a little", schema.describe(), do)
    with precision(fitted.precision), highest_matmul():
        row = fitted._row(values)
        with translated(kind, "a model that has a slope in the cells of a row", "choose another"):
            eqx.filter_eval_shape(_slope, jax.tree.map(lambda leaf: leaf[0], row), fitted.model_, asked)
    return Seen(values, row, 1 / (np.asarray(schema.scale) * schema.divisor))


def _named(fitted: Any) -> str:
    """What a fitted estimator of rows is called; a complaint about anything else."""
    kind = type(fitted).__name__
    known = hasattr(fitted, "_ready") and hasattr(fitted, "_row")
    require(known, kind, "an estimator of Ravine that reads rows of numbers", "another", "give one such as rv.VAE")
    require(hasattr(fitted, "model_"), kind, "one that is fitted", "one that is not", "call fit first")
    return kind


def _reads_grey(fitted: Any, asked: Output) -> bool:
    """Whether grey values go in as they are, instead of as bits that are drawn from them."""
    grey = fitted.schema_.binarise == "dynamic" and asked is log_shares
    return grey and isinstance(fitted.model_, (Telling, ClassExperts, Classifying))


def _slope(row: Row, model: PyTree, output: Output) -> Array:
    return jax.jacrev(lambda x: output(at_cells(row, x), model))(row.x)


def at_cells(row: Row, x: Array) -> Row:
    """The row with other cells."""
    return eqx.tree_at(lambda r: r.x, row, x)


def classes_of(fitted: Any) -> np.ndarray:
    """The labels that a classifier tells; those of clusters are their numbers.

    Raises
    ------
    ValueError
        When it tells none.
    """
    kind = _named(fitted)
    require(hasattr(fitted, "predict_proba"), kind, "a classifier", "none", "give one with predict_proba")
    if hasattr(fitted, "classes_"):
        return np.asarray(fitted.classes_)
    with precision(fitted.precision):
        one = jax.ShapeDtypeStruct(fitted.schema_.shape, np.dtype(fitted.precision))
        shares = eqx.filter_eval_shape(lambda model, x: log_shares(Row(x), model), fitted.model_, one)
    return np.arange(shares.shape[0])


def asked_for(fitted: Any, latents: Any, labels: Any) -> Asked:
    """What is meant by numbers of latents, or by labels; by neither, every latent.

    Raises
    ------
    ValueError
        When both are given, or there is no such latent or label.
    """
    require(latents is None or labels is None, "what to look at", "latents or labels", "both", "ask for one at a time")
    if labels is not None:
        wanted, classes = np.atleast_1d(np.asarray(labels, object)), classes_of(fitted)
        places = places_of(classes, wanted, len(wanted), "labels")
        return Asked(log_shares, places, tuple(str(classes[i]) for i in places))
    kind, count = _named(fitted), getattr(fitted, "_n_features_out", 0)
    require(count and hasattr(fitted, "transform"), kind, "an estimator with latents", "none", "ask for labels")
    wanted = np.arange(count) if latents is None else np.atleast_1d(np.asarray(latents))
    fits = wanted.dtype.kind in "iu" and wanted.ndim == 1 and bool(((wanted >= 0) & (wanted < count)).all())
    require(fits, "latents", f"whole numbers from 0 to {count - 1}", shown(latents), "choose among these")
    return Asked(latent_means, wanted, tuple(f"latent {i}" for i in wanted))


class Range(NamedTuple):
    """The lowest and the highest value of each column, in the user's units."""

    low: Vector
    high: Vector


def cell_range(fitted: Any, X: Any) -> Range:
    """How far the cells of each column go, in the units of X.

    Bits, and grey values that bits are drawn from, have ends of their own. Elsewhere it is from the lowest to the
    highest value among these rows: of the column, or of all pixels where rows are images.

    Examples
    --------
    >>> import ravine as rv
    >>> X = np.array([[0.0, 5.0], [1.0, 7.0], [0.5, 6.5]])
    >>> model = rv.FactorAnalysis(latents=1, iterations=5, random_state=0).fit(X)
    >>> cell_range(model, X).low.tolist(), cell_range(model, X).high.tolist()
    ([0.0, 5.0], [1.0, 7.0])
    """
    _named(fitted)
    values = np.asarray(fitted._ready(X), np.float64)
    return _own_range(fitted.schema_, values)


def _own_range(schema: Schema, values: np.ndarray) -> Range:
    if schema.kind == "binary":
        ends = schema.decode(np.stack([np.zeros(schema.width), np.ones(schema.width)]))
        return Range(ends.min(axis=0), ends.max(axis=0))
    axis = None if schema.image else 0
    low, high = (np.broadcast_to(pick.reduce(values, axis=axis), (schema.width,)) for pick in (np.fmin, np.fmax))
    usual = schema.decode(np.asarray(schema.base))
    return Range(np.where(np.isnan(low), usual, low), np.where(np.isnan(high), usual, high))


def limits(fitted: Any, values: np.ndarray, bounds: Any) -> Range:
    """The range that cells may not leave: as given, numbers or one for each column, else that of the cells.

    Raises
    ------
    ValueError
        When the bounds are no range, do not hold the rows, or leave no room.
    """
    schema = fitted.schema_
    if bounds is None:
        found = _own_range(schema, values)
        do = "give bounds=(low, high)"
        require((found.high > found.low).any(), "the rows", "values that differ", "the same in every row", do)
        return found
    with translated("bounds", f"low and high, numbers or {schema.width} of them", "give two"):
        low, high = (np.broadcast_to(np.asarray(end, float), (schema.width,)) for end in bounds)
    require((low <= high).all() and (low < high).any(), "bounds", "low below high", shown(bounds), "change them")
    outside = int(((values < low) | (values > high)).any(axis=1).sum())
    require(not outside, "bounds", "a range that holds the rows", f"{outside} rows outside of it", "widen it")
    return Range(low, high)


def sizes(schema: Schema, scale: Any, usual: Vector) -> Vector:
    """What counts as 1 in each column when distances are measured: as given, else as usual."""
    if scale is None:
        return usual
    with translated("scale", f"a positive number, or {schema.width} of them", "change it"):
        made = np.broadcast_to(np.asarray(scale, float), (schema.width,))
    good = bool((np.isfinite(made) & (made > 0)).all())
    require(good, "scale", f"a positive number, or {schema.width} of them", shown(scale), "leave constant columns at 1")
    return made


def output_gradients(
    fitted: Any, X: Any, *, latents: Any = None, labels: Any = None
) -> Float[np.ndarray, "rows outputs columns"]:
    r"""The slope of what an estimator says of each row, in every cell: which cells it goes by, and which way.

    .. math:: \partial E[z_k \mid x] / \partial x_j \quad\text{or}\quad \partial \log p(y \mid x) / \partial x_j

    At a row this is what Simonyan, Vedaldi & Zisserman 2014, arXiv:1312.6034, call a saliency map; of a unit that is
    linear in the row it is its receptive field, the same at every row.

    Parameters
    ----------
    fitted : an estimator with `transform` or `predict_proba`.
    X : rows of real cells; bits may be given, and the slope is that of the model between 0 and 1.
    latents : which columns of `transform`, by number; all of them unless labels are given.
    labels : which classes, by label; their slope is that of log p(y | x) in nats.

    Returns
    -------
    One slope for each row, latent or label, and column, per unit of X; 0 at a missing cell.

    Raises
    ------
    ValueError
        When the cells are discrete, or the estimator has no such latent or label.

    Examples
    --------
    >>> import ravine as rv
    >>> X = np.random.default_rng(0).normal(size=(60, 1)) * [1.0, 2.0]
    >>> model = rv.FactorAnalysis(latents=1, iterations=5, random_state=0).fit(X)
    >>> slope, step = output_gradients(model, X[:1]), 1e-3 * np.eye(2)
    >>> bool(np.allclose(slope[0, 0], (model.transform(X[:1] + step) - model.transform(X[:1] - step))[:, 0] / 2e-3))
    True
    """
    asked = asked_for(fitted, latents, labels)
    here = seen(fitted, X, asked.output, relaxed=True)
    with precision(fitted.precision), highest_matmul():
        made = blockwise(_slopes, here.row, fitted.model_, asked.output, jnp.asarray(asked.places))
    made = np.asarray(made, np.float64) * here.unit
    return np.where(np.isnan(here.values)[:, None], 0.0, made)


def _slopes(
    block: Row, model: PyTree, output: Output, places: Int[Array, " outputs"]
) -> Float[Array, "n outputs columns"]:
    return jax.vmap(lambda row: _slope(row, model, lambda row, model: output(row, model)[places]))(block)
