"""Whether samples can be told from data, and whether they are copies of training rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from ravine._check import require
from ravine.diagnose.words import Finding, share

FOLDS = 5
RIDGE = 1e-2
EXCHANGES = 200
CLIP = 5.0  # standard deviations: one rare pixel must not decide a distance
SURE = 3.0  # standard errors
LEAST = 20  # rows of each kind
CLOSE = 1 / 3  # ratio of the nearest to the second nearest distance below which a row counts as a copy
TOGETHER = 4096  # training rows that are compared at a time


@dataclass(frozen=True)
class TwoSample:
    """How well a classifier tells samples from data on rows it was not trained on.

    Attributes
    ----------
    accuracy : share of rows it puts right; 1/2 when the two laws agree.
    z : accuracy above what exchanged labels give, in standard deviations of that.
    rows : rows of each kind.
    """

    accuracy: float
    z: float
    rows: int

    def finding(self) -> Finding:
        """The verdict in words."""
        numbers = {"accuracy": self.accuracy, "z": self.z, "rows": float(self.rows)}
        facts = f"A classifier tells samples from data in {share(self.accuracy)} of {2 * self.rows} cases"
        if self.z < SURE:
            return Finding("samples", "good", f"{facts}, no better than a coin (z = {self.z:.1f}).", numbers)
        words = (
            f"{facts} (z = {self.z:.1f}), where 50 % would mean no difference. Compare marginals and pairs of columns "
            "of both; try more latents, a larger generator, or another likelihood."
        )
        return Finding("samples", "warning" if self.accuracy > 0.7 else "note", words, numbers)


def two_sample(
    data: Float[np.ndarray, "n d"], samples: Float[np.ndarray, "m d"], *, stream: np.random.Generator
) -> TwoSample:
    """Classifier two-sample test: cross-validated accuracy of telling samples from data.

    Lopez-Paz & Oquab 2017, arXiv:1610.06545. The classifier is regularised least squares in the kernel
    ``exp(-|x - y|^2 / 2 h^2) + (1 + x.y / d)^2`` (h^2 the median squared distance) on standardised columns: it sees
    means, variances, correlations and shape. Rows are as many of each kind as the smaller set has, folds are balanced.
    Predictions are linear in the labels, so labels are cheaply exchanged 200 times within folds, and ``z`` measures the
    accuracy in standard deviations of what that gives: cross-validated guesses share training rows, and spread more
    than independent ones.

    Raises
    ------
    ValueError
        When one of the two has fewer than 20 rows.

    Examples
    --------
    >>> stream = np.random.default_rng(0)
    >>> x, y = stream.normal(size=(2, 100, 3))
    >>> [two_sample(x, other, stream=stream).z > 3 for other in (y, y + 1.0)]
    [False, True]
    """
    rows = min(len(data), len(samples))
    require(rows >= LEAST, "two_sample", f"at least {LEAST} rows of each kind", f"{rows}", "give more")
    data, samples = (x[stream.permutation(len(x))[:rows]] for x in (data, samples))
    kernel = _kernel(_standard(np.concatenate([data, samples])))
    fold = np.tile(np.arange(rows) % FOLDS, 2)
    guesser = _guesser(kernel, fold)
    accuracies = [_accuracy(guesser, label) for label in _labels(fold, stream)]
    by_chance = accuracies[1:]
    z = (accuracies[0] - np.mean(by_chance)) / max(np.std(by_chance, ddof=1), 0.5 / rows)
    return TwoSample(accuracies[0], float(z), rows)


def _guesser(kernel: Float[np.ndarray, "n n"], fold: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n n"]:
    """The matrix that turns labels into guesses; a fold's guesses use the labels of the others."""
    matrix = np.zeros_like(kernel)
    for i in range(FOLDS):
        fit, test = fold != i, fold == i
        ridge = RIDGE * fit.sum() * np.eye(fit.sum())
        matrix[np.ix_(test, fit)] = np.linalg.solve(kernel[np.ix_(fit, fit)] + ridge, kernel[np.ix_(fit, test)]).T
    return matrix


