"""Models beside each other: log-likelihoods of the same held-out rows, paired differences, verdicts in words."""

from __future__ import annotations

import sys
import types
from typing import Any

from ravine.compare.chow_liu import ChowLiu
from ravine.compare.comparison import Comparison, Entry
from ravine.compare.judge import Difference, verdict
from ravine.compare.run import compare

__all__ = ["ChowLiu", "Comparison", "Difference", "Entry", "compare", "verdict"]


class _Callable(types.ModuleType):
    """``ravine.compare`` names this module as soon as it was imported: it can be called like the function."""

    def __call__(self, *arguments: Any, **options: Any) -> Comparison:
        return compare(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
