"""The exact posterior of layers whose values can be listed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._check import require
from ravine.core import (
    AbstractDirected,
    AbstractDiscrete,
    AbstractDistribution,
    AbstractGenerator,
    AbstractInference,
    Latent,
    Row,
    Scalar,
)
from ravine.dist import Ancestral
from ravine.posteriors import AbstractBounded, Chain, OneNode


class Listed(AbstractDiscrete):
    """Finitely many values, each with a log weight.

    Parameters
    ----------
    values : every value once, stacked on a leading axis.
    logits : unnormalised log probabilities.

    Examples
    --------
    >>> d = Listed(jnp.eye(2), jnp.log(jnp.array([1.0, 3.0])))
    >>> d.mean().round(2).tolist(), round(float(jnp.exp(d.log_prob(jnp.array([0.0, 1.0])))), 2)
    ([0.25, 0.75], 0.75)
    """

    values: Float[Array, "n ..."]
    logits: Float[Array, " n"]

    def sample(self, *, key: PRNGKeyArray) -> Array:
        return self.values[jr.categorical(key, self.logits)]

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        same = self.values == value[None]
        same = same if mask is None else same | ~mask[None]
        meant = jnp.all(same.reshape(same.shape[0], -1), axis=1)
        return jax.nn.logsumexp(jnp.where(meant, jax.nn.log_softmax(self.logits), -jnp.inf))

    def mean(self) -> Array:
        return jnp.tensordot(jax.nn.softmax(self.logits), self.values, 1)

    def support(self) -> Array:
        return self.values


class GivenAbove(eqx.Module):
    """The posterior of a layer given the one above: its conditional, weighted by what the layers below say."""

    conditional: Callable[[Array], AbstractDistribution]
    values: Float[Array, "n ..."]
    said: Float[Array, " n"]

    def __call__(self, parent: Array) -> Listed:
        """The law of the layer."""
        return Listed(self.values, jax.vmap(self.conditional(parent).log_prob)(self.values) + self.said)


class ExactInference(AbstractInference):
    r"""The posterior itself, and log p(x), by listing the values of the layers.

    A generator of layers is a Markov chain :math:`z_1, \dots, z_L, x`, so only the values of neighbouring layers are
    listed together. Messages go from the data upwards, and the posterior is a chain from the top down:

    .. math::
        \beta_L(z_L) = p(x \mid z_L), \quad \beta_l(z_l) = \sum_{z_{l+1}} p(z_{l+1} \mid z_l) \beta_{l+1}(z_{l+1}),
        \quad p(z_{l+1} \mid z_l, x) \propto p(z_{l+1} \mid z_l) \beta_{l+1}(z_{l+1})

    Every layer must have finitely many values; the maps between them may be any.

    Parameters
    ----------
    bits : log2 of the number of pairs of values of neighbouring layers, at most.

    Examples
    --------
    >>> from ravine.dist import Bernoulli
    >>> from ravine.models.directed import Directed
    >>> p = Directed(Bernoulli(jnp.zeros(1)), lambda z: Bernoulli(4 * z - 2))
    >>> posterior = ExactInference()(p, Row(jnp.ones(1)))
    >>> round(float(posterior.mean()[0]), 4), round(float(posterior.log_bound), 4)  # sigmoid(2), log(1/2)
    (0.8808, -0.6931)
    """

    bits: int = eqx.field(static=True, default=20)

    def __call__(self, generator: AbstractGenerator, row: Row) -> ExactPosterior:
        """The posterior of a row.

        Raises
        ------
        ValueError
            When a layer has values that cannot be listed, or there are too many.
        """
        do = "use MeanFieldInference(), GibbsSampling() or a recognition network"
        got = type(generator).__name__
        require(isinstance(generator, AbstractDirected), "ExactInference", "a generator of layers", got, do)
        p = cast(AbstractDirected, generator)
        law = p.prior(row.context)
        layered = isinstance(law, Ancestral)
        first, conditionals = (law.first, law.conditionals) if layered else (law, ())
        values = self._values(first, conditionals, do)
        shown = lambda z: p.likelihood((z,) if layered else z, row.context)  # noqa: E731
        last = jax.vmap(lambda z: shown(z).log_prob(row.x, row.mask))(values[-1])
        tables = list(map(_table, conditionals, values, values[1:]))
        said = _messages(tables, last)
        steps = tuple(map(GivenAbove, conditionals, values[1:], said[1:]))
        top = jax.vmap(first.log_prob)(values[0]) + said[0]
        root = Listed(values[0], top)
        means = _means(jax.nn.softmax(top), tables, said, values)
        law = Chain(root, steps) if layered else OneNode(root)
        return ExactPosterior(jax.nn.logsumexp(top), law, tuple(means) if layered else means[0])

    def _values(self, first: AbstractDistribution, conditionals: tuple, do: str) -> list[Array]:
        """Every value of each layer."""
        values = [_support(first, do)]
        for conditional in conditionals:
            values.append(_support(conditional(values[-1][0]), do))
        sizes = [math.log2(len(value)) for value in values]
        pairs = max(map(sum, zip(sizes, [*sizes[1:], 0.0], strict=True)))
        most = f"at most 2^{self.bits} pairs of values of neighbouring layers"
        require(pairs <= self.bits, "ExactInference", most, f"2^{pairs:.0f}", do)
        return values


def _support(law: AbstractDistribution, do: str) -> Array:
    require(isinstance(law, AbstractDiscrete), "ExactInference", "layers of discrete units", type(law).__name__, do)
    return cast(AbstractDiscrete, law).support()


def _table(law: Callable, above: Float[Array, "n ..."], below: Float[Array, "m ..."]) -> Float[Array, "n m"]:
    """log p of every value of a layer given every value of the one above."""
    return jax.vmap(lambda z: jax.vmap(law(z).log_prob)(below))(above)


def _messages(tables: list[Array], last: Float[Array, " n"]) -> list[Array]:
    """log p(x | z) of every value of each layer, from the top down."""
    said = [last]
    for table in reversed(tables):
        said.insert(0, jax.nn.logsumexp(table + said[0][None, :], axis=1))
    return said


def _means(share: Array, tables: list[Array], said: list[Array], values: list[Array]) -> list[Array]:
    """Posterior means of the layers, from the top down."""
    means = [jnp.tensordot(share, values[0], 1)]
    for table, below, value in zip(tables, said[1:], values[1:], strict=True):
        share = share @ jax.nn.softmax(table + below[None, :], axis=1)
        means.append(jnp.tensordot(share, value, 1))
    return means


class ExactPosterior(AbstractBounded):
    """p(z | x).

    Attributes
    ----------
    log_bound : log p(x) itself, in nats.
    law : of the latent.
    means : of the latent.
    """

    log_bound: Scalar
    law: OneNode | Chain
    means: Latent

    def mean(self) -> Latent:
        return self.means
