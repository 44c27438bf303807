"""Recognisers complete a generator into a latent model."""

from ravine.recognisers.amortised import Amortised, BottomUp, Filled
from ravine.recognisers.bits import bits_upwards

__all__ = ["Amortised", "BottomUp", "Filled", "bits_upwards"]
