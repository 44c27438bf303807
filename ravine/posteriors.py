"""What a recogniser returns for one row: a law over the latent, and how to take expectations under it."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable
from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractDistribution, AbstractGradient, AbstractPosterior, Cost, Draw, Latent, Scalar


class OneNode(AbstractPosterior):
    """One stochastic node: the latent is a single draw of one distribution.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ravine.dist import Bernoulli
    >>> from ravine.gradients import Enumerate
    >>> q = OneNode(Bernoulli(jnp.zeros(2)))
    >>> float(q.expect(lambda z, log_q: z.sum(), Enumerate(), key=jr.key(0)))
    1.0
    """

    distribution: AbstractDistribution

    def drawn(self, draw: Draw, *, key: PRNGKeyArray) -> tuple[Latent, Scalar]:
        z = draw(self.distribution, key=key)
        return z, self.distribution.log_prob(z)

    def log_prob(self, z: Latent) -> Scalar:
        return self.distribution.log_prob(z)

    def mean(self) -> Latent:
        return self.distribution.mean()

    def nodes(self) -> tuple[AbstractDistribution, ...]:
        return (self.distribution,)

    def expect(self, cost: Cost, gradient: AbstractGradient, *, key: PRNGKeyArray) -> Scalar:
        check(gradient, self)
        return gradient(lambda z: cost(z, self.distribution.log_prob(z)), self.distribution, key=key)


class Chain(AbstractPosterior):
    """Several stochastic nodes in order: z1 ~ first, z2 ~ steps[0](z1), ...; the latent is the tuple (z1, z2, ...).

    Expectations nest the estimator, one node inside the other, so that any estimator serves every node and
    enumeration is exact. An `AbstractTrajectoryGradient` draws whole trajectories instead: its cost evaluations do
    not grow with the depth.
    """

    first: AbstractDistribution
    steps: tuple[Callable[[Array], AbstractDistribution], ...]

    def drawn(self, draw: Draw, *, key: PRNGKeyArray) -> tuple[Latent, Scalar]:
        keys = jr.split(key, len(self.steps) + 1)
        z = [draw(self.first, key=keys[0])]
        log_q = self.first.log_prob(z[0])
        for step, k in zip(self.steps, keys[1:], strict=True):
            d = step(z[-1])
            z.append(draw(d, key=k))
            log_q = log_q + d.log_prob(z[-1])
        return tuple(z), log_q

    def log_prob(self, z: Latent) -> Scalar:
        log_q = self.first.log_prob(z[0])
        for step, parent, child in zip(self.steps, z[:-1], z[1:], strict=True):
            log_q = log_q + step(parent).log_prob(child)
        return log_q

    def mean(self) -> Latent:
        z = [self.first.mean()]
        for step in self.steps:
            z.append(step(z[-1]).mean())
        return tuple(z)

    def nodes(self) -> tuple[AbstractDistribution, ...]:
        means = self.mean()
        return (self.first, *(step(z) for step, z in zip(self.steps, means[:-1], strict=True)))

    def expect(self, cost: Cost, gradient: AbstractGradient, *, key: PRNGKeyArray) -> Scalar:
        check(gradient, self)
        if isinstance(gradient, AbstractTrajectoryGradient):
            return gradient.over(cost, self, key=key)
        return self._nested(cost, gradient, (), jnp.asarray(0.0), key)

    def _nested(self, cost: Cost, gradient: AbstractGradient, z: tuple, log_q: Scalar, key: PRNGKeyArray) -> Scalar:
        if len(z) > len(self.steps):
            return cost(z, log_q)
        here, below = jr.split(key)
        d = self.steps[len(z) - 1](z[-1]) if z else self.first
        inner = lambda draw: self._nested(cost, gradient, (*z, draw), log_q + d.log_prob(draw), below)  # noqa: E731
        return gradient(inner, d, key=here)


class Flipped(AbstractPosterior):
    """A posterior over a tuple of layers with the tuple reversed.

    Latents are listed as the generator draws them, the layer nearest the data last; a bottom-up recogniser draws
    that layer first.
    """

    posterior: Chain

    def drawn(self, draw: Draw, *, key: PRNGKeyArray) -> tuple[Latent, Scalar]:
        z, log_q = self.posterior.drawn(draw, key=key)
        return z[::-1], log_q

    def log_prob(self, z: Latent) -> Scalar:
        return self.posterior.log_prob(z[::-1])

    def mean(self) -> Latent:
        return self.posterior.mean()[::-1]

    def nodes(self) -> tuple[AbstractDistribution, ...]:
        return self.posterior.nodes()

    def expect(self, cost: Cost, gradient: AbstractGradient, *, key: PRNGKeyArray) -> Scalar:
        return self.posterior.expect(lambda z, log_q: cost(z[::-1], log_q), gradient, key=key)


class Several(AbstractPosterior):
    """``k`` independent copies of a posterior: the latent has a leading axis of k on every array.

    ``expect`` passes the k values of log q(z) to the cost, not their sum: importance-weighted bounds need them.
    """

    posterior: AbstractPosterior
    k: int = eqx.field(static=True)

    def drawn(self, draw: Draw, *, key: PRNGKeyArray) -> tuple[Latent, Float[Array, " k"]]:
        return jax.vmap(lambda k: self.posterior.drawn(draw, key=k))(jr.split(key, self.k))

    def log_prob(self, z: Latent) -> Float[Array, " k"]:
        return jax.vmap(self.posterior.log_prob)(z)

    def mean(self) -> Latent:
        one = self.posterior.mean()
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (self.k, *leaf.shape)), one)

    def nodes(self) -> tuple[AbstractDistribution, ...]:
        return self.posterior.nodes()

    def expect(self, cost: Cost, gradient: AbstractGradient, *, key: PRNGKeyArray) -> Scalar:
        check(gradient, self)
        if isinstance(gradient, AbstractTrajectoryGradient):
            return gradient.over(cost, self, key=key)
        return self._nested(cost, gradient, (), (), key)

    def _nested(self, cost: Cost, gradient: AbstractGradient, zs: tuple, log_qs: tuple, key: PRNGKeyArray) -> Scalar:
        if len(zs) == self.k:
            return cost(jax.tree.map(lambda *leaves: jnp.stack(leaves), *zs), jnp.stack(log_qs))
        here, below = jr.split(key)
        inner = lambda z, log_q: self._nested(cost, gradient, (*zs, z), (*log_qs, log_q), below)  # noqa: E731
        return self.posterior.expect(inner, gradient, key=here)


class AbstractBounded(AbstractPosterior):
    """A posterior that was found by raising a lower bound on log p(x), and knows where it ended.

    Attributes
    ----------
    log_bound : the bound, in nats; its gradient is that of the generator, the posterior being held.
    law : of the latent.
    """

    log_bound: eqx.AbstractVar[Scalar]
    law: eqx.AbstractVar[AbstractPosterior]

    def drawn(self, draw: Draw, *, key: PRNGKeyArray) -> tuple[Latent, Scalar]:
        return self.law.drawn(draw, key=key)

    def log_prob(self, z: Latent) -> Scalar:
        return self.law.log_prob(z)

    def nodes(self) -> tuple[AbstractDistribution, ...]:
        return self.law.nodes()

    def expect(self, cost: Cost, gradient: AbstractGradient, *, key: PRNGKeyArray) -> Scalar:
        return self.law.expect(cost, gradient, key=key)


class AbstractVisited(AbstractPosterior):
    """A posterior that is met by a chain."""

    @abc.abstractmethod
    def visited(self, k: int, *, key: PRNGKeyArray) -> tuple[Latent, Float[Array, " k"]]:
        """``k`` states that a chain comes through in order, on a leading axis, and how likely it was to go to each."""


class Point(AbstractPosterior):
    """Where the latents of a row have settled: a place, and no law around it.

    It has no density, so there is no bound on log p(x) by it, and nothing is drawn: learn with
    `ravine.objectives.Energy`, and evaluate by importance sampling around it, `ravine.evidence.AroundSettled`.

    Attributes
    ----------
    latent : the settled latents, a tuple of layers, top first.
    read : what the layers below read of them, in the same order: the latents themselves, or what these were before
        they settled.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> z = (jnp.ones(2), jnp.zeros(3))
    >>> Point(z, z).mean().tolist()
    [1.0, 1.0]
    """

    latent: Latent
    read: Latent

    def mean(self) -> Latent:
        """The top layer, which sums a row up."""
        return self.latent[0] if isinstance(self.latent, tuple) else self.latent

    def nodes(self) -> tuple[AbstractDistribution, ...]:
        """None: nothing is drawn."""
        return ()

    def drawn(self, draw: Draw, *, key: PRNGKeyArray) -> NoReturn:
        raise _without_density()

    def log_prob(self, z: Latent) -> NoReturn:
        raise _without_density()

    def expect(self, cost: Cost, gradient: AbstractGradient, *, key: PRNGKeyArray) -> NoReturn:
        raise _without_density()


def _without_density() -> TypeError:
    do = "learn with Energy(), and evaluate by AroundSettled()"
    return TypeError(f"a settled point has no density to draw from or to score by: {do}.")


class AbstractTrajectoryGradient(AbstractGradient):
    """An estimator that can treat a whole posterior as one node: it draws whole trajectories, at any depth."""

    @abc.abstractmethod
    def over(self, cost: Cost, posterior: AbstractPosterior, *, key: PRNGKeyArray) -> Scalar:
        """E[cost(z, log q(z))] from whole draws of the posterior."""

    def evaluations(self, posterior: AbstractPosterior) -> int:
        """As for one node, whatever the depth."""
        return self.calls(posterior.nodes()[0])


class AbstractManyDraws(AbstractGradient):
    """An estimator that looks at the k log weights of a bound, not at the bound alone."""

    @abc.abstractmethod
    def bound(self, log_weight: Cost, posterior: AbstractPosterior, k: int, *, key: PRNGKeyArray) -> Scalar:
        """``log 1/k sum_i exp(log_weight(z_i, log q(z_i)))`` over k draws of the posterior."""


def check(gradient: AbstractGradient, posterior: AbstractPosterior) -> None:
    """Raise, before the cost is traced, when the estimator cannot serve a node of the posterior."""
    for d in posterior.nodes():
        reason = gradient.refuses(d)
        if reason is not None:
            what = f"{type(gradient).__name__} cannot differentiate through {type(d).__name__}"
            raise TypeError(f"{what}: {reason}; use {', '.join(serving(d))}.")


def serving(d: AbstractDistribution) -> list[str]:
    """The names of the estimators, as they are by default, that can serve a distribution."""
    found, todo = [], AbstractGradient.__subclasses__()
    while todo:
        cls: Any = todo.pop()
        todo += cls.__subclasses__()
        usable = not (inspect.isabstract(cls) or issubclass(cls, AbstractManyDraws))
        made: Any = cls
        if usable and cls.__module__.startswith("ravine.") and made().refuses(d) is None:
            found.append(cls.__name__)
    return sorted(found)
