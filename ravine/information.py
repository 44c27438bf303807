"""How many parameters a fitted exact model has, what that says against it, and how well the data fix them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree
from sklearn.utils.validation import check_is_fitted

from ravine import verbs
from ravine._check import require
from ravine._jax import folded_key, precision
from ravine._tree import trainable
from ravine.core import AbstractTractable, Row, Scalar, weights

ROUNDED = 1e-12  # of the longest slope: shorter ones are what rounding leaves
TINY = 1e-7  # of the largest singular value: below it a direction of the parameters changes no probability


class Estimate(NamedTuple):
    """A quantity of a fitted model, in its shape, and the standard error of each of its numbers; inf where none is."""

    value: np.ndarray
    standard_error: np.ndarray


class Information:
    """Criteria of models whose likelihood is exact and was maximised."""

    model_: Any
    schema_: Any
    precision: Any

    def free_parameters(self) -> int:
        """Dimension of the family of laws around the fitted one.

        It is the rank of the slopes of log p at draws of the model. What changes no probability is not counted: a
        rotation of causes, the total of weights that are normalised, the odds of what is impossible to rounding.
        """
        check_is_fitted(self)
        with precision(self.precision):
            return _rank(self.model_, self._key())  # pyright: ignore[reportAttributeAccessIssue]

    def aic(self, X: Any) -> float:
        """Akaike's criterion, ``2 free parameters - 2 log p(X)`` in nats; lower is better. Akaike 1974, IEEE TAC 19."""
        return 2 * self.free_parameters() - 2 * self._total(X)

    def bic(self, X: Any) -> float:
        """Schwarz's criterion, ``log(n) free parameters - 2 log p(X)``; lower is better. Schwarz 1978, Ann. Statist. 6.

        ``n`` is the number of rows, of sequences that of steps, with an observed cell.
        """
        return float(np.log(max(1, self._count(X)))) * self.free_parameters() - 2 * self._total(X)

    def standard_errors(self, X: Any, of: Callable[[Any], Array]) -> Estimate:
        """The standard error of what ``of`` reads off the model, by the delta method.

        The covariance of the parameters is the inverse of the observed information, minus the second derivatives of
        log p(X) at the fitted ones (Efron & Hinkley 1978, Biometrika 65, 457-483), in the directions that change a
        probability; what changes along others has no standard error. ``X`` are the rows that were learned from.

        Parameters
        ----------
        X : the rows or sequences that the model was fitted to.
        of : a differentiable function of ``model_`` to an array, such as ``lambda model: model.components.means``; its
            numbers are in the units that the model sees.

        Examples
        --------
        >>> import numpy as np
        >>> from ravine.recipes.gaussian_mixture import GaussianMixture
        >>> X = np.random.default_rng(0).normal(size=(400, 1))
        >>> model = GaussianMixture(components=1, random_state=0).fit(X)
        >>> got = model.standard_errors(X, lambda model: model.components.means)
        >>> bool(abs(got.standard_error[0, 0] / (X.std() / 20) - 1) < 1e-3)
        True
        """
        check_is_fitted(self)
        values = self._ready(X)  # pyright: ignore[reportAttributeAccessIssue]
        with precision(self.precision):
            batch = self._row(values)  # pyright: ignore[reportAttributeAccessIssue]
            value, slopes, information = _curvature(self.model_, batch, of)
        size, axes = np.linalg.eigh(np.asarray(information, float))
        kept = size > TINY * size.max()
        slopes = np.asarray(slopes, float).reshape(-1, len(size))
        inside = slopes @ axes[:, kept]
        lost = np.linalg.norm(slopes @ axes[:, ~kept], axis=1) > 1e-4 * np.linalg.norm(slopes, axis=1)
        error = np.sqrt(np.sum(inside**2 / size[kept], axis=1))
        return Estimate(np.asarray(value), np.where(lost, np.inf, error).reshape(np.shape(value)))

    def _total(self, X: Any) -> float:
        got = self.log_likelihood(X)  # pyright: ignore[reportAttributeAccessIssue]
        exact = got.direction == "exact"
        require(exact, "a criterion", "exact log-likelihoods", got.method, "compare by held-out rows: ravine.compare")
        return float(np.sum(got.value))

    def _count(self, X: Any) -> int:
        values = self._ready(X)  # pyright: ignore[reportAttributeAccessIssue]
        cells = getattr(values, "steps", values)
        return int(np.count_nonzero(~np.isnan(np.asarray(cells, float).reshape(len(cells), -1)).all(axis=1)))


def _parts(model: PyTree) -> tuple[Float[Array, " p"], Callable[[Array], PyTree]]:
    """The parameters as one vector, and the model as a function of it."""
    moving, rest = trainable(model)
    vector, back = ravel_pytree(moving)
    return vector, lambda parameters: eqx.combine(back(parameters), rest)


def _rank(model: AbstractTractable, key: Any) -> int:
    vector, _ = _parts(model)
    draws = verbs.samples(model, 2 * vector.size + 64, key=folded_key(key, 6))
    scores = verbs.blockwise(_scores, Row(jnp.asarray(draws)), model)
    size = np.linalg.norm(scores, axis=0)
    felt = size > ROUNDED * size.max(initial=0)
    sizes = np.linalg.svd(scores[:, felt] / size[felt], compute_uv=False)
    return int(np.count_nonzero(sizes > TINY * sizes.max(initial=0)))


def _scores(block: Row, model: AbstractTractable) -> Float[Array, "n p"]:
    vector, back = _parts(model)
    return jax.vmap(lambda row: jax.grad(lambda parameters: back(parameters).log_evidence(row))(vector))(block)


@eqx.filter_jit
def _curvature(model: AbstractTractable, batch: Row, of: Callable[[Any], Array]) -> tuple[Array, Array, Array]:
    """What is asked for, its slopes along the parameters, and the information of the rows about these."""
    vector, back = _parts(model)

    def loss(parameters: Array) -> Scalar:
        return -weights(batch) @ jax.vmap(back(parameters).log_evidence)(batch)

    asked = lambda parameters: jnp.asarray(of(back(parameters)))  # noqa: E731
    slope = jax.grad(loss)
    curvature = jax.lax.map(lambda direction: jax.jvp(slope, (vector,), (direction,))[1], jnp.eye(vector.size))
    return asked(vector), jax.jacrev(asked)(vector), (curvature + curvature.T) / 2
