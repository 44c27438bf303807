"""Lift a scalar objective to a rule: follow its gradient with an optimiser of Optax."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from ravine._tree import AbstractSchedule, Layer, Part, Whole, is_running, resolve, trainable
from ravine.core import AbstractRule, Metrics, Objective, Row

Number = float | int | AbstractSchedule | Array


class Optimiser(eqx.Module):
    """An Optax optimiser named by its factory and arguments, so that equal optimisers compare equal.

    Any argument may be a schedule. ``clip`` bounds the global norm of the gradient.

    Examples
    --------
    >>> Optimiser(optax.adamw, (1e-3,)).at(jnp.array(0)).init(jnp.ones(2))[0].mu.shape
    (2,)
    """

    make: Callable[..., optax.GradientTransformation] = eqx.field(static=True, default=optax.adam)
    args: tuple[Number, ...] = (1e-3,)
    clip: Number | None = None

    def at(self, step: Int[Array, ""]) -> optax.GradientTransformation:
        """The optimiser with its schedules resolved at this step."""
        here = resolve(self, step)
        made = here.make(*here.args)
        return made if here.clip is None else optax.chain(optax.clip_by_global_norm(here.clip), made)


def gradient_descent(rate: Number, momentum: Number = 0.0) -> Optimiser:
    """Plain gradient descent; without momentum no velocity is kept, which saves as much memory as the weights take."""
    return Optimiser(optax.sgd, (rate, momentum) if isinstance(momentum, AbstractSchedule) or momentum else (rate,))


class Descend(AbstractRule):
    """Lower an objective in the arrays of ``on``; nothing else is differentiated or touched.

    Metrics are the objective's own, ``loss``, ``gradient_norm`` (the Euclidean norm over all parameters), and
    ``rate``, the optimiser's first argument, if it has any.
    """

    objective: Objective
    optimiser: Optimiser = Optimiser()
    on: Whole | Part | Layer = Whole()

    def init(self, model: PyTree, batch: Row, *, key: PRNGKeyArray) -> PyTree:
        return self.optimiser.at(jnp.array(0)).init(trainable(self.on.get(model))[0])

    def step(
        self, model: PyTree, state: PyTree, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[PyTree, PyTree, Metrics]:
        objective = resolve(self.objective, step)
        parameters, rest = trainable(self.on.get(model))

        def loss(parameters: PyTree) -> tuple[Array, Metrics]:
            return objective(self.on.set(model, eqx.combine(parameters, rest)), batch, key=key)

        (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(parameters)
        optimiser = resolve(self.optimiser, step)
        told, gradient = _apart(gradient)
        norm = optax.tree.norm(gradient)
        gradient = _after(norm, gradient)
        updates, state = optimiser.at(step).update(gradient, state, parameters)
        updates = jax.tree.map(_moved, parameters, updates, told, is_leaf=is_running)
        parameters = optax.apply_updates(parameters, updates)
        metrics = metrics | {"loss": value, "gradient_norm": norm}
        metrics |= {"rate": jnp.asarray(optimiser.args[0])} if optimiser.args else {}
        return self.on.set(model, eqx.combine(parameters, rest)), state, metrics


def _apart(gradient: PyTree) -> tuple[PyTree, PyTree]:
    """The gradient, and the same without that of running numbers: these obey no optimiser."""
    silent = lambda node: jax.tree.map(jnp.zeros_like, node) if is_running(node) else node  # noqa: E731
    return gradient, jax.tree.map(silent, gradient, is_leaf=is_running)


def _after(norm: Array, gradient: PyTree) -> PyTree:
    """The gradient, once all of it is there: what follows reads the parameters last, and can write in their place.

    Without that order the compiler copies most weights at every step. The smaller of a norm and 0 is 0.
    """
    return jax.tree.map(lambda leaf: leaf + jnp.minimum(norm, 0).astype(leaf.dtype), gradient)


def _moved(parameter: PyTree, update: PyTree, gradient: PyTree) -> PyTree:
    return parameter.moved(gradient) if is_running(parameter) else update
