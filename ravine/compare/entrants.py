"""Who takes part: recipes as they come or by name, and the baselines that every table needs."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from ravine._check import require, shown
from ravine._spell import kebab
from ravine._tree import parameter_count
from ravine.compare.chow_liu import ChowLiu
from ravine.compare.judge import Gap, standard_error
from ravine.compare.reading import Reading, fields_for, reading_of_data, schema_of, values_of, variables
from ravine.core import AbstractEvidence, LogLikelihood
from ravine.data import AnySchema, Schema
from ravine.data.frames import taken
from ravine.estimator import LatentVariableModel
from ravine.evidence import RAISE
from ravine.registry import made, recipe

BASELINES = ("independent", "gaussian", "chow-liu")
REAL = ("gaussian-mixture", "factor-analysis", "vae")
DISCRETE = ("latent-class", "vae")
BITS = ("latent-class", "rbm", "vae")
BELOW, BELOW_ROWS = RAISE(1000, 10), 200  # what bounds an energy from below, and on how many rows: it takes long
INDEPENDENT_STEPS = 1_000


class Entrant(Protocol):
    """What is asked of everybody who takes part."""

    schema_: AnySchema

    def fit(self, X: Any) -> Any:
        """Learn from rows."""
        ...

    def given_columns(self) -> list[int]:
        """The places of the columns that are given, of which there is no law."""
        ...

    def log_likelihood(self, X: Any) -> LogLikelihood:
        """log p(x) per row in nats."""
        ...


@dataclass(eq=False)
class TreeOfColumns:
    """`ChowLiu` for the rows of a user: numbers are cut into intervals, log p is in the user's units."""

    reading: Reading

    def fit(self, X: Any) -> Self:
        """Learn the tree; rows with holes count where they are observed."""
        drawn = self.reading.get("binarise") == "dynamic"
        do = "leave the baseline out, or use binarise='threshold'"
        require(not drawn, "chow-liu", "cells that stay as they are", "binarise='dynamic'", do)
        self.schema_ = schema_of(X, self.reading)
        values, _ = values_of(X, self.schema_)
        self.tree_ = ChowLiu.fit(values, variables(self.schema_, values))
        return self

    def given_columns(self) -> list[int]:
        """None: it is a law of whole rows."""
        return []

    def log_likelihood(self, X: Any) -> LogLikelihood:
        """log p(x) per row in nats, exact."""
        values, log_det = values_of(X, self.schema_)
        return LogLikelihood(self.tree_.log_prob(values) + log_det, np.zeros(len(values)), "exact", "tree")


def parameters(fitted: Any) -> int:
    """How many numbers were learned."""
    return fitted.tree_.parameters if isinstance(fitted, TreeOfColumns) else parameter_count(fitted.model_)


def gap(fitted: Any, X: Any, numbers: LogLikelihood) -> Gap | None:
    """How far `RAISE` puts a model below its numbers, where these are upper bounds and the rows have no holes."""
    if numbers.direction != "upper" or len(X) < 2:
        return None
    places = np.sort(np.random.default_rng(0).permutation(len(X))[:BELOW_ROWS])
    try:
        low = _log_likelihood(fitted, taken(X, places), BELOW)
    except ValueError:
        return None
    apart = np.asarray(numbers.value)[places] - low.value
    return Gap(float(np.mean(apart)), standard_error(apart), low.method)


def _log_likelihood(fitted: Any, X: Any, evidence: AbstractEvidence) -> LogLikelihood:
    """log p(x) by another evidence than the estimator's own."""
    own, fitted.evidence = fitted.evidence, evidence
    try:
        return fitted.log_likelihood(X)
    finally:
        fitted.evidence = own


def fresh(entrant: Any) -> Any:
    """An unfitted copy; what was given is never touched."""
    if isinstance(entrant, TreeOfColumns):
        return TreeOfColumns(entrant.reading)
    return again(entrant)


def again(estimator: LatentVariableModel, **changed: Any) -> LatentVariableModel:
    """The same recipe with some fields changed; a stream of random numbers is copied, not shared."""
    fields = estimator.get_params(deep=False)
    fields["random_state"] = copy.deepcopy(fields["random_state"])
    return type(estimator)(**fields | changed)


