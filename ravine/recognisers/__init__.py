"""Recognisers complete a generator into a latent model."""

from ravine.recognisers.amortised import Amortised, BottomUp, Filled

__all__ = ["Amortised", "BottomUp", "Filled"]
