"""Whether a way of learning follows the slope of a loss: the step that it takes, beside the gradient.

How far local learning is from back-propagation is told by the angle between the two: Lillicrap, Cownden, Tweed and
Akerman 2016, *Random synaptic feedback weights support error backpropagation for deep learning*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Key, PRNGKeyArray, PyTree

from ravine._check import require, whole
from ravine._jax import highest_matmul, precision
from ravine._tree import resolve, trainable
from ravine.checkpoint.names import leaf_names
from ravine.core import AbstractRule, Objective, Row
from ravine.diagnose.diagnosis import presented
from ravine.rules import Descend, gradient_descent

BATCH = 100  # rows whose mean gradient is looked at


@dataclass(frozen=True)
class Alignment:
    """The angle between two trees of arrays, and their relative size; leaf by leaf, by the name of the path to it.

    Attributes
    ----------
    cosines : of the angle in each leaf, from -1 to 1; NaN where one of the two is 0.
    ratios : the norm of the first by that of the second; NaN where both are 0.
    cosine, ratio : the same of all leaves as one vector.
    """

    cosines: Mapping[str, float]
    ratios: Mapping[str, float]
    cosine: float
    ratio: float

    def __str__(self) -> str:
        width = max(len(name) for name in (*self.cosines, "all together"))
        lines = [f"{'':<{width}}  cosine  ratio of norms"]
        pairs = [(name, self.cosines[name], self.ratios[name]) for name in self.cosines]
        for name, cosine, ratio in [*pairs, ("all together", self.cosine, self.ratio)]:
            lines.append(f"{name:<{width}}  {cosine:6.3f}  {ratio:.3g}")
        return "\n".join(lines)


def alignment(first: PyTree, second: PyTree) -> Alignment:
    r"""The cosine of the angle between two trees of the same structure, and the ratio of their norms.

    .. math:: \cos = \frac{u \cdot g}{\|u\| \|g\|}, \qquad r = \|u\| / \|g\|

    Parameters
    ----------
    first, second : trees of arrays, such as an update and a gradient. Compare minus an update with a gradient.

    Raises
    ------
    ValueError
        When they do not have the same leaves.

    Examples
    --------
    >>> gradient = {"weight": jnp.array([3.0, 4.0]), "bias": jnp.array([1.0])}
    >>> found = alignment({"weight": jnp.array([0.0, 2.0]), "bias": jnp.array([-2.0])}, gradient)
    >>> found.cosines["weight"], found.cosines["bias"], found.ratios["bias"]
    (0.8, -1.0, 2.0)
    """
    one, other = (
        {name: np.asarray(leaf, np.float64).ravel() for name, leaf in leaf_names(tree).items()}
        for tree in (first, second)
    )
    same = {name: leaf.size for name, leaf in one.items()} == {name: leaf.size for name, leaf in other.items()}
    require(same and one, "alignment", "two trees of the same arrays", "others", "give an update and its gradient")
    each = {name: _angle(one[name], other[name]) for name in sorted(one)}
    cosine, ratio = _angle(*(np.concatenate([tree[name] for name in each]) for tree in (one, other)))
    cosines, ratios = ({name: pair[i] for name, pair in each.items()} for i in range(2))
    return Alignment(cosines, ratios, cosine, ratio)


def _angle(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    sizes = [float(np.max(np.abs(v), initial=0.0)) for v in (one, other)]
    if not all(sizes):
        return float("nan"), float("nan") if not any(sizes) else 0.0 if sizes[1] else float("inf")
    one, other = one / sizes[0], other / sizes[1]  # squares of small numbers would be 0
    norms = np.linalg.norm(one), np.linalg.norm(other)
    cosine = float(np.clip(one @ other / (norms[0] * norms[1]), -1, 1))
    return cosine, float(norms[0] / norms[1] * (sizes[0] / sizes[1]))


def rule_alignment(
    rule: AbstractRule | Objective,
    reference: Objective,
    model: PyTree,
    batch: Row,
    *,
    key: PRNGKeyArray,
    draws: int = 1,
) -> Alignment:
    r"""What one step of a rule takes away from the parameters, beside the gradient of a reference loss.

    A cosine of 1 is steepest descent of the reference, one above 0 lowers it if the step is small, one below 0 raises
    it. Both are means over ``draws``, by keys of their own: noise that is left makes cosines smaller than they are.

    Parameters
    ----------
    rule : how the model learns, at the first step after its ``init``; or an objective whose gradient is followed.
    reference : what should be lowered, such as ``ELBO(Enumerate())``, ``ExactLikelihood()``.
    model : whose trainable arrays are compared; those that the rule leaves alone have no cosine.
    batch : rows as the model sees them.
    draws : steps, and gradients, that are averaged.

    Examples
    --------
    >>> from ravine.models.linear_gaussian import DiagonalNoise, LinearGaussian
    >>> from ravine.objectives import MaximumLikelihood
    >>> from ravine.rules import EM
    >>> model = LinearGaussian(jnp.ones((3, 1)), jnp.zeros(3), DiagonalNoise(jnp.ones(3)))
    >>> x = jr.normal(jr.key(0), (50, 3))
    >>> rule_alignment(EM(), MaximumLikelihood(), model, Row(x), key=jr.key(0)).cosine > 0  # EM never goes down
    True
    """
    learner = rule if isinstance(rule, AbstractRule) else Descend(rule, gradient_descent(1.0))
    count = whole("draws", draws)
    here, there = (jr.split(k, count) for k in jr.split(key))
    batch = jax.tree.map(jnp.asarray, batch)
    with highest_matmul():
        taken, slope = _taken(learner, model, batch, here), _slope(reference, model, batch, there)
    return alignment(taken, slope)


@eqx.filter_jit
def _taken(rule: AbstractRule, model: PyTree, batch: Row, keys: Key[Array, " draws"]) -> PyTree:
    """The mean of what a step takes away."""
    before = trainable(model)[0]

    def one(key: PRNGKeyArray) -> PyTree:
        begin, go = jr.split(key)
        after = rule.step(model, rule.init(model, batch, key=begin), batch, key=go, step=jnp.array(0))[0]
        return jax.tree.map(jnp.subtract, before, trainable(after)[0])

    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), jax.lax.map(one, keys))


@eqx.filter_jit
def _slope(objective: Objective, model: PyTree, batch: Row, keys: Key[Array, " draws"]) -> PyTree:
    """The mean of the gradient."""
    parameters, rest = trainable(model)
    value: Any = resolve(objective, jnp.array(0))

    def one(key: PRNGKeyArray) -> PyTree:
        return jax.grad(lambda p: value(eqx.combine(p, rest), batch, key=key)[0])(parameters)

    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), jax.lax.map(one, keys))


def learning_alignment(
    fitted: Any, X: Any, reference: Objective, rule: AbstractRule | Objective | None = None, *, draws: int = 16
) -> Alignment:
    """Whether the learning of a recipe follows the slope of a loss, at the parameters of a fit: see `rule_alignment`.

    Parameters
    ----------
    fitted : an estimator that learns from rows alone.
    X : rows such as it was fitted on; at most 100 are taken.
    reference : what should be lowered.
    rule : how it learns; the rule of the recipe's last stage unless given.
    draws : steps, and gradients, that are averaged.

    Examples
    --------
    >>> import ravine as rv
    >>> from ravine.objectives import ExactLikelihood
    >>> X = np.random.default_rng(0).integers(0, 2, size=(40, 1)) * np.ones((1, 3))
    >>> model = rv.RBM(hidden=2, steps=20, random_state=0).fit(X)
    >>> found = learning_alignment(model, X, ExactLikelihood())
    >>> sorted(found.cosines), found.cosine > 0
    (['coupling.weight', 'hidden.bias', 'visible.bias'], True)
    """
    stages = getattr(fitted, "stages", None)
    known = stages is not None and hasattr(fitted, "_ready") and hasattr(fitted, "model_")
    require(known, type(fitted).__name__, "a fitted estimator of rows", "another", "fit a recipe first")
    values = fitted._ready(X)[:BATCH]
    learner = fitted.stages(fitted.schema_.rows)[-1].rule if rule is None else rule
    with precision(fitted.precision):
        key = jr.fold_in(jr.key(fitted.seed_), 23)
        batch = presented(fitted._row(values), fitted.schema_.draw(), key=key)
        return rule_alignment(learner, reference, fitted.model_, batch, key=key, draws=draws)
