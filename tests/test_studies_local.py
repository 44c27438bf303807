"""The study of local learning: what it reads of trials and counts of steps, and that what it says follows from it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from networks import TinyNetwork

from ravine.data import Dataset
from ravine.studies import local_learning
from ravine.studies.local_learning import WAYS, Way
from ravine.trial import Trial

TRIALS = {"small": Trial("mnist-grey", {"hidden": 100, "batch_size": 50, "steps": 700, "standardise": False})}
TINY = Way(TinyNetwork, "small", (False, True, True))


@pytest.fixture
def digits(monkeypatch):
    """Grey values of the size of MNIST, by lot."""
    stream = np.random.default_rng(0)
    rows, labels = stream.integers(0, 256, size=(80, 784)).astype(np.float64), np.arange(80) % 10
    made = Dataset("mnist-grey", rows, labels=(labels, None), hints={"kind": "levels", "levels": 256})
    monkeypatch.setattr(local_learning, "load_dataset", lambda name: made)
    monkeypatch.setattr(TinyNetwork, "trials", TRIALS)
    return made


def test_a_way_is_what_its_trial_measured_and_what_a_step_costs(digits, tmp_path):
    """Forwards, and backwards to the weights: 4 operations for each weight of the first layer, 6 for others' 1,000.

    Adam, 15 or so for a weight of 50 rows' step, and the activations are the rest.
    """
    measured = {"accuracy": 0.9, "seeds": [0.9], "rows": 10_000}
    (tmp_path / "tiny-network-small.json").write_text(json.dumps({"measured": measured}))
    found = local_learning.found([0], 60, {"tiny": TINY}, tmp_path)["tiny"]
    assert found["accuracy"] == 0.9 and found["kept"] == [False, True, True] and "log_likelihood" not in found
    (stage,) = found["stages"]
    least = 4 * 784 * 100 + 6 * 100 * 10
    assert stage["steps"] == 700 and least < stage["operations"] < 1.15 * least and stage["bytes"] > 0


def test_both_kinds_of_numbers_are_read(tmp_path):
    measured = {"log_likelihood": -90.0, "standard_error": 0.5, "direction": "lower", "seeds": [-90.0, -90.0]}
    result = {"measured": measured, "accuracy": {"measured": 0.8}}
    (tmp_path / "tiny-network-small.json").write_text(json.dumps(result))
    expected = {key: measured[key] for key in ("log_likelihood", "standard_error", "direction")}
    got = local_learning.recorded(TINY, tmp_path)
    assert got == expected | {"accuracy": 0.8, "seeds": 2, "kept": [False, True, True]}
    said = "tiny-network-other.json: expected what a trial has measured, got no such file; run ravine reproduce tiny-n"
    with pytest.raises(ValueError, match=said):
        local_learning.recorded(TINY._replace(scale="other"), tmp_path)


def test_words_and_picture():
    stages = [{"steps": 10, "operations": 100.0, "bytes": 8.0}, {"steps": 30, "operations": 200.0, "bytes": 16.0}]
    law = {"log_likelihood": -90.0, "standard_error": 0.5, "direction": "lower"}
    one = {"accuracy": 0.98, "seeds": 1, "kept": [True, False, True], "stages": stages}
    result = {"found": {"one": one, "two": one | law | {"accuracy": None}}}
    lines = local_learning.words(result).splitlines()
    assert lines[2] == "| one | 2.00 % |  | 1.8e+02 | 14 | 40 | yes | no | yes |"
    assert lines[3] == "| two |  | -90.00 ± 0.50 | 1.8e+02 | 14 | 40 | yes | no | yes |"
    assert all(line.count("|") == 10 for line in lines)
    figure = local_learning.picture(result)
    assert isinstance(figure, Figure)
    (dot,) = figure.axes[0].lines
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (7_000, pytest.approx(2.0))


def test_every_way_is_a_trial_that_was_run():
    for way in WAYS.values():
        assert way.scale in way.made.trials
        got = local_learning.recorded(way, local_learning.RECORDED)
        assert got["accuracy"] is not None or got["log_likelihood"] < 0
