"""A network with one hidden layer that tells classes. It is in no paper of *any* year, such as 1900.

What is measured of it is nowhere written.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from ravine.core import Row, averaged
from ravine.nets import MLP
from ravine.network_classifier import NetworkClassifier
from ravine.rules import Descend, Optimiser
from ravine.train import Stage


class Net(eqx.Module):
    """One hidden layer, and an affine read-out of it."""

    below: MLP
    top: MLP

    def features(self, row: Row) -> jax.Array:
        return jnp.tanh(self.below(row.x))

    def logits(self, row: Row) -> jax.Array:
        return self.top(self.features(row))


class Surprise(eqx.Module):
    """Mean of -log p(y | x) over the labelled rows of a batch."""

    def __call__(self, model: Net, batch: Row, *, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        def one(row: Row, key: jax.Array) -> jax.Array:
            nats = -jax.nn.log_softmax(model.logits(row))[jnp.maximum(row.y, 0)]
            return jnp.where(row.y_mask, nats, 0.0)

        return averaged(one, batch, key=key), {}


class TinyNetwork(NetworkClassifier):
    """A network with one hidden layer."""

    hidden: int = 4
    rate: float = 1e-2
    batch_size: int = 20
    steps: int = 20

    def build(self, schema: Any, classes: int = 2, *, key: Any) -> Net:
        a, b = jr.split(key)
        return Net(MLP(schema.width, self.hidden, (), key=a), MLP(self.hidden, classes, (), key=b))

    def stages(self, rows: int) -> list[Stage]:
        return [Stage(Descend(Surprise(), Optimiser(optax.adam, (self.rate,))), self.steps, self.batch_size)]


class Lenient(TinyNetwork):
    """The same, which can do without some labels."""

    labels_needed: ClassVar[bool] = False


def tiny(**fields: Any) -> TinyNetwork:
    return TinyNetwork(**{"random_state": 0, "progress": False} | fields)


@functools.cache
def groups() -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(0)
    y = stream.integers(0, 3, size=120)
    return stream.normal(size=(120, 4)) + 4 * np.eye(3, 4)[y], np.array(["a", "b", "c"])[y]
