"""The studies of coupled networks: what they count, and that what they say follows from it."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from ravine.models.coupled import AssociativeMemory
from ravine.studies import few_labels, prototypes


def test_rows_are_near_their_patterns():
    """A share of 0.1 of 64,000 bits, within 4.5 standard errors: false failures 1 in 150,000 seeds."""
    patterns = np.random.default_rng(0).integers(0, 2, size=(10, 64))
    X, y = prototypes.near(patterns, 1_000, seed=3)
    share = np.mean(X != patterns[y])
    assert abs(share - 0.1) < 4.5 * np.sqrt(0.1 * 0.9 / X.size) and set(np.unique(X)) == {0.0, 1.0}
    assert np.unique(y).tolist() == list(range(10))


def test_what_is_noted_of_made_rows():
    patterns, made = np.eye(3), {"told": [], "asked": [], "away": []}
    rows = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 0.5]])
    prototypes._noted(made, 0.25, patterns, (rows, np.array([0, 1, 2])))
    assert made["told"] == [0.25] and made["asked"] == [pytest.approx(2 / 3)]
    assert made["away"] == [pytest.approx((0 + 2 + 0.5) / 3, abs=1e-5)]


def test_words_and_picture_of_prototypes():
    found = {"transposed": {"told": [1.0, 0.5], "asked": [0.5, 0.25], "away": [7.0, 8.0]}}
    result = {"found": found | {"real": {"told": [1.0], "asked": [1.0], "away": [6.5]}}}
    lines = prototypes.words(result).splitlines()
    assert lines[2] == "| transposed | 75.0 % | 37.5 % | 7.50 |" and "6.50" in lines[3]
    figure = prototypes.picture(result)
    assert isinstance(figure, Figure) and list(figure.axes[0].lines[0].get_xdata()) == [7.0, 8.0]


@pytest.mark.slow
def test_prototypes_are_told_and_made():
    found = prototypes.found([0], rows=2_000, steps=6_000)
    tied, real = found["transposed"], found["real"]
    assert tied["told"][0] > 0.99 and tied["asked"][0] > 0.99 and tied["away"][0] < found["separate"]["away"][0]
    assert real["told"] == [1.0] and 6.2 < real["away"][0] < 6.7 < tied["away"][0] < 8


def test_words_and_picture_of_few_labels():
    result = {"found": {"10": {"coupled": [0.8, 0.9], "alone": [0.7, 0.7]}}}
    line = few_labels.words(result).splitlines()[2]
    assert line == "| 100 | 85.00 ± 5.00 % | 70.00 ± 0.00 % | 15.00 ± 5.00 % |"
    figure = few_labels.picture(result)
    assert [sorted(dots.get_ydata()) for dots in figure.axes[0].lines] == [[80, 90], [70, 70]]


@pytest.mark.slow
def test_few_labels_counts_right_rows(monkeypatch):
    """Digits of scikit-learn: both learn, and what is reported is what each of them tells."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    rows = ((X > 7).astype(np.float32), y)
    split = ((rows[0][:1500], y[:1500]), (rows[0][1500:], y[1500:]))
    monkeypatch.setattr(few_labels, "_bits", lambda data: split)
    monkeypatch.setattr(few_labels, "STOPS", (1_000, 3_000))
    monkeypatch.setattr(few_labels, "AssociativeMemory", lambda: AssociativeMemory(64))
    found = few_labels.found([0], labels=[30], steps=3_000, layers=(64,))["30"]
    assert found["alone"][0] > 0.6 and found["coupled"][0] > 0.6
    assert len(found["coupled"]) == len(found["alone"]) == 1
