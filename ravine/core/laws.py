"""Laws, models of a joint law, and what they say of the latent variables of a row."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine.core.row import Row, Scalar, weights

Latent = PyTree[Array]


class AbstractDistribution(eqx.Module):
    """A law over one event. Fields are arrays of the event's own shape: no batch shape, ever."""

    @abc.abstractmethod
    def sample(self, *, key: PRNGKeyArray) -> Array:
        """One draw."""

    @abc.abstractmethod
    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density or log mass in nats, summed over the event; cells with ``mask=False`` are marginalised."""

    @abc.abstractmethod
    def mean(self) -> Array:
        """Expectation of one draw, of the event's shape."""


class AbstractReparametrised(AbstractDistribution):
    """``sample`` is differentiable in the parameters: the draw is a smooth function of them and of noise."""


class AbstractDiscrete(AbstractDistribution):
    """Finitely many values; each can be listed."""

    @abc.abstractmethod
    def support(self) -> Array:
        """Every value, stacked on a leading axis."""


class AbstractGenerator(eqx.Module):
    """The joint law p(x, z), split as p(x | z) p(z)."""

    @abc.abstractmethod
    def sample(self, context: PyTree = None, *, key: PRNGKeyArray) -> tuple[Latent, PyTree[Array]]:
        """Draw (z, x)."""

    @abc.abstractmethod
    def log_prior(self, z: Latent, row: Row) -> Scalar:
        """log p(z), in nats."""

    @abc.abstractmethod
    def log_likelihood(self, z: Latent, row: Row) -> Scalar:
        """log p(x | z) of the observed cells, in nats."""

    def log_joint(self, z: Latent, row: Row) -> Scalar:
        """log p(x, z) of the observed cells, in nats; normalised."""
        return self.log_prior(z, row) + self.log_likelihood(z, row)


class AbstractDirected(AbstractGenerator):
    """A generator whose prior and likelihood are distributions one can hold."""

    @abc.abstractmethod
    def prior(self, context: PyTree = None) -> AbstractDistribution:
        """p(z)."""

    @abc.abstractmethod
    def likelihood(self, z: Latent, context: PyTree = None) -> AbstractDistribution:
        """p(x | z)."""

    def sample(self, context: PyTree = None, *, key: PRNGKeyArray) -> tuple[Latent, PyTree[Array]]:
        key_z, key_x = jr.split(key)
        z = self.prior(context).sample(key=key_z)
        return z, self.likelihood(z, context).sample(key=key_x)

    def log_prior(self, z: Latent, row: Row) -> Scalar:
        return self.prior(row.context).log_prob(z)

    def log_likelihood(self, z: Latent, row: Row) -> Scalar:
        return self.likelihood(z, row.context).log_prob(row.x, row.mask)


Cost = Callable[[Latent, Scalar], Scalar]
Draw = Callable[..., Array]  # (distribution, *, key)


class AbstractPosterior(eqx.Module):
    """What a recogniser returns for one row: a law over the latent, and how to take expectations under it."""

    @abc.abstractmethod
    def drawn(self, draw: Draw, *, key: PRNGKeyArray) -> tuple[Latent, Float[Array, "..."]]:
        """A draw z, every node taken by ``draw(d, key=key)``, and its log q(z): one number, or one for each copy."""

    def sample(self, *, key: PRNGKeyArray) -> tuple[Latent, Float[Array, "..."]]:
        """A draw z and its log q(z)."""
        return self.drawn(lambda d, key: d.sample(key=key), key=key)

    @abc.abstractmethod
    def log_prob(self, z: Latent) -> Scalar:
        """log q(z), in nats."""

    @abc.abstractmethod
    def mean(self) -> Latent:
        """Posterior expectation of the latent."""

    @abc.abstractmethod
    def nodes(self) -> tuple[AbstractDistribution, ...]:
        """The stochastic nodes in order; the later ones as they are when the earlier ones take their means."""

    @abc.abstractmethod
    def expect(self, cost: Cost, gradient: AbstractGradient, *, key: PRNGKeyArray) -> Scalar:
        """E[cost(z, log q(z))], with the gradient that ``gradient`` declares."""


