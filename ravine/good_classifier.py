"""What a classifier answers whose layers are good at some rows and bad at others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._check import require
from ravine._jax import highest_matmul, precision
from ravine._tree import Linear
from ravine.core import Row
from ravine.labels import places_of, told
from ravine.models.forward_forward import AbstractGoodNet, AbstractReadOut
from ravine.models.goodness import RectifiedThrough
from ravine.network_classifier import NetworkClassifier
from ravine.objectives.goodness import AbstractOthers, LikelyWrongLabel
from ravine.trial import Trial
from ravine.verbs import blockwise

NEUTRAL = -1
HINTON = "Hinton 2022, arXiv:2212.13345"
PASS = 600  # steps of 100 rows through the digits
RATES = {500: 2e-3, 1000: 1e-3, 2000: 7e-4}  # by the units of a layer
REVIVED: dict[str, Any] = {"peers": 0.03, "rectifier": RectifiedThrough(), "decay": 0.003, "validation": 0.0}
HARD: dict[str, Any] = REVIVED | {"others": LikelyWrongLabel()}


def good_trial(ways: Mapping[str, Any], layers: int, units: int, passes: int, reported: float | None, of: str) -> Trial:
    """So many layers of so many units on digits, for so many passes, at a rate that falls to 0."""
    steps = passes * PASS
    fields = {"layers": (units,) * layers, "steps": steps, "rate": Linear(RATES[units], 0.0, float(steps))}
    return Trial("mnist-grey", dict(ways) | fields, None, f"{HINTON}{of}", accuracy=reported)


class GoodClassifier(NetworkClassifier):
    """A classifier by the goodness of layers. Hinton 2022, arXiv:2212.13345.

    Parameters
    ----------
    others : what the layers learn to tell rows from.
    read_out : what tells the label.

    Attributes
    ----------
    shows : class variable; whether the net is shown labels.
    """

    layers: tuple[Any, ...]
    others: AbstractOthers
    read_out: AbstractReadOut
    shows: ClassVar[bool] = True

    def _settle(self) -> None:
        super()._settle()
        kind, tells = type(self.others).__name__, type(self.read_out).__name__
        apart = self.shows or not self.others.by_label
        require(apart, "others", "Hybrids() where no label is shown", kind, "change it")
        known = self.others.by_label or self.read_out.affine
        require(known, "read_out", f"SoftmaxReadOut() beside {kind}, which teaches no label", tells, "change it")
        above = f"fewer than the {len(self.layers)} layers"
        skip = self.read_out.skip
        require(0 <= skip < max(len(self.layers), 1), "read_out, skip", above, f"{skip}", "leave out fewer layers")
        pairs = self.others.by_label or self.batch_size > 1
        require(pairs, "batch_size", f"two rows at least, of which {kind} makes one", "1", "give more")

    def log_odds(self, X: Any, y: Any = None) -> np.ndarray:
        """Log odds of each layer that a row is real, shape (rows, layers).

        Parameters
        ----------
        X : rows.
        y : the label that is shown with each of them, or one for all; None shows a neutral one.
        """
        values = self._ready(X)
        codes = np.full(len(values), NEUTRAL) if y is None else places_of(self.classes_, y, len(values), "y")
        with precision(self.precision), highest_matmul():
            return np.asarray(blockwise(_log_odds, told(self._row(values), codes), self.model_), float)

    def negatives(self, X: Any, y: Any) -> np.ndarray:
        """What the net is shown to be bad at, in place of these rows with these labels: shape (rows, inputs)."""
        values = self._ready(X)
        batch = told(self._row(values), places_of(self.classes_, y, len(values), "y"))
        with precision(self.precision):
            return np.asarray(_others(self.others, self.model_, batch, jr.fold_in(jr.key(self.seed_), 18)), float)


def _log_odds(block: Row, model: AbstractGoodNet) -> Float[Array, "n layers"]:
    def one(row: Row) -> Array:
        label = jnp.where(row.y == NEUTRAL, model.neutral(), jax.nn.one_hot(row.y, model.classes))
        return model.goodness_of(row.x.ravel(), label)

    return jax.vmap(one)(block)


@eqx.filter_jit
def _others(others: AbstractOthers, model: AbstractGoodNet, batch: Row, key: PRNGKeyArray) -> Array:
    return others(cast(Any, model), batch, key=key)[1]
