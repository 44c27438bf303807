"""Nets of energies. LeCun et al. 2006, *A tutorial on energy-based learning*; Du & Mordatch 2019, arXiv:1903.08689.

No number of either is compared with: the tutorial has none, and images need other nets. `EnergyClassifier` after
Grathwohl et al. 2020, arXiv:1912.03263; see `ravine reproduce energy-based`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray

from ravine._check import Absent
from ravine._tree import Fixed, Linear, Part
from ravine.core import AbstractEvidence, AbstractRule
from ravine.data import Schema
from ravine.dist import Gaussian
from ravine.energies import EnergyModel
from ravine.evidence import AIS, Normalised
from ravine.labelled import LabelledModel
from ravine.models.energy_net import AnswerNet, EnergyNet
from ravine.models.moves import AbstractMoves, HamiltonianMoves
from ravine.nets import reader, silu
from ravine.objectives.contrast import Contrast
from ravine.objectives.energy_losses import Discriminative, JointContrast
from ravine.objectives.noise_contrastive import NoiseContrastive
from ravine.objectives.score_matching import DenoisingScoreMatching, ScoreMatching, SlicedScoreMatching
from ravine.rules import Contrastive, Descend, Optimiser, Persistent
from ravine.train import Stage
from ravine.trial import Trial


def falling(rate: float, steps: int) -> Optimiser:
    """Adam, with a rate that falls to a hundredth."""
    return Optimiser(optax.adam, (Linear(rate, rate / 100, float(steps)),))


def by_chains(steps: int) -> Contrastive:
    """Contrastive learning with persistent chains."""
    return Contrastive(Contrast(0.0, Part("net")), Persistent(1, 300), falling(5e-3, steps))


FALLING, SLOWER = falling(5e-3, 5_000), falling(1e-3, 5_000)
LEARNING: dict[str, dict[str, Any]] = {
    "": {},
    "-noise": {"learning": Descend(NoiseContrastive(10), FALLING), "validation": 0.1},
    "-denoising": {"learning": Descend(DenoisingScoreMatching(0.1), FALLING)},
    "-score": {"learning": Descend(ScoreMatching(), SLOWER), "validation": 0.1},
    "-sliced": {"learning": Descend(SlicedScoreMatching(), SLOWER), "validation": 0.1},
}
NONE = "the papers have no such number"
TRIALS = {
    f"small{of}{suffix}": Trial(data, fields, None, NONE)
    for of, data in (("", "moons"), ("-pinwheel", "pinwheel"))
    for suffix, fields in LEARNING.items()
}
BY_LABELS = Descend(Discriminative(), Optimiser(optax.adam, (1e-3,)))
JOINT = Contrastive(JointContrast(), Persistent(1, 300), SLOWER)
LABELLED = {
    "small": Trial("pinwheel", {"learning": JOINT, "batch_size": 300, "steps": 5_000}, None, NONE, 10),
    "small-labels": Trial("pinwheel", {}, None, NONE, 10),
}


def absent(why: str) -> Any:
    """A verb that a recipe does not have."""

    def refuse(self: Any) -> Any:
        raise Absent(f"{type(self).__name__} {why}.")

    return property(refuse)


NO_LATENTS = absent("has no latents; use sample, impute or free_energy")
NO_CAUSES = absent("has no law of rows given a label in closed form; use sample or impute")


class EnergyBased(EnergyModel, auto_wrap_output_keys=None):
    """A net that gives every row an energy: the density of real cells, of any form that the net can take.

    It has no latents. ``learning`` is the whole rule: ``Contrastive(...)`` for the likelihood, ``Descend(...)`` of
    ``ScoreMatching()``, ``SlicedScoreMatching()``, ``DenoisingScoreMatching(0.1)`` or ``NoiseContrastive()`` for what
    needs no chains; only these are judged on held-out rows. Learning by chains that mix badly diverges: more steps of
    the kernel, or a lower rate, help.

    Parameters
    ----------
    hidden : widths of the hidden layers.
    channels : for images, feature maps of convolutions, sides halved after each.
    activation : nonlinearity between layers; a smooth one, for chains follow its slope.
    moves : the kernel, such as ``HamiltonianMoves(0.15, 5)``, ``MetropolisMoves(0.01)``, ``LangevinMoves(0.01)``.
    spread : standard deviation of the Gaussian that the net adds to, in the units that the model sees.
    learning : the rule; None learns by persistent chains, at a rate that falls over all steps.
    batch_size, steps : rows per step, and the number of steps at most.
    sweeps : steps of the kernel that make a draw.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(60, 2))
    >>> model = EnergyBased(hidden=(8,), steps=20, sweeps=10, random_state=0).fit(X)
    >>> model.sample(2).shape, model.free_energy(X).shape
    ((2, 2), (60,))
    """

    hidden: tuple[int, ...] = (64, 64)
    channels: tuple[int, ...] = ()
    activation: Callable = silu
    moves: AbstractMoves = HamiltonianMoves()
    spread: float = 1.0
    learning: AbstractRule | None = None
    batch_size: int = 300
    steps: int = 5_000
    sweeps: int = 200
    evidence: AbstractEvidence = Normalised(AIS(1000, 100))
    standardise: bool = True
    validation: float = 0.0

    kinds: ClassVar[tuple[str, ...]] = ("real",)
    trials: ClassVar[Mapping[str, Trial]] = TRIALS
    transform = fit_transform = get_feature_names_out = inverse_transform = reconstruct = receptive_fields = NO_LATENTS

    def build(self, schema: Schema, *, key: PRNGKeyArray) -> EnergyNet:
        """A net near a constant, on top of a Gaussian about the mean of the data."""
        form = {"activation": self.activation, "image": schema.image_shape, "channels": self.channels}
        net = reader(schema.width, 1, self.hidden, key=key, **form)
        base = Gaussian(jnp.asarray(schema.base).reshape(schema.shape), jnp.full(schema.shape, self.spread))
        return EnergyNet(net, Fixed(base), jnp.array(0.0), self.moves, sweeps=self.sweeps)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of the chosen rule."""
        return [Stage(self.learning or by_chains(self.steps), self.steps, self.batch_size)]

    def _latent_like(self) -> tuple[()]:
        return ()


