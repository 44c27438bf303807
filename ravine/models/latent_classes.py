"""A mixture whose classes are rows of independent cells of any kind: latent class and latent profile models."""

from __future__ import annotations

from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine._tree import trainable
from ravine.core import AbstractDistribution, Row, Scalar, averaged, weights
from ravine.dist import AbstractLink
from ravine.models.components import AbstractLaws
from ravine.models.families import some_rows
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
    >>> known = Row(jnp.array([1.0, 0.0]), jnp.array([True, False]))
    >>> [round(float(cell), 2) for cell in model.conditional(known).mean()]
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


class Trials(eqx.Module):
    """A start: classes around rows far apart, drawn several times; the draw that soon fits best is taken.

    Parameters
    ----------
    count : how many are drawn; one is enough for a single class.
    rate, steps : of the Adam by which each is tried, on ``rows`` rows.
    """

    count: int = eqx.field(static=True)
    rate: float = eqx.field(static=True)
    steps: int = eqx.field(static=True, default=100)
    rows: int = eqx.field(static=True, default=500)

    def __call__(self, model: LatentClasses, source, *, key: PRNGKeyArray) -> LatentClasses:
        return _best(self, model, some_rows(source, self.rows), key)


@eqx.filter_jit
def _best(trials: Trials, model: LatentClasses, batch: Row, key: PRNGKeyArray) -> LatentClasses:
    laws, adam = model.components, optax.adam(trials.rate)

    def tried(key: PRNGKeyArray) -> tuple[LatentClasses, Scalar]:
        parameters, rest = trainable(LatentClasses.spread(batch, laws.size(), laws.link, laws.shape, key=key))

        def loss(parameters: PyTree) -> Scalar:
            made = eqx.combine(parameters, rest)
            return -averaged(lambda row, key: made.log_evidence(row), batch, key=key)

        def step(carry: PyTree, _: None) -> tuple[PyTree, None]:
            parameters, state = carry
            updates, state = adam.update(jax.grad(loss)(parameters), state)
            return (optax.apply_updates(parameters, updates), state), None

        (parameters, _), _ = jax.lax.scan(step, (parameters, adam.init(parameters)), length=trials.steps)
        return parameters, loss(parameters)

    count = trials.count if laws.size() > 1 else 1
    parameters, losses = jax.lax.map(tried, jr.split(key, count))
    best = jnp.nanargmin(jnp.where(jnp.isfinite(losses), losses, jnp.finfo(losses.dtype).max))
    return eqx.combine(jax.tree.map(lambda leaf: leaf[best], parameters), model)
