"""What a diagnosis is made of: findings, words first and numbers after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["good", "note", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: how it is, in one or two sentences, and the numbers behind them.

    Attributes
    ----------
    name : what was looked at.
    level : ``good``, ``note`` (worth knowing) or ``warning`` (something should be changed).
    words : the numbers in a sentence, and what to try.
    numbers : by name; likelihoods, divergences and gaps are in nats per row.

    Examples
    --------
    >>> print(Finding("latents", "good", "All of them are used.", {"active": 2.0}))
    [good] latents: All of them are used.
    """

    name: str
    level: Level
    words: str
    numbers: Mapping[str, float]

    def __str__(self) -> str:
        return f"[{self.level}] {self.name}: {self.words}"

    def to_json(self) -> dict[str, Any]:
        """Plain text and numbers; None stands for a number that is not finite."""
        numbers = {name: value if math.isfinite(value) else None for name, value in self.numbers.items()}
        return {"name": self.name, "level": self.level, "words": self.words, "numbers": numbers}


@dataclass(frozen=True)
class Diagnosis:
    """All findings about a fit, and what was left out and why. Printed, it is the words.

    Examples
    --------
    >>> found = Finding("latents", "note", "One of them is not used.", {"active": 2.0})
    >>> print(Diagnosis((found,), (("gaps", "the posterior is exact"),)))
    [note] latents: One of them is not used.
    [left out] gaps: the posterior is exact.
    """

    findings: tuple[Finding, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        absent = [f"[left out] {name}: {reason}." for name, reason in self.left_out]
        return "\n".join([*map(str, self.findings), *absent])

    def __getitem__(self, name: str) -> Finding:
        """The finding of that name."""
        return next(found for found in self.findings if found.name == name)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, text and numbers, for a JSON file.

        Examples
        --------
        >>> Diagnosis(()).to_json()
        {'findings': [], 'left_out': {}}
        """
        return {"findings": [found.to_json() for found in self.findings], "left_out": dict(self.left_out)}


def share(value: float) -> str:
    """A share as per cent, with a decimal only where it matters.

    Examples
    --------
    >>> share(0.25), share(0.004)
    ('25 %', '0.4 %')
    """
    return f"{100 * value:.0f} %" if value == 0 or 0.0995 <= value else f"{100 * value:.1f} %"
