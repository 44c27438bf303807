"""Recognisers complete a generator into a latent model."""

from ravine.recognisers.amortised import Amortised, BottomUp, Filled, Unlooked
from ravine.recognisers.bits import bits_upwards, layers_upwards
from ravine.recognisers.exact import ExactInference, ExactPosterior
from ravine.recognisers.labelled import ClassThenStyle

__all__ = [
    "Amortised",
    "BottomUp",
    "ClassThenStyle",
    "ExactInference",
    "ExactPosterior",
    "Filled",
    "Unlooked",
    "bits_upwards",
    "layers_upwards",
]
