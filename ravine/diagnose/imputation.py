"""Whether imputations are as sure as they should be: hide observed cells, draw them, compare with what was there."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Bool, Float, Int, PRNGKeyArray, PyTree

from ravine._check import require
from ravine.core import Row
from ravine.diagnose._rows import cells_of, completions, mask_of, place_keys, placed, stream
from ravine.diagnose.words import Finding, share
from ravine.verbs import blockwise

LEVELS = (0.5, 0.8, 0.95)
DRAWS = 79  # with 40 i - 1 draws an interval between two of them has exactly these levels
SURE = 3.0  # standard errors
OFF = 0.05  # difference from the nominal coverage below which nobody is warned


@dataclass(frozen=True)
class ImputationCalibration:
    """How often intervals of imputed real cells hold the truth, and how well binary cells are predicted.

    Attributes
    ----------
    coverage, error : share of hidden real cells inside the central interval of each level (0.5, 0.8, 0.95), and its
        standard error; empty when there is no real cell.
    log_score, score_error : mean log probability given to hidden binary cells, nats per cell; NaN when there is none.
    base_score : the same for the frequency of ones in each column.
    cells, rows : hidden cells and rows they are in.
    """

    coverage: tuple[float, ...]
    error: tuple[float, ...]
    log_score: float
    score_error: float
    base_score: float
    cells: int
    rows: int

    def finding(self) -> Finding:
        """The verdict in words."""
        sentences, levels = [], ["good"]
        for words, level in (self._intervals(), self._scores()):
            sentences += [words] if words else []
            levels.append(level)
        worst = next(level for level in ("warning", "note", "good") if level in levels)
        numbers = {f"coverage_{level:g}": value for level, value in zip(LEVELS, self.coverage, strict=False)}
        if np.isfinite(self.log_score):
            numbers |= {"log_score": self.log_score, "score_error": self.score_error, "base_score": self.base_score}
        numbers |= {"cells": float(self.cells), "rows": float(self.rows)}
        return Finding("imputations", worst, " ".join(sentences), numbers)  # pyright: ignore[reportArgumentType]

    def _intervals(self) -> tuple[str, str]:
        if not self.coverage:
            return "", "good"
        listed = ", ".join(f"{share(c)} (+- {100 * e:.1f})" for c, e in zip(self.coverage, self.error, strict=True))
        words = f"Intervals of 50, 80 and 95 % hold {listed} of hidden real cells ({self.cells} cells)"
        miss = [(c - level) / max(e, 1e-12) for c, e, level in zip(self.coverage, self.error, LEVELS, strict=True)]
        by = max((c - level for c, level in zip(self.coverage, LEVELS, strict=True)), key=abs)
        if max(map(abs, miss)) < SURE:
            return f"{words}: as they should.", "good"
        side = "narrow: imputations look surer" if by < 0 else "wide: imputations look less sure"
        advice = " than they are. Try more latents, more training, a heavier-tailed likelihood, or more particles."
        return f"{words}: they are too {side}{advice}", "warning" if abs(by) > OFF else "note"

    def _scores(self) -> tuple[str, str]:
        if not np.isfinite(self.log_score):
            return "", "good"
        words = (
            f"Hidden binary cells get {self.log_score:.3f} +- {self.score_error:.3f} nats each; the frequencies of "
            f"their columns would give {self.base_score:.3f}"
        )
        if self.log_score < self.base_score:
            return f"{words}: imputing with this model is no better than guessing by column.", "warning"
        return f"{words}.", "good"


def imputation_calibration(
    model: PyTree,
    batch: Row,
    *,
    key: PRNGKeyArray,
    hide: float = 0.2,
    draws: int = DRAWS,
    particles: int = 1000,
) -> ImputationCalibration:
    r"""Hide a share of the observed cells, draw them from the model, and compare with what was there.

    With m draws from the law that the truth came from, the rank of the truth among them is uniform on 0..m (ties are
    broken at random), so a central interval holds exactly its share of cells when (m + 1)(1 - level) / 2 is whole. A
    column is binary when it holds nothing but 0 and 1; there the log probability
    :math:`\log((c + 1/2) / (m + 1))` is averaged, c the draws that equal the truth. Cells of one row are
    dependent: standard errors are those of sums over rows.

    Parameters
    ----------
    hide : probability that an observed cell is hidden; a row keeps at least one.
    draws : imputations per row: 39, 79, 119, ...
    particles : draws of z behind all imputations of a row, where there is no closed form.

    Raises
    ------
    ValueError
        When no cell could be hidden, or the number of draws does not fit the levels.

    Examples
    --------
    >>> from ravine.models.linear_gaussian import DiagonalNoise, LinearGaussian
    >>> model = LinearGaussian(jnp.ones((4, 1)), jnp.zeros(4), DiagonalNoise(jnp.ones(4)))
    >>> rows = Row(jax.vmap(lambda k: model.sample(key=k)[1])(jr.split(jr.key(0), 100)))
    >>> found = imputation_calibration(model, rows, key=jr.key(1), draws=39)
    >>> [abs(got - level) < 0.1 for got, level in zip(found.coverage, LEVELS)]
    [True, True, True]
    """
    whole_ranks = (draws + 1) % 40 == 0
    require(whole_ranks, "draws", "39, 79, 119 or another 40 i - 1", f"{draws}", "only those fit 50, 80 and 95 %")
    here, there = jr.split(key)
    left = jax.tree.map(jnp.asarray, blockwise(_with_holes, placed(batch), hide, here, seldom=True))
    made = completions(model, left, particles, draws, key=there)
    truth, guesses = cells_of(batch.x), cells_of(made, 2)
    seen = mask_of(batch)
    hidden = seen & ~mask_of(left)
    require(hidden.any(), "imputation_calibration", "rows with 2 observed cells", "none", "give rows with more cells")
    binary = (((truth == 0) | (truth == 1)) | ~seen).all(axis=0)
    noise = stream(jr.fold_in(key, 1)).random(truth.shape)
    inside = _inside(truth, guesses, noise)
    real = [_clustered(hit, hidden & ~binary[None]) for hit in inside] if (hidden & ~binary[None]).any() else []
    log_p, base = _log_scores(truth, guesses, seen & ~hidden)
    score, score_error = _clustered(log_p, hidden & binary[None])
    return ImputationCalibration(
        coverage=tuple(mean for mean, _ in real),
        error=tuple(error for _, error in real),
        log_score=score,
        score_error=score_error,
        base_score=_clustered(base, hidden & binary[None])[0],
        cells=int(hidden.sum()),
        rows=int(hidden.any(axis=1).sum()),
    )


def _with_holes(block: Row, hide: float, key: PRNGKeyArray) -> Row:
    """The rows with some of their observed cells hidden; the luckiest of each stays in any case."""

    def one(row: Row, key: PRNGKeyArray) -> Row:
        mask = jnp.ones(row.x.shape, bool) if row.mask is None else row.mask
        luck = jnp.where(mask, jr.uniform(key, mask.shape), -1.0)
        left = mask & ((luck >= hide) | (luck == jnp.max(luck)))
        x = jnp.where(left, row.x, 0)
        return eqx.tree_at(lambda r: (r.x, r.mask), row, (x, left), is_leaf=lambda leaf: leaf is None)

    return jax.vmap(one)(block, place_keys(key, block))


def _inside(
    truth: Float[np.ndarray, "n d"], guesses: Float[np.ndarray, "n m d"], noise: Float[np.ndarray, "n d"]
) -> list[Bool[np.ndarray, "n d"]]:
    """For each level, whether the rank of the truth among the draws is a central one."""
    draws = guesses.shape[1]
    below, ties = ((compare(guesses, truth[:, None])).sum(axis=1) for compare in (np.less, np.equal))
    rank = below + np.floor(noise * (ties + 1))
    out = [round((draws + 1) * (1 - level) / 2) for level in LEVELS]
    return [(rank >= k) & (rank <= draws - k) for k in out]


def _log_scores(
    truth: Float[np.ndarray, "n d"], guesses: Float[np.ndarray, "n m d"], seen: Bool[np.ndarray, "n d"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d"]]:
    """Log probability of each cell by the share of equal draws, and by the frequency of ones in its column."""
    equal: Int[np.ndarray, "n d"] = (guesses == truth[:, None]).sum(axis=1)
    ones = (np.where(seen, truth, 0).sum(axis=0) + 0.5) / (seen.sum(axis=0) + 1)
    frequency = np.clip(ones, 1e-12, 1 - 1e-12)  # of real columns it means nothing and is not used
    base = np.where(truth == 1, np.log(frequency), np.log1p(-frequency))
    return np.log((equal + 0.5) / (guesses.shape[1] + 1)), base


def _clustered(values: np.ndarray, counts: Bool[np.ndarray, "n d"]) -> tuple[float, float]:
    """Mean over the cells that count, and its standard error with rows as the independent units."""
    total = counts.sum()
    if total == 0:
        return float("nan"), float("nan")
    mean = float(np.where(counts, values, 0).sum() / total)
    return mean, float(np.sqrt((np.where(counts, values - mean, 0).sum(axis=1) ** 2).sum()) / total)
