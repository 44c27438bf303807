"""Student's laws of mixtures: what is predicted of a row when the parameters of a Gaussian are uncertain."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ravine.core import Row
from ravine.dist import FullStudentT, StudentT
from ravine.models.components import AbstractLaws


class StudentLaws(AbstractLaws):
    """k laws of correlated cells, `ravine.dist.FullStudentT`.

    Parameters
    ----------
    locations : centres, shape (k, d).
    factors : lower Cholesky factors of the scale matrices, shape (k, d, d).
    freedom : degrees of freedom, shape (k,).

    Examples
    --------
    >>> StudentLaws(jnp.zeros((2, 1)), jnp.ones((2, 1, 1)), jnp.ones(2)).size()
    2
    """

    locations: Float[Array, "k d"]
    factors: Float[Array, "k d d"]
    freedom: Float[Array, " k"]

    def size(self) -> int:
        return self.locations.shape[0]

    def law(self, z: Float[Array, " k"]) -> FullStudentT:
        return FullStudentT(z @ self.locations, jnp.tensordot(z, self.factors, 1), z @ self.freedom)

    def given(self, row: Row) -> FullStudentT:
        return jax.vmap(lambda law: law.condition(row.x, row.mask))(self._laws())

    def log_prob_all(self, row: Row) -> Float[Array, " k"]:
        return jax.vmap(lambda law: law.log_prob(row.x, row.mask))(self._laws())

    def _laws(self) -> FullStudentT:
        return jax.vmap(FullStudentT)(self.locations, self.factors, self.freedom)


class CellStudentLaws(AbstractLaws):
    """k laws of independent cells, `ravine.dist.StudentT`; every parameter of shape (k, d).

    Examples
    --------
    >>> CellStudentLaws(*(jnp.ones((2, 3)) for _ in range(3))).law(jnp.array([0.0, 1.0])).freedom.tolist()
    [1.0, 1.0, 1.0]
    """

    locations: Float[Array, "k d"]
    scales: Float[Array, "k d"]
    freedom: Float[Array, "k d"]

    def size(self) -> int:
        return self.locations.shape[0]

    def law(self, z: Float[Array, " k"]) -> StudentT:
        return StudentT(z @ self.locations, z @ self.scales, z @ self.freedom)

    def given(self, row: Row) -> StudentT:
        return StudentT(self.locations, self.scales, self.freedom)

    def log_prob_all(self, row: Row) -> Float[Array, " k"]:
        return jax.vmap(lambda law: law.log_prob(row.x, row.mask))(self.given(row))