def entrants(X: Any, recipes: Any, columns: Any, seed: int) -> dict[str, LatentVariableModel]:
    """Label to unfitted recipe, with a seed and the declared columns where the recipe says nothing of them.

    A name, or None for those that suit the data, stands for a recipe as it is by default, reading the data as they
    look; an estimator reads them as it was told to.

    Raises
    ------
    ValueError
        When there is no such recipe, something else was given, or a label is taken.
    """
    if isinstance(recipes, (str, LatentVariableModel)):
        recipes = [recipes]
    reading = reading_of_data(X, columns)
    chosen = suited(X, reading) if recipes is None else recipes
    labelled = chosen.items() if isinstance(chosen, Mapping) else _labelled(chosen)
    found: dict[str, LatentVariableModel] = {}
    for label, one in labelled:
        do = "give it another label: a mapping {label: estimator}"
        free = label not in found and label not in BASELINES
        require(free, "recipes", "labels that are not taken", shown(label), do)
        found[str(label)] = _ready(named(one, reading, X) if isinstance(one, str) else one, columns, seed)
    return found


def suited(X: Any, reading: Reading) -> tuple[str, ...]:
    """The names of the recipes that are compared unless others are chosen."""
    schema = schema_of(X, reading)
    bits = isinstance(schema, Schema) and schema.kind == "binary"
    return REAL if schema.kind == "real" else BITS if bits else DISCRETE


def named(name: str, reading: Reading, X: Any, settings: Mapping[str, Any] | None = None) -> LatentVariableModel:
    """A recipe by its name that reads the rows so, with some fields chosen; raises when there is none such."""
    cls = recipe(name)
    good = issubclass(cls, LatentVariableModel) and cls.of_rows
    require(good, "recipes", "recipes for rows", shown(name), "see `ravine list`")
    return made(name, settings or {}, **fields_for(cls, reading, X))


def _ready(one: Any, columns: Any, seed: int) -> LatentVariableModel:
    _check(one)
    changed: dict[str, Any] = {"progress": bool(one.progress)}
    if one.random_state is None:
        changed["random_state"] = seed
    if columns is not None and one.columns is None:
        changed["columns"] = columns
    return again(one, **changed)


def _check(one: Any) -> None:
    good = isinstance(one, (str, LatentVariableModel)) and getattr(one, "of_rows", True)
    require(good, "recipes", "estimators of Ravine, or names of recipes", shown(one), "see `ravine list`")


def _labelled(recipes: Iterable[Any]) -> list[tuple[str, Any]]:
    """The name of each recipe, with the fields in which it differs from another of the same name."""
    listed = list(recipes)
    for one in listed:
        _check(one)
    names = [one if isinstance(one, str) else kebab(type(one).__name__) for one in listed]
    found = []
    for name, one in zip(names, listed, strict=True):
        alike = [other for n, other in zip(names, listed, strict=True) if n == name and not isinstance(other, str)]
        found.append((name if isinstance(one, str) else name + _differing(one, alike), one))
    return found


def _differing(one: Any, alike: list[Any]) -> str:
    texts = [{field: shown(v, 40) for field, v in other.get_params(deep=False).items()} for other in [one, *alike]]
    fields = [field for field, text in texts[0].items() if any(other[field] != text for other in texts)]
    return f"({', '.join(f'{field}={texts[0][field]}' for field in fields)})" if fields else ""


def baselines(X: Any, reading: Reading, seed: int) -> dict[str, Any]:
    """Label to unfitted baseline: independent columns, one Gaussian, and a tree of columns."""
    common = {"components": 1, "standardise": True, "random_state": seed, "progress": False}
    apart, joint = recipe("latent-class"), recipe("gaussian-mixture")
    # one class cannot fit too closely: it learns from all rows, and needs fewer steps than several
    quick = {"validation": 0.0, "steps": INDEPENDENT_STEPS}
    return {
        "independent": apart(**common, **quick, **fields_for(apart, reading, X)),
        "gaussian": joint(**common, **fields_for(joint, reading, X)),
        "chow-liu": TreeOfColumns(reading),
    }
