r"""Spins on a square lattice at equilibrium, by clusters: an exact law to learn, with a label that is no single cell.

.. math:: p(s) \propto \exp\Big(J \sum_{\langle i j \rangle} s_i s_j\Big), \quad s_i = \pm 1

on a lattice whose edges meet. Ising 1925; Swendsen & Wang 1987, *Nonuniversal critical dynamics in Monte Carlo
simulations*; Onsager 1944 for the coupling at which an endless lattice orders.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int

from ravine._check import require, whole
from ravine.data.dataset import Dataset

CRITICAL = 0.5 * math.log1p(math.sqrt(2))
BURN, APART = 50, 5  # sweeps before the first draw, and between two of one chain
CHAINS = (400, 100)  # of the training rows and of the test rows
DRAWS = 50  # of each chain


def ising(side: int = 6, coupling: float = CRITICAL) -> Dataset:
    """20000 + 5000 lattices as bits, near where they order; the label is 1 where most spins point up.

    A lattice with as many spins up as down is labelled by a coin. Test rows come from chains of their own.

    Examples
    --------
    >>> data = ising(3)
    >>> data.train.shape, data.test.shape
    ((20000, 9), (5000, 9))
    """
    split = CHAINS[0] * DRAWS
    spins = ising_spins(side, coupling, sum(CHAINS), DRAWS).reshape(-1, side * side)
    bits, label = ((1 + spins) // 2).astype(np.uint8), up_or_down(spins)
    source = f"drawn by clusters from the Ising model, {side} x {side}, coupling {coupling:.4f}, with seed 0"
    hints = {"kind": "binary", "image_shape": (side, side)}
    return Dataset("ising", bits[:split], None, bits[split:], (label[:split], label[split:]), hints, source)


def up_or_down(spins: Int[np.ndarray, "rows cells"], seed: int = 0) -> Int[np.ndarray, " rows"]:
    """1 where the sum of the spins is positive, 0 where it is negative, a coin where it is 0.

    Examples
    --------
    >>> up_or_down(np.array([[1, 1, -1], [-1, -1, 1]])).tolist()
    [1, 0]
    """
    total = spins.sum(axis=1)
    coin = np.random.default_rng(seed).integers(2, size=len(spins))
    return np.where(total == 0, coin, total > 0).astype(np.int64)


def ising_spins(
    side: int, coupling: float, chains: int, draws: int, seed: int = 0
) -> Int[np.ndarray, "chains draws side side"]:
    """Lattices of -1 and 1 from independent chains, each ``draws`` times.

    At every sweep each bond between equal spins is kept with probability 1 - exp(-2J), and every cluster of kept bonds
    points up or down by a coin: Swendsen & Wang 1987. The chains mix within a few sweeps at any coupling.

    Parameters
    ----------
    side : spins along each side, at least 3.
    coupling : J, at least 0.
    chains, draws : independent chains, and draws of each.

    Examples
    --------
    >>> ising_spins(3, 0.4, chains=2, draws=5).shape
    (2, 5, 3, 3)
    """
    whole("side", side, 3)
    require(coupling >= 0, "coupling", "a number of at least 0", f"{coupling}", "choose another")
    stream, kept = np.random.default_rng(seed), []
    spins = 2 * stream.integers(2, size=(chains, side, side)) - 1
    for sweep in range(BURN + APART * draws):
        spins = _swept(spins, 1 - math.exp(-2 * coupling), stream)
        if sweep >= BURN and (sweep - BURN) % APART == APART - 1:
            kept.append(spins)
    return np.stack(kept, axis=1).astype(np.int8)


def _swept(spins: np.ndarray, keep: float, stream: np.random.Generator) -> np.ndarray:
    """Every chain after one sweep."""
    from scipy.sparse import coo_array  # the list of data sets is read without it
    from scipy.sparse.csgraph import connected_components

    places = np.arange(spins.size).reshape(spins.shape)
    ends = []
    for axis in (1, 2):
        bond = (spins == np.roll(spins, -1, axis)) & (stream.uniform(size=spins.shape) < keep)
        ends.append((places[bond], np.roll(places, -1, axis)[bond]))
    one, other = (np.concatenate(side) for side in zip(*ends, strict=True))
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(spins.size, spins.size))
    clusters, member = connected_components(graph, directed=False)
    return (2 * stream.integers(2, size=clusters) - 1)[member].reshape(spins.shape)
