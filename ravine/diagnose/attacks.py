"""Rows that are moved by a little so that a classifier changes its mind, and how often it does.

Goodfellow, Shlens & Szegedy 2015, arXiv:1412.6572; Madry et al. 2018, arXiv:1706.06083.
"""

from __future__ import annotations

import abc
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from ravine._check import require, shown, translated
from ravine._containers import as_given
from ravine._jax import highest_matmul, precision
from ravine._spell import spell
from ravine._tree import row_keys
from ravine.core import Row, Scalar
from ravine.diagnose._pictures import curve, strips
from ravine.diagnose.balls import AbstractBall, Box, Linf, Move
from ravine.diagnose.outputs import Range, Seen, Vector, classes_of, limits, seen, sizes
from ravine.labels import log_shares, places_of
from ravine.verbs import blockwise

Loss = Callable[[Move], Scalar]
RADII = (0.0, 0.02, 0.05, 0.1, 0.2)


class AbstractAttack(eqx.Module):
    """A way to find a move of a row that raises a loss.

    Attributes
    ----------
    ball : the norm in which moves are measured.
    """

    ball: eqx.AbstractVar[AbstractBall]

    @abc.abstractmethod
    def __call__(self, loss: Loss, radius: Scalar, box: Box, *, key: PRNGKeyArray) -> Move:
        """A move of at most this length that stays in the box."""


class FGSM(AbstractAttack):
    r"""The fast gradient sign method: one step along the slope, to the end of the ball. Goodfellow et al. 2015.

    .. math:: x + \epsilon \, \mathrm{sign}\, \nabla_x L(x, y)

    With ``ball=L2()`` it goes along the slope itself. It is optimal where the log odds are linear in the row.
    """

    ball: AbstractBall = Linf()

    def __call__(self, loss: Loss, radius: Scalar, box: Box, *, key: PRNGKeyArray) -> Move:
        slope = jax.grad(loss)(jnp.zeros_like(box.low))
        return self.ball.project(radius * self.ball.steepest(slope), radius, box)


class PGD(AbstractAttack):
    r"""Projected gradient descent: steps along the slope, each put back into the ball. Madry et al. 2018.

    .. math:: x_{t + 1} = \Pi (x_t + \alpha \, \mathrm{sign}\, \nabla_x L(x_t, y))

    Parameters
    ----------
    ball : ``Linf()`` or ``L2()``.
    steps : from each start.
    size : of a step, as a share of the radius; None for 2.5 / steps.
    starts : the row itself, and one draw fewer than this that are uniform in the ball. The best end is taken.
    """

    ball: AbstractBall = Linf()
    steps: int = eqx.field(static=True, default=40)
    size: float | None = eqx.field(static=True, default=None)
    starts: int = eqx.field(static=True, default=1)

    def __check_init__(self) -> None:
        good = self.steps >= 1 and self.starts >= 1 and (self.size is None or self.size > 0)
        require(good, "PGD", "at least one step and one start, and steps of a size above 0", f"{self}", "change it")

    def __call__(self, loss: Loss, radius: Scalar, box: Box, *, key: PRNGKeyArray) -> Move:
        still = jnp.zeros_like(box.low)
        others = jax.vmap(lambda k: radius * self.ball.draw(still, key=k))(jr.split(key, self.starts))[1:]
        first = jax.vmap(lambda move: self.ball.project(move, radius, box))(jnp.concatenate([still[None], others]))
        ends = jax.vmap(lambda move: self._climbed(loss, move, radius, box))(first)
        return ends[jnp.argmax(jax.vmap(loss)(ends))]

    def _climbed(self, loss: Loss, start: Move, radius: Scalar, box: Box) -> Move:
        size = radius * (2.5 / self.steps if self.size is None else self.size)

        def step(_: Array, move: Move) -> Move:
            uphill = move + size * self.ball.steepest(jax.grad(loss)(move))
            return self.ball.project(uphill, radius, box)

        return jax.lax.fori_loop(0, self.steps, step, start)


# --- rows


@dataclass(frozen=True)
class AdversarialExamples:
    """Rows that were moved, and what the classifier says of them.

    Attributes
    ----------
    rows : the moved rows, of the kind that was given.
    before, after : the labels that are predicted of the rows as they were, and as they are.
    distance : how far each was moved, in the norm and the scale of the attack.
    moves : by how much each cell was changed, 0 where it is missing.
    image_shape : of a row, where it is an image.
    """

    rows: Any
    before: np.ndarray
    after: np.ndarray
    distance: Float[np.ndarray, " rows"]
    moves: Float[np.ndarray, "rows columns"]
    image_shape: tuple[int, ...] | None = None

    @property
    def changed(self) -> Bool[np.ndarray, " rows"]:
        """Which rows are told to be of another class than before."""
        return self.before != self.after

    def __str__(self) -> str:
        far = float(self.distance.max())
        return f"{int(self.changed.sum())} of {len(self.changed)} predictions changed by moves of at most {far:.3g}."

    def plot(self, path: Any = None, most: int = 10) -> Any:
        """A picture of the first images, their moves and what became of them. Needs matplotlib.

        Returns
        -------
        The figure, which is also written to ``path`` if one is given.

        Raises
        ------
        ValueError
            When rows are no images.
        """
        made = np.asarray(self.rows, float).reshape(self.moves.shape)[:most]
        moves, told = self.moves[:most], [f"{a} → {b}" for a, b in zip(self.before, self.after, strict=True)][:most]
        lines = [("rows", made - moves, None), ("moves", moves, None), ("moved", made, told)]
        return strips(lines, self.image_shape, path)