class AbstractGradient(eqx.Module):
    """An estimator of E_{z~d}[cost(z)]: the value is right unless it says otherwise, the gradient is as declared.

    An estimator that learns takes the cost as something to be lowered, and adds terms of value 0 whose gradient lowers
    its own loss: it learns in the same step as the model.

    Attributes
    ----------
    biased : class variable; the mean of its gradient is not the gradient of the mean.
    differentiates : class variable; the cost must have a derivative in z.
    """

    biased: eqx.AbstractClassVar[bool]
    differentiates: ClassVar[bool] = False

    @abc.abstractmethod
    def __call__(self, cost: Callable[[Array], Scalar], d: AbstractDistribution, *, key: PRNGKeyArray) -> Scalar: ...

    @abc.abstractmethod
    def refuses(self, d: AbstractDistribution) -> str | None:
        """Why this estimator cannot serve ``d``; None when it can. Asked before any tracing."""

    @abc.abstractmethod
    def calls(self, d: AbstractDistribution) -> int:
        """How often one estimate for one node evaluates the cost."""

    def evaluations(self, posterior: AbstractPosterior) -> int:
        """How often one estimate for a posterior evaluates the cost; one node inside the other unless overruled."""
        return math.prod(self.calls(d) for d in posterior.nodes())

    def given(self, row: Row) -> AbstractGradient:
        """The estimator for this row, where it depends on the row."""
        return self

    def hard(self) -> AbstractGradient:
        """An estimator whose value is right, where this one's is not."""
        return self

    def learning(self, inputs: int, latents: Sequence[int], *, key: PRNGKeyArray) -> AbstractGradient:
        """The estimator with its learned parts, if any, sized for rows of ``inputs`` cells and these nodes."""
        return self


class AbstractRecogniser(eqx.Module):
    """Completes a generator into a latent model: proposes a posterior for a row."""

    @abc.abstractmethod
    def __call__(self, generator: AbstractGenerator, row: Row) -> AbstractPosterior: ...


class AbstractInference(AbstractRecogniser):
    """A recogniser that has nothing to learn: it works the posterior of a row out of the generator."""


class AbstractLatentModel(AbstractGenerator):
    """A generator together with a guess of what caused a row."""

    @abc.abstractmethod
    def posterior(self, row: Row) -> AbstractPosterior:
        """q(z | x), or the exact p(z | x) where the model allows it."""


class AbstractTractable(AbstractLatentModel):
    """log p(x) and the law of the missing cells given the observed ones, in closed form."""

    @abc.abstractmethod
    def log_evidence(self, row: Row) -> Scalar:
        """log p(observed cells), in nats, exact."""

    @abc.abstractmethod
    def conditional(self, row: Row) -> AbstractDistribution:
        """p(x | observed cells): observed cells are held at their values."""


class AbstractConjugate(AbstractTractable):
    """Closed-form EM. ``statistics`` defines the model; ``expected`` must equal its weighted sum, only faster."""

    @abc.abstractmethod
    def statistics(self, row: Row) -> tuple[PyTree[Array], Scalar]:
        """E[T(x, z) | observed cells] and log p(observed cells)."""

    @abc.abstractmethod
    def expected(self, batch: Row) -> tuple[PyTree[Array], Scalar]:
        """Weighted sums of ``statistics`` over a batch, as matrix products."""

    @abc.abstractmethod
    def maximise(self, statistics: PyTree[Array]) -> Self:
        """The parameters that maximise the expected complete-data log-likelihood (plus ``log_penalty``)."""

    @abc.abstractmethod
    def log_penalty(self) -> Scalar:
        """What EM maximises besides the log-likelihood; 0 for plain maximum likelihood."""


def summed(model: AbstractConjugate, batch: Row) -> tuple[PyTree[Array], Scalar]:
    """The generic ``expected``: weighted sums of ``statistics``, one row at a time."""
    statistics, log_evidence = jax.vmap(model.statistics)(batch)
    weight = weights(batch)
    return jax.tree.map(lambda s: jnp.tensordot(weight, s, 1), statistics), weight @ log_evidence
