"""Any numpyro distribution as one of ours."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from ravine.core import AbstractDistribution, AbstractReparametrised, Scalar
from ravine.dist._cells import check, total


def _codes(law: Any, value: Array) -> Array:
    """Numpyro looks categories up by integer; our values are floats."""
    return value.astype(int) if law.support.is_discrete else value


class AbstractNumpyro(AbstractDistribution):
    """A numpyro family with its parameters; see `Numpyro` and `NumpyroReparametrised`."""

    family: Any = eqx.field(static=True)
    parameters: dict[str, PyTree[Array]]

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """One draw, of batch shape followed by event shape; counts and codes come as floats, as everywhere."""
        draw = self.family(**self.parameters).sample(key)
        return draw.astype(jnp.result_type(*jax.tree.leaves(self.parameters), float))

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density or mass of the observed cells, in nats."""
        law = self.family(**self.parameters)
        check(value, None, law.shape())
        if mask is None:
            return jnp.sum(law.log_prob(_codes(law, value)))
        if mask.shape != law.batch_shape:
            name, want = self.family.__name__, law.batch_shape
            raise ValueError(f"mask of {name} must have shape {want}, got {mask.shape}: its events are scored whole.")
        seen = mask.reshape(mask.shape + (1,) * law.event_dim)
        inside = jnp.where(seen, value, law.support.feasible_like(value))
        return total(law.log_prob(_codes(law, inside)), mask)

    def mean(self) -> Array:
        """Expectation of one draw."""
        return self.family(**self.parameters).mean


class Numpyro(AbstractNumpyro):
    """A numpyro family with its parameters; the numpyro object is built and used inside each method only.

    Batch and event axes of numpyro together are the event here. Where the family's own event has axes
    (``Dirichlet``, ``MultivariateNormal``), a mask must have numpyro's batch shape: one flag per vector.

    Parameters
    ----------
    family : a numpyro distribution class; static, compared by identity.
    parameters : its keyword arguments, arrays.

    Raises
    ------
    ValueError
        When a value has another shape, or a mask would cut through one of numpyro's own events.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro.distributions as nd
    >>> d = Numpyro(nd.Laplace, {"loc": jnp.zeros(2), "scale": jnp.ones(2)})
    >>> round(float(d.log_prob(jnp.zeros(2))), 4)  # -2 log 2
    -1.3863
    """


class NumpyroReparametrised(AbstractNumpyro, AbstractReparametrised):
    """A numpyro family whose draw is differentiable in all its parameters; otherwise as `Numpyro`.

    Raises
    ------
    TypeError
        When numpyro does not declare all parameters of the family to be reparametrised.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, jax.random as jr, numpyro.distributions as nd
    >>> draw = lambda m: NumpyroReparametrised(nd.Laplace, {"loc": m, "scale": jnp.ones(())}).sample(key=jr.key(0))
    >>> float(jax.grad(draw)(0.0))
    1.0
    """

    def __check_init__(self) -> None:
        if set(self.family.reparametrized_params) != set(self.family.arg_constraints):
            raise TypeError(f"a draw of {self.family.__name__} has no gradient; use Numpyro with a score estimator.")
