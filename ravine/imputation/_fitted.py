"""What imputation needs to know of a fitted estimator."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from jaxtyping import PRNGKeyArray

from ravine._jax import Precision
from ravine.core import Row
from ravine.data import AnySchema
from ravine.fitting import Recipe


class Imputer(Recipe, Protocol):
    """What imputation needs to know of a fitted estimator."""

    model_: Any
    schema_: AnySchema
    particles: int
    precision: Precision

    def impute(self, X: Any, draws: int | None = None, interval: float | None = None) -> Any:
        """X with its missing cells filled."""
        ...

    def multiple_impute(self, X: Any, m: int = 20) -> Any:
        """Completed tables, each with a draw of the parameters of its own."""
        ...

    def _ready(self, X: Any) -> np.ndarray: ...

    def _row(self, values: np.ndarray, weight: np.ndarray | None = None) -> Row: ...

    def _key(self) -> PRNGKeyArray: ...

    def _outward(self, values: np.ndarray) -> np.ndarray: ...
