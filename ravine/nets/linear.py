"""Linear maps into the numbers of a law."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


class LinearPredictor(eqx.Module):
    r"""The numbers of a law, of which those at ``places`` move with the input, :math:`r = r_0 + P W z`.

    Generalised linear models move the location alone; scales and shapes are the same for every input.

    Parameters
    ----------
    loading : W, shape (places, inputs).
    numbers : :math:`r_0`, shape (size,).
    places : which of the numbers move, as ``link.locations(shape)`` says.

    Raises
    ------
    ValueError
        When there is not one row of the loading for each place.

    Examples
    --------
    >>> LinearPredictor(jnp.ones((1, 2)), jnp.zeros(3), (1,))(jnp.array([1.0, 2.0])).tolist()
    [0.0, 3.0, 0.0]
    """

    loading: Float[Array, "places inputs"]
    numbers: Float[Array, " size"]
    places: tuple[int, ...] = eqx.field(static=True)

    def __check_init__(self) -> None:
        if self.loading.shape[0] != len(self.places):
            want, got = len(self.places), self.loading.shape[0]
            raise ValueError(f"LinearPredictor needs a row of the loading for each of {want} places, got {got}.")

    def __call__(self, z: Float[Array, " inputs"]) -> Float[Array, " size"]:
        """The numbers for one input."""
        return self.numbers.at[jnp.asarray(self.places)].add(self.loading @ z)
