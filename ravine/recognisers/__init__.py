"""Recognisers complete a generator into a latent model."""

from ravine.recognisers.amortised import Amortised, BottomUp, Filled, Unlooked
from ravine.recognisers.bits import bits_upwards

__all__ = ["Amortised", "BottomUp", "Filled", "Unlooked", "bits_upwards"]
