"""A recogniser of a class and of a style."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx

from ravine.core import AbstractDistribution, AbstractGenerator, AbstractPosterior, AbstractRecogniser, Row
from ravine.posteriors import Chain


class ClassThenStyle(AbstractRecogniser):
    """``q(y | x) q(z | x, y)``: the class first.

    Parameters
    ----------
    read : how a row is seen.
    label : from a row to the law of its class.
    style : from a class and a row to the law of its style.
    """

    read: Callable[[Row], Any]
    label: Callable[..., Any]
    style: Callable[..., AbstractDistribution]

    def __call__(self, generator: AbstractGenerator, row: Row) -> AbstractPosterior:
        seen = self.read(row)
        return Chain(self.label(seen), (eqx.Partial(self.style, context=seen),))
