"""How a recipe is shown to reproduce its paper: data, settings, the number reported, and where it was read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
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
    labels : how many rows of each class have a label, for a recipe that learns from a few; None for models of rows.
    accuracy : published share of test rows that are given their right class.
    tested : how many rows, which lie evenly among those of the test, the log-likelihood is evaluated on; None for all.
    beside : other ways to evaluate the log-likelihood, and of how many test rows each.
    dreams : how many rows of each label the recipe makes, for another classifier to tell, and one to learn from.
    """

    data: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reported: float | None = None
    source: str = ""
    labels: int | None = None
    accuracy: float | None = None
    tested: int | None = None
    beside: Sequence[tuple[Any, int]] = ()
    dreams: int = 0


NETS = {
    "": ("200H~784V", {"layers": (200,), "links": "~", "rate": 1e-4}),
    "-linear": ("200H-784V", {"layers": (200,), "links": "-"}),
    "-2": ("200H~200H~784V", {"layers": (200, 200), "links": "~", "rate": 1e-4}),
    "-linear-2": ("200H-200H-784V", {"layers": (200, 200), "links": "-"}),
}
SETS = {"": ("mnist", ""), "-omniglot": ("omniglot-bits", "; there the drawings are split and resampled otherwise")}


def belief_nets(
    nats: Mapping[tuple[str, str], tuple[float, float, float]],
    long: Mapping[str, Any],
    short: Mapping[str, Any],
    trained: Callable[[int], Any],
) -> dict[str, Trial]:
    """Belief nets of table 1 of Maddison, Mnih & Teh 2017, arXiv:1611.00712, as one of its two methods trains them.

    Parameters
    ----------
    nats : suffix of the net and of the data set to what is reported after training with 1, 5 and 50 draws.
    long : fields that all trials of the scale ``paper`` share.
    short : fields of the scale ``small``, 5,000 steps; they win over those of the net.
    trained : number of draws to the objective.

    Examples
    --------
    >>> belief_nets({("-2", ""): (87.9, 86.3, 85.7)}, {}, {}, str)["paper-2-50"].reported
    -85.7
    """
    return {
        f"{scale}{net}{suffix}{of}": Trial(
            SETS[of][0],
            {**long, **NETS[net][1], **fields, "objective": trained(draws)},
            -value,
            f"Maddison et al. 2017, table 1, {NETS[net][0]}, m = {draws}{SETS[of][1]}{differs}",
        )
        for scale, fields, differs in (("small", short, "; there 10 million steps, not 5,000"), ("paper", {}, ""))
        for (net, of), values in nats.items()
        for (draws, suffix), value in zip({1: "", 5: "-5", 50: "-50"}.items(), values, strict=True)
    }
