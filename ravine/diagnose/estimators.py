"""The table of gradient estimators, what it recommends in words, and its picture."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ERRORS = 3  # standard errors above 0 from which a squared bias is called one
SMALL = 0.05  # a bias below this share of the gradient is called small


@dataclass(frozen=True)
class Estimated:
    """What one estimator does to the gradient; squares are relative to the squared norm of the true gradient.

    Attributes
    ----------
    name : as it is written in text.
    declared_biased : what the estimator says of itself.
    evaluations : how often one estimate evaluates the cost of a row.
    squared_bias, squared_bias_error : ||E g - truth||^2 / ||truth||^2, estimated without bias, so it may be slightly
        negative, and its standard error.
    variance : sum of Var[g] of one estimate / ||truth||^2.
    seconds : of one gradient of the batch.
    megabytes : that one gradient needs beside parameters and rows.
    """

    name: str
    declared_biased: bool
    evaluations: int
    squared_bias: float
    squared_bias_error: float
    variance: float
    seconds: float
    megabytes: float

    @property
    def ratio(self) -> float:
        """Signal-to-noise ratio of one estimate: ||truth||^2 / variance; infinite without noise."""
        return 1 / self.variance if self.variance > 0 else math.inf

    @property
    def seen_biased(self) -> bool:
        """A bias beyond what noise explains."""
        return self.squared_bias > ERRORS * self.squared_bias_error + 1e-9

    def bias(self) -> str:
        """The relative bias in words: a number when it is seen, else the most it can be."""
        if self.seen_biased:
            return f"{math.sqrt(self.squared_bias):.3f}"
        most = math.sqrt(max(self.squared_bias + 2 * self.squared_bias_error, 0.0))
        return f"< {most:.3f}" if most > 1e-6 else "0"

    def noise(self) -> float:
        """Variance of the mean of as many estimates as fit in a second."""
        return self.variance * self.seconds


HEADS = ("estimator", "evaluations", "bias", "signal/noise", "noise per second", "ms", "MB")


@dataclass(frozen=True)
class GradientTable:
    """All estimators that can serve a model's latents, the least noisy per second first. Printed, words come first.

    Attributes
    ----------
    rows : one for each estimator.
    reference : what stands for the true gradient.
    draws : estimates of the gradient by each.
    batch : rows whose mean gradient is estimated.
    current : the estimator that the model was trained with, if it is known.
    """

    rows: tuple[Estimated, ...]
    reference: str
    draws: int
    batch: int
    current: str | None = None

    def ordered(self) -> list[Estimated]:
        """The rows, the least noisy per second first."""
        return sorted(self.rows, key=Estimated.noise)

    def __getitem__(self, name: str) -> Estimated:
        """The row of an estimator."""
        return next(row for row in self.rows if row.name == name)

    def recommendation(self) -> str:
        """Which estimator to use, and why, in words."""
        honest = [row for row in self.ordered() if not row.declared_biased]
        words = []
        if honest:
            words.append(f"Use {honest[0].name}: unbiased, and the least noise for its time.")
        bold = [row for row in self.ordered() if row.declared_biased]
        bold = [row for row in bold if not honest or row.noise() < honest[0].noise()]
        if bold:
            words.append(_trade(bold[0], honest[0] if honest else None))
        small = [row for row in bold[1:] if row.squared_bias < SMALL**2]
        if small and bold[0].squared_bias >= SMALL**2:
            words.append(f"{small[0].name} has a bias of {small[0].bias()} only.")
        return " ".join([*words, self._about_current(honest)]).strip()

    def _about_current(self, honest: list[Estimated]) -> str:
        found = [row for row in self.rows if row.name == self.current]
        if not found or not honest or found[0].name == honest[0].name:
            return ""
        times = found[0].noise() / honest[0].noise() if honest[0].noise() > 0 else math.inf
        kind = f"bias {found[0].bias()}" if found[0].declared_biased else "unbiased"
        return f"The model was trained with {self.current}: {kind}, {times:.2g} times the noise per second."

    def __str__(self) -> str:
        lines = [list(HEADS), *(_cells(row) for row in self.ordered())]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEADS))]
        table = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        return "\n\n".join([self.recommendation(), "\n".join(table), self._how()])

    def markdown(self) -> str:
        """The words and the table as Markdown."""
        lines = [list(HEADS), ["---"] * len(HEADS), *(_cells(row) for row in self.ordered())]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return f"{self.recommendation()}\n\n{table}\n\n{self._how()}\n"

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and text; None stands for what is not finite."""
        rows = [{k: _plain(v) for k, v in dataclasses.asdict(row).items()} for row in self.ordered()]
        return {"words": self.recommendation(), "reference": self.reference, "draws": self.draws, "rows": rows}

    def save(self, path: str | Path) -> None:
        """Write `to_json` into a file."""
        Path(path).write_text(json.dumps(self.to_json(), indent=2) + "\n")

    def plot(self, path: str | Path | None = None) -> Any:
        """A picture of the noise and the bias of each. Needs matplotlib (``pip install ravine[plot]``).

        Returns
        -------
        The figure, which is also written to ``path`` if one is given.
        """
        from matplotlib.figure import Figure

        rows = [row for row in reversed(self.ordered()) if row.variance > 0]
        figure = Figure(figsize=(8, 1.2 + 0.3 * len(rows)), layout="constrained")
        noise, bias = figure.subplots(1, 2, sharey=True)
        for place, row in enumerate(rows):
            _draw(noise, bias, place, row)
        noise.set_yticks(range(len(rows)), [row.name for row in rows])
        noise.set_xscale("log")
        noise.set_xlabel("noise per second\n(relative variance x seconds; left is better)")
        bias.set_xlabel("bias / |gradient|, 2 standard errors\n(blue: declares that it has none)")
        bias.axvline(0.0, color="0.7", linewidth=1, zorder=0)
        for axes in (noise, bias):
            axes.grid(axis="y", color="0.92")
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def _how(self) -> str:
        return (
            f"Gradient of the recogniser's parameters for one batch of {self.batch} rows, {self.draws} draws of each; "
            f"the truth is {self.reference}. Bias, and variance in signal/noise, are relative to the size of the "
            "gradient; noise per second is relative variance times seconds."
        )


def _trade(row: Estimated, honest: Estimated | None) -> str:
    if honest is None:
        return f"{row.name} has the least noise for its time, with a bias of {row.bias()}."
    less = honest.noise() / row.noise() if row.noise() > 0 else math.inf
    return (
        f"{row.name} has {less:.2g} times less noise for its time, at a bias of {row.bias()}: it learns faster while "
        "noise is what holds learning back, and ends away from the optimum. Let the held-out bound decide."
    )


def _cells(row: Estimated) -> list[str]:
    ratio = f"{row.ratio:.2g}" if math.isfinite(row.ratio) else "exact"
    numbers = (row.noise(), 1e3 * row.seconds, row.megabytes)
    return [row.name, f"{row.evaluations}", row.bias(), ratio, *(f"{number:.2g}" for number in numbers)]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _draw(noise: Any, bias: Any, place: int, row: Estimated) -> None:
    """One estimator: a point for its noise, and one for its bias with two standard errors."""
    colour = "C1" if row.declared_biased else "C0"
    noise.plot(row.noise(), place, "o", color=colour)
    middle, reach = row.squared_bias, 2 * row.squared_bias_error
    low, at, high = (math.sqrt(max(square, 0.0)) for square in (middle - reach, middle, middle + reach))
    bias.errorbar(at, place, xerr=[[at - low], [high - at]], fmt="o", color=colour, capsize=3)
