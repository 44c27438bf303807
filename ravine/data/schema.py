"""What the columns hold and how a model sees them: learned once from the training data, kept with the model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack, cast

import jax
import jax.numpy as jnp
import numpy as np

from ravine._check import complaint, require, shown, translated, whole
from ravine.data.arrays import as_table, blocks, column_names, first, image_axes, refuse_infinite, summarise
from ravine.data.draws import Binarise, Dequantise
from ravine.data.plan import EDGE, Binarisation, Dequantisation, Kind, Measure, Treatment, check_fields, fitted, plan
from ravine.dist import AbstractLink, Bits, Counts, HeavyTailed, Levels, Real, UnitInterval
from ravine.models.units import AbstractUnits, BinaryUnits, GaussianUnits, PottsUnits, RectifiedUnits

# The links that serve cells of a kind; the first one does unless a recipe chooses.
LINKS = {
    "binary": (Bits, Counts, Levels),
    "levels": (Levels, Counts),
    "count": (Counts,),
    "real": (Real, HeavyTailed, UnitInterval),
}


@dataclass(frozen=True)
class Schema:
    """One row of the user's table, and the invertible map to what the model sees: (x / divisor - shift) / scale.

    Two schemas are equal when all they hold is equal, so a schema may be a static field.

    Attributes
    ----------
    shape : event shape of one row as the model sees it; (columns,).
    kind : what the model sees in every cell: ``real``, ``binary``, ``levels`` (0 .. levels - 1), ``count`` (0, 1, ..).
    names : name of each column, or None.
    levels : number of integer values in the user's column; 0 when it has no such limit.
    binarise : ``static`` (already 0/1), ``threshold`` (1 where x >= threshold) or ``dynamic`` (redrawn by `draw`).
    threshold : in the user's units.
    dequantise : ``uniform`` when `draw` adds noise that turns integers into reals.
    shift, scale : per cell; the standardisation. For ``threshold``, black is shift and white is shift + scale.
    divisor : what pixel values are divided by: 255 for 8-bit probabilities, the number of levels when dequantised.
    base : per-cell mean of what the model sees; 0 for a column that was never observed.
    holes : the training data had missing cells.
    rows : number of training rows.
    image_shape : (height, width) or (height, width, channels) when a row is an image.

    Examples
    --------
    >>> import numpy as np
    >>> schema = Schema.infer(np.array([[0.0, 2.5], [1.0, np.nan]]), standardise=True)
    >>> schema.describe()
    '2 real cells (standardised), with missing values'
    >>> values, mask = schema.encode([[0.0, np.nan]], "float32")
    >>> values.tolist(), mask.tolist()
    ([[-1.0, 0.0]], [[True, False]])
    """

    shape: tuple[int, ...]
    kind: Kind
    names: tuple[str, ...] | None = None
    levels: int = 0
    binarise: Binarisation = "none"
    threshold: float | None = None
    dequantise: Dequantisation = "none"
    shift: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    divisor: float = 1.0
    base: tuple[float, ...] = ()
    holes: bool = False
    rows: int = 0
    image_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for size in self.shape:
            whole("schema.shape", size)
        for name, usual in (("shift", 0.0), ("scale", 1.0), ("base", 0.0)):
            cells = getattr(self, name) or (usual,) * self.width
            object.__setattr__(self, name, tuple(float(v) for v in cells))
        check_fields(self)

    @classmethod
    def infer(cls, X: Any, *, names: Any = None, image_shape: Any = None, **treatment: Unpack[Treatment]) -> Schema:
        """Look at the training data and decide how a model should see it. NaN is ignored.

        Parameters
        ----------
        X : table (rows, columns), or images (rows, height, width[, channels]).
        names : one for each column; those of a data frame are taken by themselves.
        image_shape : (height, width[, channels]) when X is flat.
        kind : what the column holds; without it, ``binary`` when all values are 0 or 1, ``levels`` when their number
            is given, else ``real``. With binarisation or dequantisation the model sees ``binary`` or ``real``.
        levels : number of integer values; without it the largest value plus one.
        binarise : ``none``, ``threshold``, ``static`` or ``dynamic``.
        threshold : smallest value that becomes 1; 0.5 for data within [0, 1].
        dequantise : ``none`` or ``uniform``.
        standardise : give real columns mean 0 and variance 1; a constant column keeps scale 1. Integers that a
            model sees as integers are left alone.

        Raises
        ------
        ValueError
            When the data contradict what is asked, or hold an infinite number.

        Examples
        --------
        >>> Schema.infer([[0, 16]], kind="levels").describe()
        '2 cells as 17-level counts'
        """
        table = as_table(X)
        width = math.prod(table.shape[1:])
        named = column_names(names, X, width)
        summary = summarise(table)
        if summary.infinite():
            refuse_infinite(table, "the data", named)
        fields = plan(summary, treatment)
        schema = cls(
            shape=(width,),
            names=named,
            holes=bool((summary.seen < len(table)).any()),
            rows=len(table),
            image_shape=image_axes(image_shape, table),
            **fields,
        )
        top = schema._top()
        if top is not None and not summary.within(top, integers=schema.binarise != "dynamic"):
            schema.inspect(table)
        return dataclasses.replace(schema, **fitted(fields, table, summary, treatment.get("standardise", False)))

    @property
    def width(self) -> int:
        """Number of cells of one row."""
        return math.prod(self.shape)

    @property
    def counts(self) -> tuple[int, ...]:
        """Cells that are counts without a limit: a network should see their logarithm."""
        return tuple(range(self.width)) if self.kind == "count" else ()

    @property
    def image(self) -> bool:
        """True when a row is an image, so that bits per dimension are worth reporting."""
        return self.image_shape is not None

    @property
    def measure(self) -> Measure:
        """The base measure of log p in the user's units: ``counting`` for integers, ``lebesgue`` for reals.

        A model of dequantised integers has a density, E_u[log p(x + u)] <= log P(x), so its number counts as one of
        the counting measure that errs low. Numbers of different measures must not be ranked.
        """
        return "lebesgue" if self.kind == "real" and self.dequantise == "none" else "counting"

    def encode(self, X: Any, dtype: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """What the model sees: values ``(rows, *shape)``, and a mask (True = observed) or None if nothing is NaN.

        Raises
        ------
        ValueError
            When the width or the column names differ from the training data, a value lies outside the support
            of its column, or a value is too large for ``dtype``.

        Examples
        --------
        >>> Schema((2,), "binary").encode([[0, 1]], "float32")[0].tolist()
        [[0.0, 1.0]]
        """
        table = self._columns(as_table(X), X)
        values = np.empty((len(table), self.width), np.dtype(dtype))
        require(values.dtype.kind == "f", "dtype", "a floating type", shown(dtype), "use 'float32' or 'float64'")
        mask = np.ones(values.shape, bool)
        for start, block in blocks(table):
            at = slice(start, start + len(block))
            x = self._checked(block, start)
            mask[at] = known = ~np.isnan(x)
            with np.errstate(over="ignore"):  # noticed below
                values[at] = (
                    self._forward(x) if known.all() else np.where(known, self._forward(np.where(known, x, 0)), 0)
                )
        fits = bool(np.isfinite(values).all())
        require(fits, "the data", f"values that {values.dtype} can hold", "a larger one", "standardise or use float64")
        full = (len(table), *self.shape)
        return values.reshape(full), None if mask.all() else mask.reshape(full)

    def decode(self, values: Any) -> np.ndarray:
        """The inverse of `encode` up to binarisation: values ``(..., *shape)`` in the user's units, as float64.

        Examples
        --------
        >>> Schema((1,), "real", shift=(3.0,), scale=(2.0,)).decode([[1.0]]).tolist()
        [[5.0]]
        """
        values = np.asarray(values, np.float64)
        shift, scale = self._cells(self.shift), self._cells(self.scale)
        if self.kind == "binary":
            return (shift * (1 - values) + (shift + scale) * values) * self.divisor
        return (values * scale + shift) * self.divisor

    def point(self, mean: Any) -> np.ndarray:
        """A value in the user's units that its column can hold: 0/1 at 1/2, integers rounded and clipped, reals as is.

        A draw of the model goes through unchanged but for dequantised columns, where it loses its noise.

        Examples
        --------
        >>> Schema((2,), "levels", levels=3).point([[1.6, 9.0]]).tolist()
        [[2.0, 2.0]]
        """
        if self.kind == "binary":
            return self.decode(np.asarray(mean) >= 0.5)
        user = self.decode(mean)
        if self.measure == "lebesgue":
            return user
        whole_number = np.floor(user + EDGE) if self.dequantise == "uniform" else np.rint(user)
        return np.clip(whole_number, 0, self.levels - 1 if self.levels else None)

    def log_det(self, mask: Any = None, cells: Any = None) -> Any:
        """``log |d encoded / d user|`` in nats, summed over observed cells: log p_user = log p_model + log_det.

        Zero for integers that the model sees as integers: their mass does not depend on the unit.

        Parameters
        ----------
        mask : ``(..., *shape)``, True where observed; None when every cell is.
        cells : not used: the scale is the same everywhere.

        Returns
        -------
        One number per row of the mask, in its kind of array; a single number for None.

        Examples
        --------
        >>> float(Schema((1,), "real", scale=(0.5,)).log_det())
        0.6931471805599453
        """
        cells = -np.log(self._cells(self.scale) * self.divisor) if self.kind == "real" else np.zeros(self.shape)
        if mask is None:
            return cells.sum()
        xp = jnp if isinstance(mask, jax.Array) else np
        axes = tuple(range(-len(self.shape), 0))
        spread_out = xp.broadcast_to(xp.asarray(cells), np.shape(mask))
        return xp.where(mask, spread_out, xp.zeros_like(spread_out)).sum(axis=axes)

    def link(self, chosen: AbstractLink | None = None) -> AbstractLink:
        """How the output of a network becomes a law over what the model sees: the one for its kind, or the chosen one.

        Raises
        ------
        ValueError
            When the law of the chosen one has no mass, or a mass that is no probability, on cells of this kind.

        Examples
        --------
        >>> Schema((1,), "binary").link()
        Bits()
        """
        if chosen is None:
            return Levels(self.levels) if self.kind == "levels" else LINKS[self.kind][0]()
        names = ", ".join(link.__name__ for link in LINKS[self.kind])
        known = isinstance(chosen, tuple({link for links in LINKS.values() for link in links}))
        good = isinstance(chosen, LINKS[self.kind]) or not known
        good = good and not (isinstance(chosen, Levels) and chosen.count < self.levels)
        good = good and not (isinstance(chosen, UnitInterval) and set(self.scale) != {1.0})
        require(good, "likelihood", f"a law of {self.describe()}: one of {names}", shown(chosen), "choose another")
        return chosen

    def units(self, chosen: AbstractUnits | None = None) -> AbstractUnits:
        """Units of an energy for the cells, at the rates of the data: the type for their kind, or the chosen one.

        Raises
        ------
        ValueError
            When the chosen ones do not hold cells of this kind.

        Examples
        --------
        >>> Schema((2,), "binary", base=(0.5, 0.5)).units().bias.tolist()
        [0.0, 0.0]
        """
        usual = {"binary": BinaryUnits(), "levels": PottsUnits(levels=self.levels), "real": GaussianUnits()}
        fit = {"binary": BinaryUnits, "levels": PottsUnits, "real": (GaussianUnits, RectifiedUnits)}
        names = {"binary": "BinaryUnits", "levels": "PottsUnits", "real": "GaussianUnits, RectifiedUnits"}
        units = usual.get(self.kind) if chosen is None else chosen
        good = self.kind in fit and isinstance(units, fit[self.kind])
        good = good and not (isinstance(units, PottsUnits) and units.levels < self.levels)
        want = f"units that hold {self.describe()}: {names.get(self.kind, 'none do')}"
        require(good, "visible", want, shown(chosen), "choose others, or another kind")
        return cast(AbstractUnits, units).sized(self.shape, np.asarray(self.base))

    def draw(self) -> Binarise | Dequantise | None:
        """The random part of preprocessing, a part called as ``draw(row, key=key)``; None when there is none."""
        if self.binarise == "dynamic":
            return Binarise()
        if self.dequantise == "none":
            return None
        return Dequantise(int(self.divisor), () if set(self.scale) == {1.0} else self.scale)

    def describe(self) -> str:
        """One line in words that says how the data were treated."""
        treated = {
            "static": "static binarisation",
            "dynamic": f"dynamic binarisation of {self.levels} levels" if self.levels else "dynamic binarisation",
            "threshold": f"1 where at least {self.threshold or 0:g}",
            "none": "standardised" if self.kind == "real" and set(self.scale) != {1.0} else "",
        }[self.binarise]
        words = {"levels": f"cells as {self.levels}-level counts", "count": "cells as counts without a limit"}
        line = f"{self.width} {words.get(self.kind, f'{self.kind} cells')}"
        if self.dequantise == "uniform":
            line += f" dequantised from {self.levels or 'unlimited'} levels"
        return line + (f" ({treated})" if treated else "") + (", with missing values" if self.holes else "")

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and text, for a JSON file; floats survive to the bit.

        Examples
        --------
        >>> Schema.from_json(Schema((1,), "real").to_json()) == Schema((1,), "real")
        True
        """
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_json(cls, fields: Any) -> Schema:
        """The inverse of `to_json`.

        Raises
        ------
        ValueError
            When a field is missing, unknown or of the wrong kind.
        """
        want, do = {f.name for f in dataclasses.fields(cls)}, "use a file written by `to_json`"
        good = isinstance(fields, Mapping) and set(fields) == want
        require(good, "the schema", f"the fields {', '.join(sorted(want))}", shown(fields, 200), do)
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        with translated("the schema", "numbers and text of the right kind", do):
            return cls(**values)

    def inspect(self, table: np.ndarray) -> bool:
        """Whether any cell is missing; raises when one lies outside the support of its column. Reads block by block."""
        if table.dtype.kind in "iub" and self._top() is None:
            return False
        holes = False
        for start, block in blocks(table):
            holes |= bool(np.isnan(self._checked(block, start)).any())
        return holes

    def _columns(self, table: np.ndarray, given: Any) -> np.ndarray:
        got = math.prod(table.shape[1:])
        do = "give the columns of the training data"
        require(got == self.width, "the data", f"{self.width} columns", f"{got}", do)
        names = column_names(None, given, got)
        same = names is None or self.names is None or names == self.names
        require(same, "the columns", shown(self.names), shown(names), "give them in the order of the training data")
        return table

    def _checked(self, block: np.ndarray, start: int) -> np.ndarray:
        """The block as float64, once every cell is seen to lie in the support of its column."""
        top, real = self._top(), block.dtype.kind == "f"
        x = block.astype(np.float64)
        bad = np.isinf(x) if real else np.zeros((1, 1), bool)
        if top is not None and (real or block.min() < 0 or block.max() > top):
            bad = bad | (x < 0) | (x > top)
        if top is not None and real and self.binarise != "dynamic":
            bad |= (x != np.floor(x)) & ~np.isnan(x)
        if bad.any():
            do = "check the values, or choose another kind of column; NaN is missing"
            raise complaint("the data", self._support(), f"{x[bad][0]:g} at {first(bad, start, self.names)}", do)
        return x

    def _top(self) -> float | None:
        """Largest value a column may hold when it starts at 0; None for real columns."""
        if self.binarise == "dynamic":
            return self.divisor
        if self.kind == "binary":
            return None if self.binarise == "threshold" else 1.0
        return None if self.measure == "lebesgue" else (self.levels - 1.0 if self.levels else math.inf)

    def _support(self) -> str:
        top = self._top()
        if top is None:
            return "finite numbers"
        values = "numbers" if self.binarise == "dynamic" else "whole numbers"
        return f"{values} of at least 0" if math.isinf(top) else f"{values} between 0 and {top:g}"

    def _forward(self, x: np.ndarray) -> np.ndarray:
        if self.binarise == "threshold":
            return (x >= self.threshold).astype(np.float64)
        if set(self.scale) == {1.0} and set(self.shift) == {0.0}:
            return x / self.divisor
        return (x / self.divisor - np.asarray(self.shift)) / np.asarray(self.scale)

    def _cells(self, values: tuple[float, ...]) -> np.ndarray:
        return np.asarray(values).reshape(self.shape)
