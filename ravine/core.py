"""The row and the interfaces. Everything else in Ravine is written against this file.

One row in every signature unless it says ``batch``; a batch is the same object with a leading axis on
every array. ``key`` is keyword-only and last. Densities are in nats and normalised unless called energies.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

Scalar = Float[Array, ""]
Metrics = dict[str, Array]
Latent = PyTree[Array]
Direction = Literal["exact", "lower", "upper", "estimate"]


class Row(eqx.Module):
    """One datum: what was observed, what was not, and what it is conditioned on.

    Attributes
    ----------
    x : the values, an array or a pytree of arrays; 0 where not observed.
    mask : same structure as ``x``, True where observed; None when every cell was observed.
    y, y_mask : what is modelled jointly with ``x`` (labels), and which of it is known.
    context : conditioned on, never modelled.
    length : number of steps that exist, for sequences; a gap inside is ``mask=False``.
    index : place in the data set, for rules that keep a memory per row.
    weight : sample weight; 0 marks padding. None means 1.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> row = Row(jnp.array([1.0, 0.0]), mask=jnp.array([True, False]))
    >>> int(row.observed())
    1
    """

    x: PyTree[Shaped[Array, "..."]]
    mask: PyTree[Bool[Array, "..."]] = None
    y: PyTree = None
    y_mask: PyTree = None
    context: PyTree = None
    length: Int[Array, "..."] | None = None
    index: Int[Array, "..."] | None = None
    weight: Float[Array, "..."] | None = None

    def observed(self) -> Int[Array, ""]:
        """Number of observed cells."""
        cells = self.x if self.mask is None else self.mask
        counts = [c.size if self.mask is None else jnp.sum(c) for c in jax.tree.leaves(cells)]
        return jnp.asarray(sum(counts))

    def is_empty(self) -> Bool[Array, ""]:
        """True when nothing was observed: such a row has log-likelihood exactly 0."""
        return self.observed() == 0

    def clamp(self, x: PyTree[Array]) -> PyTree[Array]:
        """``x`` with every observed cell put back to its observed value."""
        if self.mask is None:
            return self.x
        return jax.tree.map(jnp.where, self.mask, self.x, x)

    def after(self, earlier: Array) -> Row:
        """The same row, whose mask is known only when ``earlier`` is; nothing is observed where that holds NaN.

        What reads the mask runs later. On a processor, factorisations of many matrices at once share them out to the
        threads that run programs and wait: as many as there are threads, started at once, would wait for ever.
        """
        mask = jax.tree.map(lambda x: jnp.ones(x.shape, bool), self.x) if self.mask is None else self.mask
        known = jnp.all(earlier == earlier)
        return eqx.tree_at(lambda r: r.mask, self, jax.tree.map(lambda m: m & known, mask), is_leaf=lambda n: n is None)


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


Cost = Callable[[Latent, Scalar], Scalar]
Draw = Callable[..., Array]  # (distribution, *, key)


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


Objective = Callable[..., tuple[Scalar, Metrics]]  # (model, batch, *, key) -> (loss to lower, metrics)


class AbstractRule(eqx.Module):
    """How a model learns from a batch. All memory of learning lives in the state.

    A rule that decides that training is over reports it as ``metrics["stopped"]`` and leaves the model alone
    from then on; the loop stops at the end of that chunk.
    """

    @abc.abstractmethod
    def init(self, model: PyTree, batch: Row, *, key: PRNGKeyArray) -> PyTree:
        """The state before the first step."""

    @abc.abstractmethod
    def step(
        self, model: PyTree, state: PyTree, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[PyTree, PyTree, Metrics]:
        """The next model, the next state, and what a person may want to see."""


class AbstractKernel(eqx.Module):
    """A Markov kernel: one step of a chain that leaves a law as it is. Its memory is its state."""

    @abc.abstractmethod
    def init(self, position: PyTree[Array], *, key: PRNGKeyArray) -> PyTree:
        """The state of a chain that starts at a position."""

    @abc.abstractmethod
    def step(self, state: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Metrics]:
        """The next state, and what may be worth seeing, such as whether a proposal was accepted."""

    @abc.abstractmethod
    def position(self, state: PyTree) -> PyTree[Array]:
        """Where the chain is."""


class AbstractEnergy(eqx.Module):
    """An unnormalised law, p(position) proportional to exp(-energy(position)), and a path to it from independent cells.

    A position is what a chain moves over: the cells of a row, and whatever else is not summed out.

    Attributes
    ----------
    sweeps : how many steps of its kernel make a draw.
    """

    sweeps: eqx.AbstractVar[int]

    @abc.abstractmethod
    def energy(self, position: PyTree[Array]) -> Scalar:
        """Minus the log of the unnormalised density of a position."""

    @abc.abstractmethod
    def lifted(self, row: Row) -> Row:
        """The row with a position as ``x``; its mask is True where the row holds a cell, None where it holds all."""

    @abc.abstractmethod
    def shown(self, position: PyTree[Array]) -> PyTree[Array]:
        """The cells of a row at a position."""

    @abc.abstractmethod
    def kernel(self, row: Row | None = None) -> AbstractKernel:
        """A kernel that leaves the law as it is; given a row that was `lifted`, that of the cells it does not hold."""

    @abc.abstractmethod
    def at(self, beta: Scalar) -> Self:
        """The energy part of the way: at 0 that of independent cells, at 1 itself."""

    @abc.abstractmethod
    def start(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        """A draw of the law at 0."""

    @abc.abstractmethod
    def log_start(self, row: Row | None = None) -> Scalar:
        """log of the sum of exp(-energy) at 0, over the cells that a row that was `lifted` does not hold."""

    def sample(self, context: PyTree = None, *, key: PRNGKeyArray) -> tuple[Latent, PyTree[Array]]:
        """A position after ``sweeps`` steps, in the first half of which the energy is reached, and the row it shows."""
        position = self.settled(None, key=key)
        return position, self.shown(position)

    def settled(self, row: Row | None, *, key: PRNGKeyArray) -> PyTree[Array]:
        """Where a chain is after ``sweeps`` steps, given a row that was `lifted`."""
        begin, rise, go = jr.split(key, 3)
        first, half = self.start(key=begin), max(self.sweeps // 2, 1)
        first = first if row is None else row.clamp(first)

        def warm(i: Int[Array, ""], position: PyTree) -> PyTree:
            kernel = self.at((i + 1) / jnp.asarray(half, float)).kernel(row)
            return walk(kernel, position, 1, key=jr.fold_in(rise, i))

        position = jax.lax.fori_loop(0, half, warm, first)
        return walk(self.kernel(row), position, self.sweeps - half, key=go)


def walk(kernel: AbstractKernel, position: PyTree[Array], steps: int, *, key: PRNGKeyArray) -> PyTree[Array]:
    """Where a chain is after so many steps."""
    begin, go = jr.split(key)
    state = kernel.init(position, key=begin)
    if steps == 1:
        return kernel.position(kernel.step(state, key=go)[0])
    dynamic, static = eqx.partition(state, eqx.is_array)

    def on(i: Int[Array, ""], dynamic: PyTree) -> PyTree:
        return eqx.filter(kernel.step(eqx.combine(dynamic, static), key=jr.fold_in(go, i))[0], eqx.is_array)

    return kernel.position(eqx.combine(jax.lax.fori_loop(0, steps, on, dynamic), static))


class AbstractDraw(eqx.Module):
    """The random part of reading a row: binarisation, dequantisation, corruption."""

    @abc.abstractmethod
    def __call__(self, row: Row, *, key: PRNGKeyArray) -> Row:
        """The row as this draw presents it."""


class LogLikelihood(NamedTuple):
    """log p(x) of a batch, and what kind of number it is.

    ``value`` and ``standard_error`` (Monte Carlo, per row; 0 when exact) are in nats per row; ``shared_error`` is the
    standard error of what all rows have in common, such as log Z, which no number of rows makes smaller.
    """

    value: Float[Array | np.ndarray, " n"]
    standard_error: Float[Array | np.ndarray, " n"]
    direction: Direction
    method: str
    shared_error: float = 0.0


class AbstractEvidence(eqx.Module):
    """A way to evaluate log p(x) for a batch; says in which direction it errs."""

    direction: eqx.AbstractClassVar[Direction]

    @abc.abstractmethod
    def __call__(
        self, model: PyTree, batch: Row, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Value and Monte Carlo standard error per row, in nats."""

    @abc.abstractmethod
    def method(self) -> str:
        """Short name that travels with the number, such as ``importance-1000``."""

    def prepared(self, model: PyTree, *, key: PRNGKeyArray) -> AbstractEvidence:
        """The evidence with what is computed once for a model, such as log Z."""
        return self

    def parts(self, model: PyTree, batch: Row) -> Iterable[tuple[np.ndarray, AbstractEvidence]]:
        """The places of rows, and how these are to be evaluated, where that is not the same for all rows."""
        return [(np.arange(rows_in(batch)), self)]

    def shared_error(self) -> float:
        """Standard error of what all rows have in common, in nats."""
        return 0.0


