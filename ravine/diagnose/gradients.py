"""Gradient estimators beside each other on a user's own model and rows: bias, variance, time, memory."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray, PyTree

from ravine import gradients
from ravine._check import require, shown, whole
from ravine._jax import highest_matmul, precision, temporary_bytes
from ravine._spell import spell
from ravine._tree import Part, Whole, resolve, trainable
from ravine.core import AbstractGradient, AbstractLatentModel, AbstractPosterior, Objective, Row, rows_in
from ravine.diagnose.estimators import Estimated, GradientTable
from ravine.gradients import Enumerate
from ravine.objectives import IWAE
from ravine.posteriors import AbstractManyDraws
from ravine.verbs import blockwise
from ravine.verbs import drawn as drawn_rows

BATCH = 100  # rows whose mean gradient is looked at
GROUPS = 16  # independent means, whose scalar products tell a bias from noise
MOST = 256  # evaluations of the cost in one estimate beyond which an estimator is left out
LISTED = 2**12  # evaluations of the cost up to which the exact gradient is computed
REPEATS = 4  # times as many draws stand for the truth where it cannot be computed
LATE = 2**30  # the step at which schedules are read: their end


class Sampled(NamedTuple):
    """Means of the gradient over groups of draws, one flat vector each, and what a draw costs."""

    means: Float[np.ndarray, "groups parameters"]
    draws: int
    seconds: float
    megabytes: float

    def variance(self) -> float:
        """Of one draw, summed over the parameters."""
        return float(self.draws * self.means.var(axis=0, ddof=1).sum())


def gradient_table(fitted: Any, X: Any, *, draws: int = 512, others: Sequence[AbstractGradient] = ()) -> GradientTable:
    """Which gradient estimator suits a fitted model and its rows: bias, variance, time and memory of each.

    See `estimator_table`, which says how they are measured. At most 100 rows are taken.

    Parameters
    ----------
    fitted : an estimator whose recipe has an ``objective`` with a gradient estimator.
    X : rows such as it was fitted on.
    draws : estimates of the gradient by each estimator.
    others : estimators to be looked at besides those with their default settings.

    Raises
    ------
    ValueError
        When the recipe learns without a gradient.

    Examples
    --------
    >>> import ravine as rv
    >>> X = np.random.default_rng(0).normal(size=(60, 3))
    >>> model = rv.VAE(latents=1, hidden=(4,), steps=20, random_state=0).fit(X)
    >>> table = gradient_table(model, X, draws=32)
    >>> sorted(row.name for row in table.rows if not row.declared_biased)[:3]
    ['MeasureValued()', 'NVIL()', 'Pathwise()']
    """
    objective: Any = getattr(fitted, "objective", None)
    require(objective is not None, type(fitted).__name__, "a recipe that learns by a gradient", "none", "use another")
    values = fitted._ready(X)
    with precision(fitted.precision):
        batch = fitted._row(values[:BATCH])
        key, draw = jr.fold_in(fitted._key(), 5), fitted.schema_.draw()
        batch = batch if draw is None else blockwise(drawn_rows, batch, draw, key)
        return estimator_table(fitted.model_, objective, batch, key=key, draws=draws, others=others)


def estimator_table(
    model: AbstractLatentModel,
    objective: Objective,
    batch: Row,
    *,
    key: PRNGKeyArray,
    draws: int = 512,
    others: Sequence[AbstractGradient] = (),
) -> GradientTable:
    r"""Bias, variance, signal-to-noise, time and memory of each estimator that can serve a model's latents.

    The gradient is that of the objective on one batch in the parameters of the recogniser (``q``; all where there is
    none), for the objective with its estimator replaced by each in turn. The reference is the exact gradient, where
    the states of the latents can be listed, else the mean of a long run of the unbiased estimator with the least
    variance. With independent means :math:`m_i` and reference means :math:`r_j` the squared bias is estimated without
    bias,

    .. math:: b^2 = \overline{m_i \cdot m_{i'}} - 2\, \overline{m_i \cdot r_j} + \overline{r_j \cdot r_{j'}}

    over pairs :math:`i \ne i'`, :math:`j \ne j'`; its standard error is the jackknife's.

    Parameters
    ----------
    objective : one with a field ``gradient``, such as `ELBO`; schedules are taken at their end.
    batch : rows whose mean gradient is estimated.
    draws : estimates of the gradient by each estimator, in 16 groups.
    others : estimators to be looked at besides those with their default settings.

    Raises
    ------
    ValueError
        When the objective has no estimator to be replaced, or there are fewer than two draws in a group.
    """
    good = hasattr(objective, "gradient")
    require(good, "the objective", "one with a gradient estimator", shown(objective), "use ELBO or the like")
    each = whole("draws", draws, 2 * GROUPS) // GROUPS
    objective = resolve(objective, jnp.asarray(LATE))
    current = getattr(objective, "gradient", None) or getattr(model, "gradient", None)
    case = Case(getattr(model, "model", model), objective, jax.tree.map(jnp.asarray, batch))
    serving = candidates(case, [g for g in (current, *others) if g is not None])
    require(serving, "the model", "latents that some estimator can serve", "none", "use Pathwise or RLOO")
    keys = jr.split(key, len(serving) + 1)
    with highest_matmul():
        drawn = {
            name: sampled(case, gradient, each, key=k)
            for (name, gradient), k in zip(serving.items(), keys[1:], strict=True)
        }
        reference, how = _reference(case, serving, drawn, each, key=keys[0])
    rows = tuple(
        _estimated(name, gradient, gradient.evaluations(case.posterior()), drawn[name], reference)
        for name, gradient in serving.items()
    )
    return GradientTable(rows, how, each * GROUPS, rows_in(batch), None if current is None else named(current))


class Case(NamedTuple):
    """What is differentiated: a model, an objective whose estimator is replaced, and rows."""

    model: AbstractLatentModel
    objective: Objective
    batch: Row

    def posterior(self) -> AbstractPosterior:
        """That of the first row."""
        return self.model.posterior(jax.tree.map(lambda leaf: leaf[0], self.batch))


def candidates(case: Case, others: Sequence[AbstractGradient]) -> dict[str, AbstractGradient]:
    """The estimators that can serve every node of the posterior without too many evaluations, by name."""
    public: list[Any] = [getattr(gradients, name) for name in gradients.__all__]
    usual = [cls() for cls in public if AbstractGradient in cls.__mro__]
    usual += [gradients.ScoreFunction(2), gradients.RLOO(4), gradients.ReinMax(1.3), gradients.GumbelSoftmax(0.5)]
    made = {named(gradient): gradient for gradient in (*usual, *others)}
    return {name: gradient for name, gradient in made.items() if _serves(gradient, case)}


def _serves(gradient: AbstractGradient, case: Case) -> bool:
    posterior, weighted = case.posterior(), isinstance(case.objective, IWAE) and case.objective.k > 1
    if isinstance(gradient, AbstractManyDraws) and not weighted:
        return False
    if any(gradient.refuses(d) is not None for d in posterior.nodes()):
        return False
    return gradient.evaluations(posterior) <= MOST


def named(gradient: AbstractGradient) -> str:
    """As it is written in text; one that has learned arrays has no such text."""
    trained = any(eqx.is_array(leaf) for leaf in jax.tree.leaves(gradient))
    return f"{type(gradient).__name__} (trained)" if trained else spell(gradient)


def sampled(case: Case, gradient: AbstractGradient, each: int, *, key: PRNGKeyArray) -> Sampled:
    """The gradient of the recogniser's parameters, drawn ``each`` times in each group."""
    keys = jr.split(key, GROUPS * each).reshape(GROUPS, each)
    objective = dataclasses.replace(case.objective, gradient=gradient)  # pyright: ignore[reportArgumentType]
    program: Any = eqx.filter_jit(_group_means)
    run = program.lower(case.model, objective, case.batch, keys).compile()
    jax.block_until_ready(run(case.model, objective, case.batch, keys))
    before = time.perf_counter()
    means = jax.block_until_ready(run(case.model, objective, case.batch, keys))
    seconds = (time.perf_counter() - before) / keys.size
    return Sampled(np.asarray(means, np.float64), each, seconds, temporary_bytes(run.compiled) / 2**20)


