"""Data sets made by a few lines of arithmetic, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ravine.data.dataset import Dataset

LOADING = ((-0.5, -1.0), (-1.0, -1.0), (2.0, 0.5))
NOISE = (0.4, 0.2, 0.3)


def fa_tutorial() -> Dataset:
    """1000 + 1000 rows of x = W z + e, z ~ N(0, I_2), e ~ N(0, diag(NOISE)^2), W = LOADING.

    The draw order of the tutorial's own code: z of training and test, then noise of training and test. The true
    model's mean log evidence is -3.934836900537360 nats a row on training data, -3.970451758801384 on test data.
    Source: Yang 2022, arXiv:2208.07818, section 2.

    Examples
    --------
    >>> fa_tutorial().train.shape
    (1000, 3)
    """
    draw = np.random.RandomState(42).normal
    causes = [draw(size=(1000, 2)) for _ in range(2)]
    train, test = (z @ np.array(LOADING).T + draw(size=(1000, 3)) * np.array(NOISE) for z in causes)
    source = "drawn from a known linear-Gaussian model; Yang 2022, arXiv:2208.07818"
    return Dataset("fa-tutorial", train, test=test, hints={"kind": "real"}, source=source)


def moons() -> Dataset:
    """1000 + 1000 points on two interleaved half circles, with Gaussian noise of deviation 0.1; labels say which.

    Examples
    --------
    >>> moons().test.shape
    (1000, 2)
    """
    rng = np.random.RandomState(0)
    label = rng.randint(2, size=2000)
    angle = np.pi * rng.uniform(size=2000)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = np.where(label[:, None] == 0, upper, [1.0, 0.5] - upper) + 0.1 * rng.normal(size=(2000, 2))
    return _halves("moons", points, label, "two interleaved half circles, drawn with seed 0")


def pinwheel() -> Dataset:
    """1000 + 1000 points on five curved arms; labels say which arm. Source: Johnson et al. 2016, arXiv:1603.06277.

    Examples
    --------
    >>> sorted(set(pinwheel().labels[0].tolist()))
    [0, 1, 2, 3, 4]
    """
    rng = np.random.RandomState(0)
    label = rng.randint(5, size=2000)
    arm = rng.normal(size=(2000, 2)) * [0.3, 0.05] + [1.0, 0.0]
    angle = 2 * np.pi * label / 5 + 0.25 * np.exp(arm[:, 0])
    cos, sin = np.cos(angle), np.sin(angle)
    points = np.stack([cos * arm[:, 0] - sin * arm[:, 1], sin * arm[:, 0] + cos * arm[:, 1]], axis=1)
    return _halves(
        "pinwheel", points, label, "five curved arms, drawn with seed 0; Johnson et al. 2016, arXiv:1603.06277"
    )


class Explained(NamedTuple):
    """Rows whose classes are known to depend on some features only, and on which.

    ``x`` is (rows, 10), ``shares`` the probability of each of two classes, (rows, 2), and ``relevant`` is True where a
    feature has a part in the shares of its row, (rows, 10): as many times in every row.
    """

    x: np.ndarray
    shares: np.ndarray
    relevant: np.ndarray


def xor(rows: int, seed: int = 0) -> Explained:
    """Ten standard normal features; the log odds are ``x0 x1``.

    The four sets for explanations are those of Chen, Song, Wainwright & Jordan 2018, arXiv:1802.07814, section 4.1,
    with the formulas of the authors' programs (github.com/Jianbo-Lab/L2X, synthetic/make_data.py), not their draws.

    Examples
    --------
    >>> xor(5).relevant.sum(axis=1).tolist()
    [2, 2, 2, 2, 2]
    """
    x = np.random.default_rng(seed).normal(size=(rows, 10))
    return _explained(x, x[:, 0] * x[:, 1], [0, 1])


def orange_skin(rows: int, seed: int = 0) -> Explained:
    """Ten standard normal features; the log odds are the sum of the squares of the first four, less 4. See `xor`."""
    x = np.random.default_rng(seed).normal(size=(rows, 10))
    return _explained(x, _orange(x[:, :4]), [0, 1, 2, 3])


def nonlinear_additive(rows: int, seed: int = 0) -> Explained:
    """Ten standard normal features; log odds ``-100 sin(0.2 x0) + |x1| + x2 + exp(-x3) - 2.4``. See `xor`.

    The first term outweighs the others: x0 alone tells almost all.
    """
    x = np.random.default_rng(seed).normal(size=(rows, 10))
    return _explained(x, _additive(x[:, :4]), [0, 1, 2, 3])


def switch(rows: int, seed: int = 0) -> Explained:
    """The last feature is about 3 or -3: where it is above 0 the class is as in `orange_skin`, by features 0 to 3.

    Elsewhere it is as in `nonlinear_additive`, by features 4 to 7. The last feature is always relevant. See `xor`.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 10))
    x[:, 9] += np.where(rng.uniform(size=rows) < 0.5, 3, -3)
    up = x[:, 9] > 0
    made = _explained(x, np.where(up, _orange(x[:, :4]), _additive(x[:, 4:8])), [9])
    made.relevant[:, :4], made.relevant[:, 4:8] = up[:, None], ~up[:, None]
    return made


EXPLAINED: dict[str, tuple[Callable[..., Explained], int]] = {
    "xor": (xor, 2),
    "orange skin": (orange_skin, 4),
    "nonlinear additive": (nonlinear_additive, 4),
    "switch": (switch, 5),
}


def _orange(x: np.ndarray) -> np.ndarray:
    return np.sum(x**2, axis=1) - 4


def _additive(x: np.ndarray) -> np.ndarray:
    return -100 * np.sin(0.2 * x[:, 0]) + np.abs(x[:, 1]) + x[:, 2] + np.exp(-x[:, 3]) - 2.4


def _explained(x: np.ndarray, log_odds: np.ndarray, features: list[int]) -> Explained:
    from scipy.special import expit  # the list of data sets is read without it

    relevant = np.zeros(x.shape, bool)
    relevant[:, features] = True
    one = expit(log_odds)
    return Explained(x, np.stack([1 - one, one], axis=1), relevant)


def _halves(name: str, points: np.ndarray, label: np.ndarray, source: str) -> Dataset:
    half = len(points) // 2
    labels = (label[:half], label[half:])
    return Dataset(name, points[:half], test=points[half:], labels=labels, hints={"kind": "real"}, source=source)
