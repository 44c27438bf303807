"""A mixture whose classes are rows of independent cells of any kind: latent class and latent profile models."""

from __future__ import annotations

from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractDistribution, Row, weights
from ravine.dist import AbstractLink
from ravine.models.components import AbstractLaws
from ravine.models.laws import MixtureLaw
from ravine.models.mixture import AbstractMixture
from ravine.models.starts import nearest_seeds

Shape = tuple[int, ...]


class Linked(AbstractLaws):
    """k laws of one family, each from numbers of its own.

    Parameters
    ----------
    numbers : what the link turns into a law, shape (k, link.size(shape)).
    link : the family.
    shape : of a row.
    """

    numbers: Float[Array, "k size"]
    link: AbstractLink
    shape: Shape = eqx.field(static=True)

    def size(self) -> int:
        return self.numbers.shape[0]

    def law(self, z: Float[Array, " k"]) -> MixtureLaw:
        return MixtureLaw(jnp.log(jnp.maximum(z, jnp.finfo(z.dtype).tiny)), self._laws())

    def given(self, row: Row) -> AbstractDistribution:
        return self._laws()

    def log_prob_all(self, row: Row) -> Float[Array, " k"]:
        return jax.vmap(lambda law: law.log_prob(row.x, row.mask))(self._laws())

    def _laws(self) -> AbstractDistribution:
        return jax.vmap(lambda numbers: self.link(numbers, self.shape))(self.numbers)


class LatentClasses(AbstractMixture):
    r"""A class z, one of k, then cells that are independent given the class; every number is exact.

    .. math:: p(x) = \sum_c \pi_c \prod_j p(x_j \mid c)

    Lazarsfeld & Henry 1968, *Latent structure analysis*; cells of several kinds as in Hunt & Jorgensen 2011, WIREs
    Data Mining and Knowledge Discovery 1, 352-361. With one class the columns are independent.

    Parameters
    ----------
    logits : unnormalised log probabilities of the classes, shape (k,).
    components : the laws of the k classes.

    Raises
    ------
    ValueError
        When there are not as many logits as components.

    Examples
    --------
    >>> from ravine.dist import Bits
    >>> model = LatentClasses(jnp.zeros(2), Linked(jnp.array([[3.0, 3.0], [-3.0, -3.0]]), Bits(), (2,)))
    >>> model.conditional(Row(jnp.array([1.0, 0.0]), jnp.array([True, False]))).mean().round(2).tolist()
    [1.0, 0.91]
    """

    logits: Float[Array, " k"]
    components: Linked

    @classmethod
    def spread(cls, batch: Row, k: int, link: AbstractLink, shape: Shape, *, key: PRNGKeyArray) -> Self:
        """Classes around rows that lie far apart, each with the mean of the rows nearest to it.

        The mean of all rows counts in every class as one row more, so that no class starts on the edge.
        """
        flat = Row(*(None if part is None else part.reshape(part.shape[0], -1) for part in (batch.x, batch.mask)))
        flat = eqx.tree_at(lambda row: row.weight, flat, weights(batch), is_leaf=lambda node: node is None)
        shares = weights(batch)[:, None] * nearest_seeds(flat, k, key=key)
        known = jnp.ones_like(flat.x) if flat.mask is None else flat.mask.astype(flat.x.dtype)
        overall = _means(jnp.sum(shares, axis=1, keepdims=True), flat.x, known, jnp.zeros_like(flat.x[:1]), 1e-6)
        means = _means(shares, flat.x, known, overall, 1.0)
        numbers = jax.vmap(lambda mean: link.start(mean.reshape(shape)))(means)
        logits = jnp.log(1 + jnp.sum(shares, axis=0))
        return cls(logits, Linked(numbers, link, shape))


def _means(
    shares: Float[Array, "n k"], x: Float[Array, "n d"], known: Float[Array, "n d"], prior: Array, strength: float
) -> Float[Array, "k d"]:
    """Means of the observed cells by class, drawn towards ``prior`` as by so many rows more."""
    counts = shares.T @ known
    return (shares.T @ (x * known) + strength * prior) / (counts + strength)