def _labels(fold: Int[np.ndarray, " n"], stream: np.random.Generator) -> Iterator[Float[np.ndarray, " n"]]:
    """The labels, then the labels exchanged within folds, again and again."""
    label = np.repeat([-1.0, 1.0], len(fold) // 2)
    yield label
    order = np.argsort(fold, kind="stable")
    for _ in range(EXCHANGES):
        exchanged = np.empty_like(label)
        luck = np.lexsort((stream.random(len(fold)), fold))  # a random order within each fold
        exchanged[order] = label[luck]
        yield exchanged


def _accuracy(guesser: Float[np.ndarray, "n n"], label: Float[np.ndarray, " n"]) -> float:
    guess = guesser @ label
    return float(np.mean(np.where(np.abs(guess) < 1e-9, 0.5, guess * label > 0)))  # no difference at all is a coin


def _standard(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n kept"]:
    """Columns of mean 0 and variance 1, constant ones dropped, far cells brought in."""
    spread = x.std(axis=0)
    varies = spread > np.finfo(np.float32).eps * np.abs(x).max(axis=0)
    return np.clip((x - x.mean(axis=0))[:, varies] / spread[varies], -CLIP, CLIP)


def _kernel(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n n"]:
    products, width = x @ x.T, max(x.shape[1], 1)
    square = np.diag(products)
    distance = np.maximum(square[:, None] + square[None] - 2 * products, 0)
    middle = max(float(np.median(distance)), np.finfo(np.float32).eps)
    return np.exp(-distance / (2 * middle)) + (1 + products / width) ** 2


@dataclass(frozen=True)
class Copies:
    """How many samples are copies, or nearly, of a training row, beside how many fresh rows look like one by chance.

    Attributes
    ----------
    share, expected : of the samples, and of the held-out rows.
    z : their difference in standard errors.
    nearer : share of pairs of a sample and a held-out row in which the sample is nearer to its closest training row;
        about 1/2 for a faithful generator, more for one that is too smooth or that copies.
    rows : numbers of samples and of held-out rows.
    """

    share: float
    expected: float
    z: float
    nearer: float
    rows: tuple[int, int]

    def finding(self) -> Finding:
        """The verdict in words."""
        numbers = {"share": self.share, "expected": self.expected, "z": self.z, "nearer": self.nearer}
        facts = (
            f"{share(self.share)} of {self.rows[0]} samples nearly repeat a training row; {share(self.expected)} of "
            f"{self.rows[1]} held-out rows do"
        )
        if self.z < SURE:
            return Finding("copies", "good", f"{facts}: no sign that training rows leak into samples.", numbers)
        words = f"{facts}: training rows leak into the samples. Do not share them; use a smaller model or stop earlier."
        return Finding("copies", "warning", words, numbers)


Cells = tuple[Shaped[np.ndarray, "_ d"], Bool[np.ndarray, "_ d"]]  # values, and which of them were observed


def copies(train: Cells, held_out: Cells, samples: Float[np.ndarray, "m d"]) -> Copies:
    """Samples that stand much closer to one training row than to any other, against held-out rows that do.

    A row counts as a copy when its distance to the nearest of the distinct training rows is at most a third of that to
    the second nearest (the ratio of Yoon et al. 2023, *Diffusion probabilistic models generalize when they fail to
    memorize*). In few dimensions, or with discrete cells, fresh rows do so by chance: held-out rows say how often.
    Distances are root mean squares over the cells that both rows have, in standard deviations of the training columns;
    the i-th sample is given the holes of the i-th held-out row.

    Parameters
    ----------
    train, held_out : values and masks (True = observed), one vector a row.
    samples : complete rows.

    Raises
    ------
    ValueError
        When there are fewer than 20 held-out rows or samples, or fewer than 2 distinct training rows.

    Examples
    --------
    >>> stream, seen = np.random.default_rng(0), np.ones((100, 5), bool)
    >>> x, held, fresh = stream.normal(size=(3, 100, 5))
    >>> copies((x, seen), (held, seen), x[:50]).share, copies((x, seen), (held, seen), fresh).z > 3
    (1.0, False)
    """
    fewest = min(len(held_out[0]), len(samples))
    require(fewest >= LEAST, "copies", f"at least {LEAST} held-out rows and samples", f"{fewest}", "give more")
    train, scale = _distinct(train), _spread(train)
    require(len(train[0]) > 1, "copies", "at least 2 distinct training rows", f"{len(train[0])}", "give more")
    holes = held_out[1][np.arange(len(samples)) % len(held_out[1])]
    made, fresh = (_nearest_two(x / scale, seen, train, scale) for x, seen in ((samples, holes), held_out))
    (p, n), (q, m) = ((np.mean(d[:, 0] <= CLOSE * d[:, 1]), len(d)) for d in (made, fresh))
    pooled = (p * n + q * m + 1) / (n + m + 2)  # never 0 nor 1, so the error is not 0 either
    z = (p - q) / np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    pairs = np.sign(fresh[:, :1] - made[None, :, 0]) / 2 + 0.5
    return Copies(float(p), float(q), float(z), float(np.mean(pairs)), (n, m))


def _distinct(cells: Cells) -> Cells:
    """Rows that differ from all others; a hole is not a zero."""
    keys = np.concatenate([cells[0], cells[1].astype(cells[0].dtype)], axis=1)
    places = list({row.tobytes(): i for i, row in enumerate(keys)}.values())
    return cells[0][places], cells[1][places]


def _spread(cells: Cells) -> Float[np.ndarray, " d"]:
    """Standard deviation of the observed cells of each column; 1 for a constant one."""
    values, seen = cells
    count = np.maximum(seen.sum(axis=0), 1)
    mean = np.where(seen, values, 0).sum(axis=0, dtype=np.float64) / count
    spread = np.sqrt(np.where(seen, (values - mean) ** 2, 0).sum(axis=0) / count)
    return np.where(spread > np.finfo(np.float32).eps * (1 + np.abs(mean)), spread, 1.0)


def _nearest_two(
    x: Float[np.ndarray, "n d"], seen: Bool[np.ndarray, "n d"], train: Cells, scale: Float[np.ndarray, " d"]
) -> Float[np.ndarray, "n 2"]:
    """Distances to the two nearest training rows."""
    best, x = np.full((len(x), 2), np.inf), np.where(seen, x, 0)
    for start in range(0, len(train[0]), TOGETHER):
        there = train[1][start : start + TOGETHER]
        y = np.where(there, train[0][start : start + TOGETHER] / scale, 0)
        shared = seen.astype(float) @ there.T.astype(float)
        square = (x**2) @ there.T + seen @ (y**2).T - 2 * x @ y.T
        mean = np.where(shared > 0, np.maximum(square, 0) / np.maximum(shared, 1), np.inf)
        both = np.concatenate([best, np.sqrt(mean)], axis=1)
        best = np.sort(np.partition(both, 1, axis=1)[:, :2], axis=1)
    return best
