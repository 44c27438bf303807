"""What every estimator here has in common: fields of the training, a seed, and how a fitted one is pickled."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, no_type_check

from jaxtyping import PyTree
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ravine._check import require
from ravine._fields import check_fields
from ravine._jax import Precision, precision
from ravine._record import record
from ravine.checkpoint import save_run
from ravine.fitting import emptied, filled
from ravine.train import Stage
from ravine.trial import Trial


class Saving:
    """Files of an estimator that `ravine.load` reads."""

    model_: PyTree

    def save(self, folder: str | Path, figures: dict[str, Any] | None = None) -> Path:
        """Write the fitted model to a folder, arrays as safetensors and all else as JSON; `ravine.load` reads it."""
        check_is_fitted(self)
        save_run(folder, self.model_, record(self, figures or {}))
        return Path(folder)


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class Learner(BaseEstimator, abc.ABC):
    """Hyper-parameters that say what is trained, and how. Subclasses are keyword-only dataclasses by themselves.

    Parameters
    ----------
    validation : share of the rows held out for early stopping (at most 10,000 rows); 0 trains on all.
    patience : held-out evaluations without improvement before training stops.
    max_seconds : training stops after about this time.
    precision : ``"float32"`` or ``"float64"`` for training and every verb.
    progress : show a progress bar; None shows one when standard error is a terminal.
    random_state : seed or `numpy.random.RandomState`; a given seed fixes every result.
    """

    validation: float = 0.1
    patience: int = 10
    max_seconds: float | None = None
    precision: Precision = "float32"
    progress: bool | None = None
    random_state: Any = None

    trials: ClassVar[Mapping[str, Trial]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(eq=False, repr=False, kw_only=True)(cls)
        no_type_check(cls.__init__)  # takes anything; `fit` refuses, as scikit-learn asks

    @abc.abstractmethod
    def stages(self, rows: int) -> list[Stage]:
        """The training of a data set with so many rows."""

    @abc.abstractmethod
    def _blank(self) -> PyTree:
        """The shapes of the fitted model, without computing any of it."""

    def _settle(self) -> None:
        """Refuse fields that cannot be, and draw the seed of everything that follows."""
        check_fields(self)
        share = "a share of at least 0 and below 1"
        require(0 <= self.validation < 1, "validation", share, f"{self.validation}", "change it")
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in super().__getstate__().items() if name != "_kept_evidence"}
        return {**state, "model_": emptied(state["model_"])} if "model_" in state else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "model_" in state:
            with precision(self.precision):
                self.model_ = filled(self._blank(), state["model_"])
