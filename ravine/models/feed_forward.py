"""A feed-forward net of logistic units with a softmax on top: what a deep belief net becomes for back-propagation."""

from __future__ import annotations

import equinox as eqx
import jax
from jaxtyping import Array, Float


class FeedForward(eqx.Module):
    """Layers of logistic units, and an affine read-out.

    Parameters
    ----------
    weights : of each layer and of the read-out, shape (below, above).
    biases : of each layer and of the read-out.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> FeedForward((jnp.ones((2, 3)), jnp.ones((3, 2))), (jnp.zeros(3), jnp.zeros(2)))(jnp.zeros(2)).tolist()
    [1.5, 1.5]
    """

    weights: tuple[Float[Array, "_below _above"], ...]
    biases: tuple[Float[Array, " _above"], ...]

    def features(self, x: Float[Array, " cells"]) -> Float[Array, " units"]:
        """The units of the topmost layer, which the read-out sees."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = jax.nn.sigmoid(x @ weight + bias)
        return x

    def __call__(self, x: Float[Array, " cells"]) -> Float[Array, " outputs"]:
        """The logits of one input."""
        return self.features(x) @ self.weights[-1] + self.biases[-1]