def adversarial_examples(
    fitted: Any,
    X: Any,
    y: Any = None,
    *,
    radius: Any,
    attack: AbstractAttack = PGD(),  # noqa: B008
    target: Any = None,
    bounds: Any = None,
    scale: Any = None,
) -> AdversarialExamples:
    r"""Rows near those of X of which a classifier says something else.

    What is raised is the log odds against the label of a row; towards a target, the log odds for it. Their slope,

    .. math:: \nabla_x \log \frac{1 - p(y \mid x)}{p(y \mid x)} = \frac{-\nabla_x \log p(y \mid x)}{1 - p(y \mid x)}

    is that of the cross-entropy but for a factor, and does not vanish where the classifier is sure.

    Parameters
    ----------
    fitted : any classifier of rows of real cells, or of grey values that go in as they are.
    X : rows; missing cells stay missing.
    y : their labels; what is predicted of them unless given.
    radius : the length of a move at most, in units of ``scale``.
    attack : ``FGSM()``, ``PGD()``, and the same with ``ball=L2()``.
    target : the label that is aimed at, one for all rows or one for each; None is content with any other.
    bounds : (low, high) of the cells, numbers or one for each column; None for `cell_range`.
    scale : what counts as 1 in each column; 1 in the units of X unless given. For a table of unlike columns give their
        standard deviations.

    Returns
    -------
    `AdversarialExamples`; each row is attacked alone, and gets the same move in any company.

    Raises
    ------
    ValueError
        When the cells are discrete, the estimator is no such classifier, the radius is negative, or labels are unknown.

    Examples
    --------
    >>> import ravine as rv
    >>> y = np.arange(60) % 2
    >>> X = np.random.default_rng(0).normal(size=(60, 2)) + 2 * y[:, None]
    >>> model = rv.EnergyClassifier(hidden=(8,), steps=100, random_state=0).fit(X, y)
    >>> found = adversarial_examples(model, X, y, radius=1.5)
    >>> bool(found.distance.max() <= 1.5), int(found.changed.sum()) > 30
    (True, True)
    """
    good = isinstance(radius, numbers.Real) and 0 <= float(radius) < np.inf
    require(good, "radius", "a number of at least 0", shown(radius), "change it")
    case = _case(fitted, X, bounds, scale)
    wanted, what = (case.before if y is None else y, "y") if target is None else (target, "target")
    codes = places_of(classes_of(fitted), wanted, len(case.before), what)
    return _result(case, _moves(case, codes, attack, float(radius), -1.0 if target is not None else 1.0), attack.ball)


class _Case(NamedTuple):
    """Rows to be attacked: the estimator, the rows as they came and as seen, what is said of them, scale and range."""

    fitted: Any
    X: Any
    seen: Seen
    before: np.ndarray
    width: Vector
    ends: Range

    def box(self) -> Box:
        """How far each cell may be moved, in units of the scale; a missing cell stays."""
        ends = [(end - self.seen.values) / self.width for end in self.ends]
        low, high = (np.where(np.isnan(end), 0.0, end) for end in ends)
        return Box(low, high)  # pyright: ignore[reportArgumentType]


def _case(fitted: Any, X: Any, bounds: Any, scale: Any) -> _Case:
    classes = len(classes_of(fitted))
    require(classes > 1, type(fitted).__name__, "a classifier of two classes at least", f"{classes}", "fit another")
    here = seen(fitted, X, log_shares)
    width = sizes(fitted.schema_, scale, np.ones(fitted.schema_.width))
    return _Case(fitted, X, here, np.asarray(fitted.predict(X)), width, limits(fitted, here.values, bounds))


def _moves(
    case: _Case, codes: Int[np.ndarray, " rows"], attack: AbstractAttack, radius: float, sign: float
) -> Float[np.ndarray, "rows columns"]:
    """What an attack finds, in units of the scale; made to fit once more in double precision."""
    fitted, row, box = case.fitted, case.seen.row, case.box()
    with precision(fitted.precision), highest_matmul():
        given = (jnp.asarray(n, row.x.dtype) for n in (radius, case.seen.unit * case.width, sign))
        block = Row((row.x, *(jnp.asarray(end, row.x.dtype) for end in box)), row.mask, jnp.asarray(codes))
        found = blockwise(_attacked, block, fitted.model_, attack, *given, jr.fold_in(jr.key(fitted.seed_), 21))
    do = "use precision='float64', or leave such rows out"
    require(np.isfinite(found).all(), type(fitted).__name__, "finite slopes at all rows", "others", do)
    with precision("float64"):
        fit = jax.vmap(lambda move, low, high: attack.ball.project(move, radius, Box(low, high)))
        return np.asarray(fit(*(jnp.asarray(part, float) for part in (found, *box))))


