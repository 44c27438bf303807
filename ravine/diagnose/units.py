"""Hidden units of energies: which of them say anything about a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from ravine.core import AbstractEnergy, Row
from ravine.diagnose.words import Finding
from ravine.verbs import latent_mean

STILL = 1e-3  # variance over rows of the expected state, below which a unit says nothing


@dataclass(frozen=True)
class UnitUse:
    """What the hidden units of an energy do over rows.

    Attributes
    ----------
    spread : variance over rows of the expected state of each unit, given the row.
    """

    spread: Float[np.ndarray, " units"]

    @property
    def still(self) -> int:
        """Number of units whose expected state varies by less than 0.001."""
        return int(np.sum(self.spread < STILL))

    def finding(self) -> Finding:
        """The verdict in words."""
        units, still = len(self.spread), self.still
        numbers = {"still": float(still), "units": float(units), "median_spread": float(np.median(self.spread))}
        if 2 * still > units:
            words = (
                f"{still} of {units} hidden units are in the same state for nearly every row: they add nothing but a "
                "bias. Try a smaller rate, more steps, centred gradients (follow=0.01), or fewer units."
            )
            return Finding("hidden units", "warning", words, numbers)
        words = f"{units - still} of {units} hidden units vary with the row."
        return Finding("hidden units", "note" if still else "good", words, numbers)


def unit_use(model: AbstractEnergy, batch: Row, *, key: PRNGKeyArray) -> UnitUse:
    """How much the expected states of the hidden units vary over rows; the model must have a ``posterior``."""
    return UnitUse(np.var(np.asarray(latent_mean(model, batch, None, key=key), np.float64), axis=0))
