"""Contractive autoencoder. Rifai, Vincent, Muller, Glorot & Bengio 2011.

*Contractive auto-encoders: explicit invariance during feature extraction*; as reviewed by Bengio, Courville & Vincent
2013, arXiv:1206.5538.
"""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Layer
from ravine.data import Schema
from ravine.models.autoencoder import AffineReading, LogisticReading, StackedAutoencoder, Tie, autoencoder_stack
from ravine.objectives import Contractive, OfLayer
from ravine.row_encoder import RowEncoder, Wanders
from ravine.rules import Descend, Optimiser
from ravine.train import Stage


class ContractiveAutoencoder(Wanders, RowEncoder):
    """Layers of logistic units that give the layer below back, and hardly move when it does.

    Parameters
    ----------
    layers : units of the layers, the lowest first.
    weight : of the squared norm of the Jacobian of the units, beside the loss of a row in nats.
    way_back : ``"transposed"`` for the weights of the way there, or ``"separate"`` for others.
    rate : step size of Adam, a number or a schedule.
    batch_size, steps : rows per step, and the number of steps for each layer at most.
    passes : up and down again, that make a draw.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(60, 4))
    >>> model = ContractiveAutoencoder(layers=(3,), steps=20, random_state=0).fit(X)
    >>> model.transform(X).shape, model.inverse_transform(model.transform(X)).shape
    ((60, 3), (60, 4))
    """

    layers: tuple[int, ...] = (500,)
    weight: float = 0.1
    way_back: Tie = "transposed"
    rate: float | AbstractSchedule = 1e-3
    batch_size: int = 100
    steps: int = 10_000
    passes: int = 100

    def build(self, schema: Schema, *, key: PRNGKeyArray) -> StackedAutoencoder:
        """Layers that know no more than the means of the cells; levels are grey values between 0 and 1."""
        top = schema.levels - 1 if schema.kind == "levels" else 1
        lowest = AffineReading() if schema.kind == "real" else LogisticReading()
        form = {"tie": self.way_back, "top": top, "passes": self.passes}
        return autoencoder_stack(self.layers, lowest, jnp.asarray(schema.base) / top, **form, key=key)

    def stages(self, rows: int) -> list[Stage]:
        """Layer by layer."""
        adam, count = Optimiser(optax.adam, (self.rate,)), range(len(self.layers))
        rules = [Descend(OfLayer(i, Contractive(self.weight)), adam, on=Layer(i)) for i in count]
        return [Stage(rule, self.steps, self.batch_size) for rule in rules]
