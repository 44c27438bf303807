"""Train a relaxed model for the sake of the discrete one. Maddison, Mnih & Teh 2017, arXiv:1611.00712, section 4."""

from __future__ import annotations

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine._tree import AbstractSchedule, number
from ravine.core import (
    AbstractDirected,
    AbstractDistribution,
    AbstractGradient,
    AbstractLatentModel,
    AbstractPosterior,
    Latent,
    Metrics,
    Objective,
    Row,
    Scalar,
)
from ravine.dist import AbstractRelaxed, Ancestral, relaxed_chain, relaxed_law
from ravine.objectives.bounds import IWAE
from ravine.posteriors import Chain, Flipped, OneNode

Heat = float | AbstractSchedule


class Relaxed(eqx.Module):
    """A bound of the relaxed model, in which every discrete law of prior and posterior is a Concrete one.

    Samples and densities are relaxed alike, in logit space, so that it bounds the log-likelihood of the relaxed model,
    and the draws are differentiable: give the bound `Pathwise` as its estimator, or use `DReG`. The generator and the
    recogniser see the points that draws stand for, between 0 and 1. The model itself stays discrete. Maddison, Mnih
    and Teh 2017, arXiv:1611.00712, equation 22.

    Parameters
    ----------
    objective : the bound, such as ``IWAE(5, Pathwise())``.
    posterior, prior : temperatures of q(z | x) and p(z), numbers or schedules; those of a `ravine.dist.Rounded` law
        are its own.

    Raises
    ------
    TypeError
        When a latent is neither a bit nor one-hot.
    """

    objective: Objective
    posterior: Heat = 2 / 3
    prior: Heat = 1 / 2

    def __call__(self, model: AbstractDirected, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        relaxation = Relaxation(model, number(self.posterior), number(self.prior))
        return self.objective(relaxation, batch, key=key)

    def discrete(self, gradient: AbstractGradient) -> IWAE:
        """The bound of the discrete model with as many draws."""
        return IWAE(getattr(self.objective, "k", 1), gradient)


class Relaxation(AbstractDirected, AbstractLatentModel):
    """A directed model of discrete latents with these relaxed; what it lists as latents are logits and the like."""

    model: AbstractDirected
    posterior_heat: Float[Array, ""]
    prior_heat: Float[Array, ""]

    def prior(self, context: PyTree = None) -> AbstractDistribution:
        law = self.model.prior(context)
        if not isinstance(law, Ancestral):
            return relaxed_law(law, self.prior_heat)
        first, steps = relaxed_chain(law.first, law.conditionals, self.prior_heat)
        return Ancestral(first, *steps)

    def likelihood(self, z: Latent, context: PyTree = None) -> AbstractDistribution:
        return self.model.likelihood(points(self.prior(context), z), context)

    def posterior(self, row: Row) -> AbstractPosterior:
        return relaxed_posterior(self.model.posterior(row), self.posterior_heat)  # pyright: ignore[reportAttributeAccessIssue]


def points(law: AbstractDistribution, z: Latent) -> Latent:
    """The points that relaxed draws stand for, layer by layer."""
    if isinstance(law, AbstractRelaxed):
        return law.relaxed(z)
    first, steps = law.first, law.conditionals  # pyright: ignore[reportAttributeAccessIssue]  (an Ancestral law)
    laws = [first, *(step(parent) for step, parent in zip(steps, z[:-1], strict=True))]
    return tuple(each.relaxed(value) for each, value in zip(laws, z, strict=True))


def relaxed_posterior(posterior: AbstractPosterior, temperature: Float[Array, ""]) -> AbstractPosterior:
    """The posterior with every node relaxed.

    Raises ``TypeError`` for a posterior that is neither one node nor a chain of nodes.
    """
    if isinstance(posterior, Flipped):
        chain = posterior.posterior
        return Flipped(Chain(*relaxed_chain(chain.first, chain.steps, temperature)))
    if isinstance(posterior, Chain):
        return Chain(*relaxed_chain(posterior.first, posterior.steps, temperature))
    if isinstance(posterior, OneNode):
        return OneNode(relaxed_law(posterior.distribution, temperature))
    raise TypeError(f"{type(posterior).__name__} cannot be relaxed; OneNode, Chain and Flipped can.")
