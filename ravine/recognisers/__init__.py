"""Recognisers complete a generator into a latent model."""

from ravine.recognisers.amortised import Amortised, BottomUp, Filled, Unlooked
from ravine.recognisers.bits import bits_upwards
from ravine.recognisers.labelled import ClassThenStyle

__all__ = ["Amortised", "BottomUp", "ClassThenStyle", "Filled", "Unlooked", "bits_upwards"]