def _group_means(
    model: PyTree, objective: Objective, batch: Row, keys: Key[Array, "groups each"]
) -> Float[Array, "groups parameters"]:
    part = Part("q") if hasattr(model, "q") else Whole()
    parameters, rest = trainable(part.get(model))

    def loss(parameters: PyTree, key: PRNGKeyArray) -> Array:
        return objective(part.set(model, eqx.combine(parameters, rest)), batch, key=key)[0]

    def more(total: PyTree, key: PRNGKeyArray) -> tuple[PyTree, None]:
        # what does not depend on the key would be taken out of the loop, and cost nothing
        here, key = jax.lax.optimization_barrier((parameters, key))
        return jax.tree.map(jnp.add, total, jax.grad(loss)(here, key)), None

    def mean(keys: Key[Array, " each"]) -> Float[Array, " parameters"]:
        total, _ = jax.lax.scan(more, jax.tree.map(jnp.zeros_like, parameters), keys)
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(total)]) / keys.size

    return jax.lax.map(mean, keys)


def _reference(
    case: Case, serving: dict[str, AbstractGradient], drawn: dict[str, Sampled], each: int, *, key: PRNGKeyArray
) -> tuple[Float[np.ndarray, "groups parameters"], str]:
    """Means of the gradient without bias, and how they were found."""
    enumerate_ = Enumerate()
    posterior = case.posterior()
    listed = all(enumerate_.refuses(d) is None for d in posterior.nodes())
    if listed and not isinstance(case.objective, IWAE) and enumerate_.evaluations(posterior) <= LISTED:
        return sampled(case, enumerate_, 1, key=key).means[:1], "the exact gradient"
    honest = {name: drawn[name] for name, gradient in serving.items() if not gradient.biased}
    best = min(honest, key=lambda name: honest[name].variance())
    draws = REPEATS * each
    return sampled(case, serving[best], draws, key=key).means, f"{GROUPS * draws} draws of {best}"


