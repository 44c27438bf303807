"""How a recipe is shown to reproduce its paper: data, settings, the number reported, and where it was read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run that can be compared with a published number.

    Attributes
    ----------
    data : name of a built-in set.
    fields : fields of the recipe that differ from its defaults.
    reported : published mean log-likelihood of the test rows, nats; None where the source has no such number.
    source : where that number was read, and what differs from this run.
    """

    data: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reported: float | None = None
    source: str = ""