def _attacked(
    block: Row, model: PyTree, attack: AbstractAttack, radius: Scalar, unit: Move, sign: Scalar, key: PRNGKeyArray
) -> Float[Array, "n cells"]:
    def one(row: Row, key: PRNGKeyArray) -> Move:
        x, *box = row.x

        def loss(move: Move) -> Scalar:
            log_p = log_shares(Row(x + unit * move, row.mask), model)
            others = jnp.where(jnp.arange(log_p.size) == row.y, -jnp.inf, log_p)
            return sign * (jax.nn.logsumexp(others) - log_p[row.y])

        return attack(loss, radius, Box(*box), key=key)

    return jax.vmap(one)(block, row_keys(key, (block.x[0], block.mask, block.y)))


def _result(case: _Case, found: Float[np.ndarray, "rows columns"], ball: AbstractBall) -> AdversarialExamples:
    values, schema = case.seen.values, case.fitted.schema_
    moved = np.clip(values + found * case.width, *case.ends)
    rows = as_given(case.X, moved.astype(np.asarray(case.fitted._ready(case.X)).dtype))
    with precision("float64"):
        distance = np.asarray(jax.vmap(ball.norm)(jnp.asarray(found)))
    after = np.asarray(case.fitted.predict(rows))
    return AdversarialExamples(rows, case.before, after, distance, found * case.width, schema.image_shape)


# --- many radii


@dataclass(frozen=True)
class RobustAccuracy:
    """How often a classifier is right about a row, and about all that an attack finds within each radius of it.

    It is at least the accuracy under the best possible attack: what an attack does not find may still be there.

    Attributes
    ----------
    radii : in rising order.
    accuracy : the share of rows that are told rightly at every radius up to this one.
    standard_error : of that share, over rows.
    rows : how many.
    attack : as it is written in text.
    """

    radii: Float[np.ndarray, " radii"]
    accuracy: Float[np.ndarray, " radii"]
    standard_error: Float[np.ndarray, " radii"]
    rows: int
    attack: str

    def __str__(self) -> str:
        lines = zip(self.radii, self.accuracy, self.standard_error, strict=True)
        told = [f"{radius:<8.3g}{share:.3f} +- {error:.3f}" for radius, share, error in lines]
        return "\n".join([f"{self.attack}, {self.rows} rows", f"{'radius':<8}accuracy", *told])

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and text."""
        arrays = {name: getattr(self, name).tolist() for name in ("radii", "accuracy", "standard_error")}
        return {"attack": self.attack, "rows": self.rows} | arrays

    def plot(self, path: Any = None) -> Any:
        """The accuracy over the radius, with a standard error to both sides. Needs matplotlib.

        Returns
        -------
        The figure, which is also written to ``path`` if one is given.
        """
        return curve(self.radii, self.accuracy, self.standard_error, ("radius", "accuracy"), path)


def robust_accuracy(
    fitted: Any,
    X: Any,
    y: Any,
    radii: Any = RADII,
    *,
    attack: AbstractAttack = PGD(),  # noqa: B008
    bounds: Any = None,
    scale: Any = None,
) -> RobustAccuracy:
    """The share of rows that a classifier still tells rightly when they are moved by at most each radius.

    A row that is lost within a ball is lost within larger ones, so the shares never rise.

    Parameters
    ----------
    fitted, X, bounds, scale : as for `adversarial_examples`.
    y : the labels of the rows.
    radii : in any order.
    attack : the same at every radius.

    Raises
    ------
    ValueError
        As `adversarial_examples` does; or when there is no radius.

    Examples
    --------
    >>> import ravine as rv
    >>> from ravine.diagnose.balls import L2
    >>> y = np.arange(60) % 2
    >>> X = np.random.default_rng(0).normal(size=(60, 2)) + 6 * y[:, None]
    >>> model = rv.EnergyClassifier(hidden=(8,), steps=100, random_state=0).fit(X, y)
    >>> robust_accuracy(model, X, y, [0.0, 9.0], attack=FGSM(L2()), bounds=(-9, 15)).accuracy.round(1).tolist()
    [1.0, 0.0]
    """
    with translated("radii", "numbers of at least 0", "change them"):
        far = np.unique(np.asarray(radii, float))
    good = far.size and (far >= 0).all() and np.isfinite(far).all()
    require(good, "radii", "numbers of at least 0", shown(radii), "change them")
    case = _case(fitted, X, bounds, scale)
    classes = classes_of(fitted)
    codes = places_of(classes, y, len(case.before), "y")
    kept, shares = case.before == classes[codes], []
    for radius in far:
        found = _result(case, _moves(case, codes, attack, float(radius), 1.0), attack.ball)
        kept = kept & (found.after == classes[codes])
        shares.append(kept.mean())
    accuracy = np.asarray(shares)
    error = np.sqrt(accuracy * (1 - accuracy) / len(kept))
    return RobustAccuracy(far, accuracy, error, len(kept), spell(attack))