def _estimated(
    name: str, gradient: AbstractGradient, evaluations: int, drawn: Sampled, reference: Float[np.ndarray, "r n"]
) -> Estimated:
    square, error = squared_distance(drawn.means, reference)
    size = cross(reference) if len(reference) > 1 else float(np.sum(reference**2))
    size = max(size, np.finfo(float).tiny)
    return Estimated(
        name,
        declared_biased=gradient.biased,
        evaluations=evaluations,
        squared_bias=square / size,
        squared_bias_error=error / size,
        variance=drawn.variance() / size,
        seconds=drawn.seconds,
        megabytes=drawn.megabytes,
    )


def squared_distance(first: Float[np.ndarray, "g n"], second: Float[np.ndarray, "r n"]) -> tuple[float, float]:
    """The squared distance of two expectations, of which independent means are given, and its standard error.

    One row of ``second`` is the expectation itself.
    """
    whole_ = _distance(first, second)
    left_out = [_distance(np.delete(first, i, axis=0), second) for i in range(len(first))]
    variance = (len(first) - 1) * np.var(left_out)
    if len(second) > 1:
        left_out = [_distance(first, np.delete(second, i, axis=0)) for i in range(len(second))]
        variance += (len(second) - 1) * np.var(left_out)
    return whole_, float(np.sqrt(variance))


def _distance(first: Float[np.ndarray, "g n"], second: Float[np.ndarray, "r n"]) -> float:
    if len(second) == 1:
        return cross(first - second)
    return cross(first) + cross(second) - 2 * float(first.mean(axis=0) @ second.mean(axis=0))


def cross(means: Float[np.ndarray, "g n"]) -> float:
    """The mean of the scalar products of different rows: the squared norm of their expectation, without bias."""
    products = means @ means.T
    return float((products.sum() - np.trace(products)) / (len(means) * (len(means) - 1)))
