"""Neural generative coding. Ororbia & Kifer 2022, Nature Communications 13:2064, arXiv:2012.03405.

Sizes, rates and the wiring of the four members follow the public walk-through of their library and its first versions,
as far as these tell. Where they do not: the predictions of hidden layers are linear in all members but the last, and
errors of t1-Sigma go up by the transposed weights alone. Precisions are learned through a triangular root, without the
bound that they have there.

The numbers of that walk-through for log p(x) are no log-likelihoods: it adds the log of the number of draws, where an
average over draws subtracts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule
from ravine.core import AbstractEvidence
from ravine.data import Schema
from ravine.evidence import AroundSettled
from ravine.models.families import AbstractFamily, Diagonal
from ravine.models.neural_coding import (
    Competition,
    FittedTop,
    NeuralCircuit,
    NeuralCoder,
    Separate,
    SlopedTranspose,
    Transpose,
)
from ravine.nets import identity, relu, tanh
from ravine.objectives import Hebbian
from ravine.recognisers import NeuralSettling
from ravine.rules import Descend, IncomingNorm, Optimiser, Projected
from ravine.settled import Firing, SettlingModel
from ravine.train import Stage
from ravine.trial import Trial

T1 = NeuralCircuit(tanh, identity, SlopedTranspose(), sparsity=0.01)
T1_SIGMA = NeuralCircuit(relu, identity, Transpose(), correlated=True, sparsity=0.01)
T2_LSIGMA = NeuralCircuit(relu, identity, Separate(), Competition(), correlated=True)
PDH = NeuralCircuit(relu, relu, Separate(), Competition(), correlated=True, skips=True)

SYNAPSES = ("weights", "skips", "circuit.feedback")
ORORBIA = "Ororbia & Kifer 2022; its log p(x) is of another estimator"
MEMBERS = {
    "-t1": (T1, ""),
    "-t1-sigma": (T1_SIGMA, "; active cells, table 3: 0.74, 0.60, 0.63"),
    "-t2-lsigma": (T2_LSIGMA, "; active cells, table 3: 0.21, 0.18, 0.16"),
    "": (PDH, "; active cells, table 3: 0.22, 0.21, 0.19"),
}
LONG: dict[str, Any] = {"steps": 1_000, "validation": 0.0}


class NeuralGenerativeCoding(Firing, SettlingModel):
    """Layers of rate-coded cells, driven by error cells, that learn by products of what they join.

    Rows are drawn from a mixture of Gaussians, fitted to where the top layer settles, by predictions from there down.

    Parameters
    ----------
    hidden : cells of the layers, the lowest first; groups of competing cells divide them.
    circuit : which member of the family: ``T1``, ``T1_SIGMA``, ``T2_LSIGMA``, ``PDH`` of this module, or another.
    settling_steps, settling_rate, leak : how cells settle: see `ravine.recognisers.NeuralSettling`.
    rate : step size of Adam, a number or a schedule.
    max_norm : bound on the norm of the synapses of each kind that come into a cell.
    components, covariance : of the mixture on top.
    batch_size, steps : rows per step, and the number of steps at most.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).integers(0, 2, size=(60, 1)) * np.ones((1, 4))
    >>> model = NeuralGenerativeCoding(hidden=(6, 6), circuit=T1, components=2, steps=20, random_state=0).fit(X)
    >>> model.transform(X).shape, model.sparsity(X).shape, model.sample(3).shape
    ((60, 6), (2,), (3, 4))
    """

    hidden: tuple[int, ...] = (360, 360, 360)
    circuit: NeuralCircuit = PDH
    settling_steps: int = 50
    settling_rate: float = 0.1
    leak: float = 1e-3
    rate: float | AbstractSchedule = 1e-3
    max_norm: float = 1.0
    components: int = 75
    covariance: AbstractFamily = Diagonal(1e-4)
    batch_size: int = 512
    steps: int = 10_000
    evidence: AbstractEvidence = AroundSettled(1000)

    kinds: ClassVar[tuple[str, ...]] = ("binary",)
    trials: ClassVar[Mapping[str, Trial]] = {
        f"small{name}": Trial("mnist", LONG | {"circuit": circuit}, None, f"{ORORBIA}{active}", tested=2_000)
        for name, (circuit, active) in MEMBERS.items()
    }

    def build(self, schema: Schema, *, key: PRNGKeyArray) -> NeuralCoder:
        """A net sized for the data."""
        settling = NeuralSettling(self.settling_steps, self.settling_rate, self.leak, self.circuit.sparsity)
        widths = (schema.width, *self.hidden)
        return self.circuit(widths, (self.covariance, self.components), settling, key=key)

    def stages(self, rows: int) -> list[Stage]:
        """Hebbian learning, and then the law of the top layer."""
        rule = Descend(Hebbian(), Optimiser(optax.adam, (self.rate,)))
        bounded = Projected(rule, IncomingNorm(SYNAPSES, self.max_norm))
        top = FittedTop(self.covariance, self.components)
        learning = Stage(bounded, self.steps, self.batch_size, judge=Hebbian())
        return [learning, Stage(bounded, 0, self.batch_size, prepare=top)]
