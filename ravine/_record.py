"""What a recipe makes of the user's columns, and what is written down of a fitted one."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

import ravine
from ravine._check import require
from ravine._spell import kebab, spell
from ravine._tree import parameter_count
from ravine.data import Schema, TableSchema
from ravine.data.columns import Numeric
from ravine.data.discrete import Binary
from ravine.data.frames import is_frame, is_mixed
from ravine.data.table import inferred


def schema_of(
    recipe: Any, values: np.ndarray, names: Iterable[Any] | None, image_shape: tuple[int, ...] | None
) -> Schema:
    """How the columns are seen, as the recipe asks; refused when its model cannot hold such cells.

    A model of reals takes the numbers as they are unless it is told that they are something else.
    """
    asked = recipe.kind is not None or recipe.binarise != "none" or recipe.levels is not None
    schema = Schema.infer(
        values,
        kind=recipe.kind if asked or len(recipe.kinds) > 1 else recipe.kinds[0],
        levels=recipe.levels,
        binarise=recipe.binarise,
        threshold=recipe.threshold,
        dequantise=recipe.dequantise,
        standardise=recipe.standardise,
        names=None if names is None else tuple(str(name) for name in names),
        image_shape=image_shape,
    )
    do = "set dequantise='uniform', or kind='real' with binarise='none' for a density of the numbers as they are"
    able = f"{' or '.join(recipe.kinds)} cells"
    require(schema.kind in recipe.kinds, f"{type(recipe).__name__}, the data", able, schema.describe(), do)
    return schema


def wants_table(recipe: Any, X: Any) -> bool:
    """Whether the columns are looked at one by one: when they are declared, or some hold no plain numbers.

    A recipe for columns of several kinds looks at those of a data frame too, unless it is told what the cells are.
    """
    if recipe.columns is not None or is_mixed(X):
        return True
    told = recipe.kind is not None or recipe.levels is not None or recipe.binarise != "none"
    able = "mixed" in recipe.kinds and is_frame(X) and not told and recipe.dequantise == "none"
    if not able:
        return False
    found = inferred(X)
    # a table of constants, such as a single row, has no column to look at: it is read as numbers
    return any(c.width for c in found) and {type(c) for c in found} not in ({Numeric}, {Binary})


def table_of(recipe: Any, X: Any) -> TableSchema:
    """How the columns are seen, one by one; refused when the model of the recipe cannot hold them."""
    schema = TableSchema.infer(X, recipe.columns, recipe.dequantise)
    do = "set dequantise='uniform' for a lower bound, choose a recipe for mixed tables, such as vae, or declare columns"
    able = f"{' or '.join(recipe.kinds)} cells"
    require(schema.kind in recipe.kinds, f"{type(recipe).__name__}, the data", able, schema.describe(), do)
    return schema


def texts(recipe: Any) -> dict[str, str]:
    """Every field as text, with what parts have by default: another release may have other defaults.

    A stream of random numbers has no text: the seed that was drawn from it is kept beside.
    """
    fields = recipe.get_params(deep=False)
    if not isinstance(recipe.random_state, numbers.Integral):
        fields["random_state"] = None
    return {name: spell(value, defaults=True) for name, value in fields.items()}


def record(fitted: Any, figures: Mapping[str, Any]) -> dict[str, Any]:
    """What `ravine.load` needs besides the arrays, and figures that a person may want to see."""
    data = {"seed": fitted.seed_, "rows": fitted.schema_.rows}
    if hasattr(fitted, "n_features_in_"):  # sentences have no columns
        data["features"] = int(fitted.n_features_in_)
    if hasattr(fitted, "steps_"):
        data["steps"] = fitted.steps_
    if hasattr(fitted, "feature_names_in_"):
        data["names"] = [str(name) for name in fitted.feature_names_in_]
    if hasattr(fitted, "classes_"):
        data |= {"classes": fitted.classes_.tolist(), "objects": fitted.classes_.dtype == object}
    return {
        "ravine": ravine.__version__,
        "recipe": kebab(type(fitted).__name__),
        "fields": texts(fitted),
        "schema": fitted.schema_.to_json(),
        "versions": {"jax": jax.__version__, "equinox": eqx.__version__, "numpy": np.__version__},
        "data": data,
        "numbers": {"parameters": parameter_count(fitted.model_), **figures},
    }


def remembered(made: Any, data: Mapping[str, Any]) -> None:
    """Set what a fit learns of its data beside the schema, from the ``data`` of a `record`."""
    made.n_features_in_, made.seed_ = int(data["features"]), int(data["seed"])
    if "steps" in data:
        made.steps_ = int(data["steps"])
    if "names" in data:
        made.feature_names_in_ = np.asarray(data["names"], dtype=object)
    if "classes" in data:
        made.classes_ = np.asarray(data["classes"], dtype=object if data["objects"] else None)
