"""Contractive autoencoder. Rifai, Vincent, Muller, Glorot & Bengio 2011.

*Contractive auto-encoders: explicit invariance during feature extraction*; as reviewed by Bengio, Courville & Vincent
2013, arXiv:1206.5538.
"""

from __future__ import annotations

from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule
from ravine.data import Schema
from ravine.models.autoencoder import StackedAutoencoder, Tie
from ravine.objectives import Contractive
from ravine.row_encoder import RowEncoder, Wanders, layer_by_layer, stack_of
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
        """Layers that know no more than the means of the cells."""
        learning = Contractive(self.weight)
        return stack_of(schema, self.layers, self.way_back, learning, self.steps, self.passes, key=key)

    def stages(self, rows: int) -> list[Stage]:
        """Layer by layer."""
        return layer_by_layer(Contractive(self.weight), len(self.layers), self.rate, self.steps, self.batch_size)
