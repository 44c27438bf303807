"""The row and the interfaces. Everything else in Ravine is written against these.

One row in every signature unless it says ``batch``; a batch is the same object with a leading axis on
every array. ``key`` is keyword-only and last. Densities are in nats and normalised unless called energies.
"""

from ravine.core.energy import AbstractEnergy, AbstractKernel, walk
from ravine.core.evidence import AbstractEvidence, Direction, LogLikelihood
from ravine.core.laws import (
    AbstractConjugate,
    AbstractDirected,
    AbstractDiscrete,
    AbstractDistribution,
    AbstractGenerator,
    AbstractGradient,
    AbstractInference,
    AbstractLatentModel,
    AbstractPosterior,
    AbstractRecogniser,
    AbstractReparametrised,
    AbstractTractable,
    Cost,
    Draw,
    Latent,
    summed,
)
from ravine.core.learning import AbstractDraw, AbstractRule, Objective
from ravine.core.row import Metrics, Row, Scalar, averaged, rows_in, weights

__all__ = [
    "AbstractConjugate",
    "AbstractDirected",
    "AbstractDiscrete",
    "AbstractDistribution",
    "AbstractDraw",
    "AbstractEnergy",
    "AbstractEvidence",
    "AbstractGenerator",
    "AbstractGradient",
    "AbstractInference",
    "AbstractKernel",
    "AbstractLatentModel",
    "AbstractPosterior",
    "AbstractRecogniser",
    "AbstractReparametrised",
    "AbstractRule",
    "AbstractTractable",
    "Cost",
    "Direction",
    "Draw",
    "Latent",
    "LogLikelihood",
    "Metrics",
    "Objective",
    "Row",
    "Scalar",
    "averaged",
    "rows_in",
    "summed",
    "walk",
    "weights",
]
