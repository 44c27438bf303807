"""Machines with two regions between which no chain travels: where annealing sets out decides what it finds."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import some

from ravine._tree import Fixed, unfix
from ravine.core import Row
from ravine.data import ArraySource
from ravine.diagnose import top_energies
from ravine.evidence import AIS
from ravine.models.coupled import ClassMeans, coupled_net
from ravine.models.deep_belief import AnnealedFromRows, DeepBelief, Tied
from ravine.models.energy import Dense, Harmonium
from ravine.models.labelled_energy import LabelledHarmonium
from ravine.models.unit_groups import Beside
from ravine.models.units import BinaryUnits, SoftmaxUnits

CELLS, HIDDEN = 12, 30
ROWS = Row(jnp.ones((40, CELLS)).at[:10, 0].set(0))


def bits(n: int, bias: float = 0.0) -> BinaryUnits:
    return BinaryUnits((n,), jnp.full(n, bias))


def two_regions(labelled: bool) -> DeepBelief:
    """On top all units are on, or all are off: the first has e^6 times the weight of the other; rows lead there."""
    layer = Tied(bits(CELLS, -10.0), bits(CELLS, -10.0), Dense(20.0 * jnp.eye(CELLS)))
    units, hidden, weight = bits(CELLS, -57.77), bits(HIDDEN, 0.0), jnp.full((CELLS, HIDDEN), 2.0)
    if not labelled:
        return DeepBelief((layer,), Harmonium(units, hidden, Dense(weight), Fixed(bits(CELLS)), sweeps=50))
    label, weight = SoftmaxUnits().sized((2,)), jnp.concatenate([weight, jnp.zeros((2, HIDDEN))])
    pair = Harmonium(Beside((units, label)), hidden, Dense(weight), Fixed(Beside((bits(CELLS), label))), sweeps=50)
    return DeepBelief((layer,), LabelledHarmonium(pair, sweeps=50))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("labelled", some([False, True], True), ids=["rows", "labels"])
def test_annealing_from_the_rates_of_rows_finds_the_region_where_they_are(labelled):
    before = two_regions(labelled)
    after = AnnealedFromRows()(before, ArraySource(ROWS), key=jr.key(0))
    exact = float(before.top.log_partition())
    assert float(after.top.log_partition()) == pytest.approx(exact, abs=1e-9)  # the law is the same
    found = [AIS(300, 20)(net.top, key=jr.key(1)) for net in (before, after)]
    assert found[0].value < exact - 4 and found[0].deviation < 0.5  # wrong, and nothing in the weights says so
    assert abs(found[1].value - exact) < 0.2
    told = [top_energies(net, ROWS, 20, key=jr.key(2)) for net in (before, after)]
    assert not told[0].same_region and told[1].same_region


@pytest.mark.usefixtures("x64")
def test_the_start_has_the_rates_of_rows():
    net = AnnealedFromRows()(two_regions(True), ArraySource(ROWS), key=jr.key(0))
    cells, label = unfix(net.top.pair.base).groups
    rate = np.mean(jax.vmap(net.climbed)(ROWS), axis=0)
    np.testing.assert_allclose(jax.nn.sigmoid(cells.bias), np.clip(rate, 0.01, 0.99), atol=0.02)
    assert not np.any(label.bias) and cells.bias[0] < cells.bias[1] - 1


def test_a_normalised_law_needs_no_start():
    net = coupled_net(bits(CELLS), (3,), ClassMeans(), 2, 1, key=jr.key(0))
    assert AnnealedFromRows()(net, ArraySource(ROWS), key=jr.key(0)) is net


@pytest.mark.usefixtures("x64")
def test_energies_on_top_are_free_energies():
    net = two_regions(True)
    net = dataclasses.replace(net, layers=(Tied(bits(CELLS), bits(CELLS, 500.0), Dense(jnp.zeros((CELLS, CELLS)))),))
    found = top_energies(net, ROWS, 5, key=jr.key(0))
    on = 57.77 * CELLS - HIDDEN * np.log1p(np.exp(2.0 * CELLS)) - np.log(2)
    assert found.rows == pytest.approx(on, abs=1e-6) and found.rows_deviation < 1e-9
