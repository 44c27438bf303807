"""New rows in the place of real ones, with what they are worth and what they give away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ravine._check import require, shown, whole
from ravine._containers import image_axes
from ravine._jax import precision
from ravine.data import TableSchema
from ravine.data.discrete import Category, Ordinal
from ravine.data.frames import is_frame, series, taken
from ravine.diagnose._rows import cells_of, mask_of
from ravine.synthesis.fidelity import Columns, Compared, Fidelity, fidelity
from ravine.synthesis.privacy import Cells, Privacy, privacy
from ravine.verbs import blockwise, drawn

__all__ = ["Compared", "Fidelity", "Privacy", "Synthesis", "synthesize"]

CHECKED = 2_000  # new rows that are compared, though fewer may be wanted
SEEDS = 2**32


@dataclass(frozen=True)
class Synthesis:
    """A table of new rows, and how they compare with the real ones. Printed, it is the words.

    Attributes
    ----------
    table : new rows, in the kind of table that was given.
    fidelity : how well they follow the law of the real ones; None when there are too few rows to compare.
    privacy : how near they come to training rows.
    model : the fitted estimator that drew them.
    """

    table: Any
    fidelity: Fidelity | None
    privacy: Privacy
    model: Any

    def __str__(self) -> str:
        rows = f"{len(self.table):,} new rows by {type(self.model).__name__}."
        few = "There are too few rows to compare them with the real ones."
        like = few if self.fidelity is None else self.fidelity.words()
        return "\n".join([rows, f"fidelity: {like}", f"privacy: {self.privacy.words()}"])

    def to_json(self) -> dict[str, Any]:
        """Plain text and numbers; the rows are not among them."""
        made = None if self.fidelity is None else self.fidelity.to_json()
        return {"words": str(self), "rows": len(self.table), "fidelity": made, "privacy": self.privacy.to_json()}


def synthesize(
    model: Any,
    X: Any,
    n: int | None = None,
    *,
    held_out: Any = 0.2,
    holes: bool = False,
    random_state: int = 0,
) -> Synthesis:
    """A table of new rows with the columns, data types and levels of the old, and a summary of what they are worth.

    **Fidelity**: the distance of each column and the difference of association of each pair of columns, beside what two
    random halves of the real rows give, and a classifier that tries to tell new rows from real ones. **Privacy**: exact
    copies, and how often a new row is nearer to a training row than a row is that the fit has not seen. That is a check
    for copied rows, not a guarantee: what rare rows give away in other ways is not measured, and differential privacy
    is not claimed.

    Parameters
    ----------
    model : a fitted estimator, with X the rows it was fitted on; or a recipe, of which a copy is fitted on a part of X.
    X : array, data frame or images, shape (rows, ...); NaN where a cell is missing. They are not altered.
    n : how many new rows; as many as X has unless given.
    held_out : rows of the same kind that the fit has not seen, or the share of X that is held out from a recipe.
    holes : give each new row the missing cells of a real row drawn at random; they do not depend on its values.
    random_state : seed of the split, the rows and the comparison; of the fit too when the recipe has none.

    Raises
    ------
    ValueError
        When a number is out of range, or the rows do not suit the model.

    Examples
    --------
    >>> import ravine as rv
    >>> X = np.random.default_rng(0).normal(size=(200, 1)) + np.random.default_rng(1).normal(size=(200, 3))
    >>> made = synthesize(rv.FactorAnalysis(latents=1, iterations=50), X, n=100)
    >>> made.table.shape, made.privacy.good()
    ((100, 3), True)
    """
    rows = whole("n", len(X) if n is None else n)
    table = getattr(model, "of_rows", True)
    require(table, "synthesize", "a model of rows", type(model).__name__, "draw new ones with sample")
    seed = whole("random_state", random_state, 0)
    require(seed < SEEDS, "random_state", "a seed of 32 bits", shown(seed), "choose another")
    model, train, held_out = _fitted(model, X, held_out, seed)
    stream = np.random.default_rng([seed, 1])
    codes = _codes(model, X, max(rows, min(CHECKED, len(X))), seed)
    seen = _as_modelled(model, model._ready(train))
    fresh = seen[:0] if held_out is None else _as_modelled(model, model._ready(held_out))
    like = fidelity(np.concatenate([seen, fresh]), codes, _columns(model, codes.shape[1]), stream=stream)
    known, unseen, (made, _) = (_cells(model, each) for each in (seen, fresh, codes))
    safe = privacy(known, unseen, made)
    wanted = codes[:rows]
    if holes:
        wanted = np.where(np.isnan(seen)[stream.integers(len(seen), size=rows)], np.nan, wanted)
    return Synthesis(_as_given(model, X, wanted), like, safe, model)


def _fitted(model: Any, X: Any, held_out: Any, seed: int) -> tuple[Any, Any, Any]:
    """The fitted model, the rows it was fitted on, and rows that it was not."""
    share = held_out if isinstance(held_out, (int, float)) else 0.0
    held_out = None if isinstance(held_out, (int, float)) else held_out
    if hasattr(model, "model_"):
        return model, X, held_out
    require(0 <= share < 1, "held_out", "rows, or a share of at least 0 and below 1", shown(share), "change it")
    fields = model.get_params(deep=False)
    fields["random_state"] = seed if fields["random_state"] is None else fields["random_state"]
    count = round(len(X) * share)
    order = np.random.default_rng([seed, 0]).permutation(len(X))
    train, rest = (taken(X, np.sort(places)) for places in (order[count:], order[:count]))
    return type(model)(**fields).fit(train), train, rest if count else held_out


def _codes(model: Any, X: Any, rows: int, seed: int) -> np.ndarray:
    """New rows as numbers (rows, columns), such as the data types of X can hold."""
    made = np.asarray(model._ready(model.sample(rows, random_state=seed)), float)
    return np.asarray(model._ready(_as_given(model, X, made)), float)


def _as_modelled(model: Any, values: np.ndarray) -> np.ndarray:
    """Rows as numbers; where the model sees black and white only, so do these."""
    schema = model.schema_
    if isinstance(schema, TableSchema) or schema.kind != "binary":
        return np.asarray(values, float)
    with precision(model.precision):
        row, draw = model._row(values), schema.draw()
        row = row if draw is None else blockwise(drawn, row, draw, model._key())
    return np.where(np.isnan(values), np.nan, model._outward(schema.decode(np.asarray(row.x))))


def _columns(model: Any, width: int) -> Columns:
    schema = model.schema_
    names = schema.names or tuple(f"x{j}" for j in range(width))
    if not isinstance(schema, TableSchema):
        return Columns(tuple(names), np.zeros(width, bool))
    free = [isinstance(column, Category) and not isinstance(column, Ordinal) for column in schema.columns]
    return Columns(tuple(names), np.array(free, bool))


def _cells(model: Any, values: np.ndarray) -> Cells:
    """What the model sees of rows, and which cells were observed."""
    if not len(values):
        return np.zeros((0, model.schema_.width)), np.ones((0, model.schema_.width), bool)
    with precision(model.precision):
        row = model._row(values)
    return cells_of(row.x), mask_of(row)


def _as_given(model: Any, X: Any, codes: np.ndarray) -> Any:
    """New rows in the kind of table that X is, with its data types where they can hold the values."""
    if isinstance(model.schema_, TableSchema):
        return model.schema_.frame(codes)
    if is_frame(X):
        columns = [_typed(codes[:, j], str(dtype)) for j, dtype in enumerate(X.dtypes)]
        made = type(X)(dict(enumerate(columns)))
        return made.set_axis(X.columns, axis=1)
    axes, dtype = image_axes(X), np.asarray(X[:1]).dtype
    whole_numbers = dtype.kind in "biu" and not np.isnan(codes).any()
    table = _within(codes, str(dtype)).astype(dtype if dtype.kind == "f" or whole_numbers else float)
    return table if axes is None else table.reshape(-1, *axes)


def _typed(values: np.ndarray, dtype: str) -> Any:
    return series(_within(values, dtype), ~np.isnan(values), dtype, ())


def _within(values: np.ndarray, dtype: str) -> np.ndarray:
    """Whole numbers that a column of integers can hold; others as they are."""
    name = dtype.lower()
    if name.startswith("bool"):
        return np.clip(np.rint(values), 0, 1)
    if not name.startswith(("int", "uint")):
        return values
    limits = np.iinfo(name)
    return np.clip(np.rint(values), limits.min, limits.max)
