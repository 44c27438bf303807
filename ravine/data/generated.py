"""Data sets made by a few lines of arithmetic, the same on every machine."""

from __future__ import annotations

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


def _halves(name: str, points: np.ndarray, label: np.ndarray, source: str) -> Dataset:
    half = len(points) // 2
    labels = (label[:half], label[half:])
    return Dataset(name, points[:half], test=points[half:], labels=labels, hints={"kind": "real"}, source=source)
