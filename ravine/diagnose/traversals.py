"""What a latent does to a row: rows decoded along it while the other latents stay where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ravine._check import require, shown, translated
from ravine.data.frames import is_frame
from ravine.diagnose._pictures import bundles, strips

STOPS = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
MOST = 6  # latents that are looked at unless they are named


@dataclass(frozen=True)
class Traversal:
    """Rows along some latents.

    Attributes
    ----------
    latents : which ones.
    stops : the values that each of them takes.
    rows : the expected rows, shape (latents, stops, columns). For a table with columns of several kinds a data frame,
        of as many rows, whose index has a latent and a stop.
    names : of the columns.
    image_shape : of a row, where it is an image.
    """

    latents: Int[np.ndarray, " latents"]
    stops: Float[np.ndarray, " stops"]
    rows: Any
    names: tuple[str, ...]
    image_shape: tuple[int, ...] | None = None

    def plot(self, path: Any = None) -> Any:
        """A line of images for each latent; of a table, a frame for each with a line for each column.

        Needs matplotlib. Returns the figure, which is also written to ``path`` if one is given.

        Raises
        ------
        ValueError
            When the table has columns that hold no numbers.
        """
        got = "a table with columns of several kinds"
        require(isinstance(self.rows, np.ndarray), "the picture", "columns of numbers", got, "look at .rows")
        titles = [f"latent {k}" for k in self.latents]
        if self.image_shape is None:
            return bundles(self.stops, list(zip(titles, self.rows, strict=True)), self.names, path)
        told = [f"{stop:g}" for stop in self.stops]
        lines = [(title, rows, told) for title, rows in zip(titles, self.rows, strict=True)]
        return strips(lines, self.image_shape, path)


def latent_traversal(fitted: Any, X: Any, latents: Any = None, stops: Any = STOPS) -> Traversal:
    """Rows decoded along one latent after the other, the others held at their mean over rows.

    Parameters
    ----------
    fitted : an estimator with `transform` and `inverse_transform`.
    X : the rows whose mean latents are held; one row, to go on from that one.
    latents : which columns of `transform`, by number; unless given the six that vary most over the rows, at most.
    stops : the values that a latent takes.

    Raises
    ------
    ValueError
        When there is no such latent, or the model does not decode latents.

    Examples
    --------
    >>> import ravine as rv
    >>> X = np.random.default_rng(0).normal(size=(60, 3))
    >>> model = rv.FactorAnalysis(latents=2, iterations=5, random_state=0).fit(X)
    >>> found = latent_traversal(model, X, [1], stops=[-1, 0, 1])
    >>> found.rows.shape, bool(np.allclose(np.diff(found.rows[0], 2, axis=0), 0))  # a linear model: a straight line
    ((1, 3, 3), True)
    """
    decodes = all(hasattr(fitted, verb) for verb in ("transform", "inverse_transform"))
    do = "choose one with inverse_transform"
    require(decodes, type(fitted).__name__, "an estimator that decodes latents", "one that does not", do)
    with translated("stops", "numbers", "change them"):
        along = np.asarray(stops, float).ravel()
    good = along.size > 0 and np.isfinite(along).all()
    require(good, "stops", "numbers", shown(stops), "change them")
    read = fitted.transform(X)
    chosen = _chosen(read, latents)
    places = np.tile(read.mean(axis=0), (len(chosen), len(along), 1))
    for i, k in enumerate(chosen):
        places[i, :, k] = along
    made = fitted.inverse_transform(places.reshape(-1, read.shape[1]).astype(read.dtype))
    shape = fitted.schema_.image_shape if hasattr(fitted.schema_, "image_shape") else None
    return Traversal(chosen, along, _shaped(made, chosen, along), _names(fitted, made), shape)


def _chosen(read: np.ndarray, latents: Any) -> Int[np.ndarray, " latents"]:
    count = read.shape[1]
    if latents is None:
        return np.argsort(-read.std(axis=0), kind="stable")[:MOST]
    wanted = np.atleast_1d(np.asarray(latents))
    fits = wanted.dtype.kind in "iu" and wanted.ndim == 1 and bool(((wanted >= 0) & (wanted < count)).all())
    require(fits, "latents", f"whole numbers from 0 to {count - 1}", shown(latents), "choose among these")
    return wanted


def _shaped(made: Any, chosen: np.ndarray, along: np.ndarray) -> Any:
    if not is_frame(made):
        return made.reshape(len(chosen), len(along), -1)
    import pandas

    return made.set_axis(pandas.MultiIndex.from_product([chosen, along], names=["latent", "stop"]))


def _names(fitted: Any, made: Any) -> tuple[str, ...]:
    named = made.columns if is_frame(made) else getattr(fitted, "feature_names_in_", range(made.shape[1]))
    return tuple(map(str, named))