def weights(batch: Row) -> Float[Array, " n"]:
    """The weight of each row of a batch; 1 where none was given."""
    if batch.weight is not None:
        return batch.weight
    leaf = jax.tree.leaves(batch.x)[0]
    return jnp.ones(leaf.shape[0], leaf.dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else float)


def rows_in(batch: Row) -> int:
    """Number of rows of a batch, padding included."""
    return int(jax.tree.leaves(batch.x)[0].shape[0])


def summed(model: AbstractConjugate, batch: Row) -> tuple[PyTree[Array], Scalar]:
    """The generic ``expected``: weighted sums of ``statistics``, one row at a time."""
    statistics, log_evidence = jax.vmap(model.statistics)(batch)
    weight = weights(batch)
    return jax.tree.map(lambda s: jnp.tensordot(weight, s, 1), statistics), weight @ log_evidence


def averaged(per_row: Callable[..., Any], batch: Row, *, key: PRNGKeyArray) -> Any:
    """Weighted mean over the batch of ``per_row(row, key=...)``, leaf by leaf."""
    keys = jr.split(key, rows_in(batch))
    values = jax.vmap(lambda row, k: per_row(row, key=k))(batch, keys)
    if batch.weight is None:
        return jax.tree.map(lambda v: jnp.mean(v, axis=0), values)
    share = batch.weight / jnp.maximum(jnp.sum(batch.weight), jnp.finfo(batch.weight.dtype).tiny)
    return jax.tree.map(lambda v: jnp.tensordot(share, v, 1), values)
