"""Recognisers complete a generator into a latent model."""

from ravine.recognisers.amortised import Amortised, BottomUp, Filled, Unlooked
from ravine.recognisers.bits import bits_upwards, layers_upwards
from ravine.recognisers.exact import ExactInference, ExactPosterior
from ravine.recognisers.labelled import ClassThenStyle
from ravine.recognisers.settling import (
    AbstractSettling,
    FixedPredictions,
    GradientSettling,
    IncrementalSettling,
    NeuralSettling,
)

__all__ = [
    "AbstractSettling",
    "Amortised",
    "BottomUp",
    "ClassThenStyle",
    "ExactInference",
    "ExactPosterior",
    "Filled",
    "FixedPredictions",
    "GradientSettling",
    "IncrementalSettling",
    "NeuralSettling",
    "Unlooked",
    "bits_upwards",
    "layers_upwards",
]