class EnergyClassifier(LabelledModel, EnergyModel, auto_wrap_output_keys=None):
    """A net that gives every row an energy for each label; with the label summed out it is a density of rows.

    ``free_energy`` is high for rows that are unlike those it has learned. ``learning`` is the whole rule: ``Descend``
    of ``Discriminative(loss)`` with any loss of the tutorial, or ``Contrastive(JointContrast(loss), ...)``, which
    learns the density too, and from rows without a label. Missing cells are read as the mean.

    Parameters
    ----------
    hidden : widths of the hidden layers.
    channels : for images, feature maps of convolutions, sides halved after each.
    activation : nonlinearity between layers; a smooth one, for chains follow its slope.
    moves : the kernel, such as ``HamiltonianMoves(0.15, 5)``, ``MetropolisMoves(0.01)``, ``LangevinMoves(0.01)``.
    spread : standard deviation of the Gaussian that the net adds to, in the units that the model sees.
    learning : the rule; None lowers ``Discriminative(NLLLoss())`` by Adam.
    batch_size, steps : rows per step, and the number of steps.
    sweeps : steps of the kernel that make a draw.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.arange(60) % 2
    >>> X = np.random.default_rng(0).normal(size=(60, 2)) + 6 * y[:, None]
    >>> model = EnergyClassifier(hidden=(8,), steps=100, random_state=0).fit(X, y)
    >>> float((model.predict(X) == y).mean()), model.free_energy(X).shape
    (1.0, (60,))
    """

    hidden: tuple[int, ...] = (64, 64)
    channels: tuple[int, ...] = ()
    activation: Callable = silu
    moves: AbstractMoves = HamiltonianMoves()
    spread: float = 1.0
    learning: AbstractRule | None = None
    batch_size: int = 100
    steps: int = 2_000
    sweeps: int = 200
    evidence: AbstractEvidence = Normalised(AIS(1000, 100))
    standardise: bool = True
    validation: float = 0.0

    kinds: ClassVar[tuple[str, ...]] = ("real",)
    trials: ClassVar[Mapping[str, Trial]] = LABELLED
    inverse_transform = reconstruct = receptive_fields = NO_CAUSES

    def build(self, schema: Schema, *, key: PRNGKeyArray) -> AnswerNet:
        """A net near a constant, on top of a Gaussian about the mean of the data."""
        form = {"activation": self.activation, "image": schema.image_shape, "channels": self.channels}
        net = reader(schema.width, self.class_count(), self.hidden, key=key, **form)
        base = Gaussian(jnp.asarray(schema.base).reshape(schema.shape), jnp.full(schema.shape, self.spread))
        return AnswerNet(net, Fixed(base), jnp.array(0.0), self.moves, sweeps=self.sweeps)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of the chosen rule."""
        return [Stage(self.learning or BY_LABELS, self.steps, self.batch_size)]
