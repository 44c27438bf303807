"""Linear dynamical systems: a hidden state that moves linearly, and rows that are sequences of what it shows."""

from __future__ import annotations

from typing import NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from ravine._tree import Fixed, unfix
from ravine.core import AbstractConjugate, AbstractDistribution, Row, Scalar, summed, weights
from ravine.dist import FullGaussian, Gaussian
from ravine.dist._cells import HALF_LOG_2PI
from ravine.models.laws import Held
from ravine.models.linear_gaussian import AbstractNoise, DiagonalNoise, LinearGaussian
from ravine.models.motion import Motion, alive, existing, in_time, moves, seen_cells, windows, with_one
from ravine.models.state_path import StatePath, log_density, lower_root
from ravine.posteriors import OneNode


class Filtered(NamedTuple):
    """What a pass forward knows at each of T steps: states predicted (one more) and corrected, and log p(x_t | past).

    A root is a square root of a covariance; those of predictions are lower triangular. The last three say how a state
    follows from the one after it and all observations up to its own, as in `StatePath`.
    """

    predicted: Float[Array, "next k"]
    predicted_roots: Float[Array, "next k k"]
    means: Float[Array, "t k"]
    roots: Float[Array, "t k k"]
    evidence: Float[Array, " t"]
    gains: Float[Array, "t k k"]
    shifts: Float[Array, "t k"]
    factors: Float[Array, "t k k"]

    def path(self) -> StatePath:
        """The law of all states given all observations."""
        last = FullGaussian(self.means[-1], lower_root(self.roots[-1]))
        return StatePath(last, self.gains[:-1], self.shifts[:-1], self.factors[:-1])


class LinearDynamical(AbstractConjugate):
    r"""The linear Gaussian state space model; a row is one sequence, shape (T, d).

    .. math::
        z_1 \sim N(m_0, P_0), \qquad z_t = A z_{t-1} + w_t, \quad w_t \sim N(0, Q), \qquad
        x_t = C z_t + b + v_t, \quad v_t \sim N(0, \mathrm{diag}(r))

    Kalman 1960, Journal of Basic Engineering 82, 35-45. Factors of covariances, not covariances, go forward, by QR
    factorisations (Kaminski, Bryson & Schmidt 1971, IEEE TAC 16, 727-736), and the observed cells of a step enter
    through a k x k system, so missing cells and missing steps drop out exactly. ``row.length`` is how many steps exist;
    what lies beyond is never read. The latent is the path of the states of all T steps, shape (T, k).

    The maximisation step is that of Shumway & Stoffer 1982, Journal of Time Series Analysis 3, 253-264, with missing
    cells. Steps after the last at which something was observed are no part of it: they would leave the likelihood as
    it is, and only slow EM down.

    Parameters
    ----------
    initial : the law of the first state, of k numbers.
    transition : A, shape (k, k).
    process : lower Cholesky factor of Q, shape (k, k), positive on its diagonal; only the lower triangle is read.
    loading : C, shape (d, k).
    bias : b, shape (d,).
    noise : of the cells, such as `DiagonalNoise`.
    steps : how many steps `sample` draws, static.
    floor : the smallest variance, in any direction, that learning gives to the first state and to the process; 1e-6.
    centre : shape (d,), a constant near the data that keeps sums of squares accurate; the bias unless given.

    Raises
    ------
    ValueError
        When the shapes of the parameters do not agree.

    Examples
    --------
    >>> one = jnp.ones((1, 1))
    >>> walk = LinearDynamical(FullGaussian(jnp.zeros(1), one), one, one, one, jnp.zeros(1), DiagonalNoise(jnp.ones(1)))
    >>> row = Row(jnp.array([[3.0], [0.0]]), jnp.array([[True], [False]]))
    >>> walk.conditional(row).mean().round(1).tolist()
    [[3.0], [1.5]]
    >>> round(float(walk.log_evidence(row)), 4)  # N(3; 0, 2)
    -3.5155
    >>> [part.round(1).ravel().tolist() for part in walk.forecast(Row(row.x[:1]), 2)]
    [[1.5, 1.5], [2.5, 3.5]]
    """

    initial: FullGaussian
    transition: Float[Array, "k k"]
    process: Float[Array, "k k"]
    loading: Float[Array, "d k"]
    bias: Float[Array, " d"]
    noise: AbstractNoise
    floor: Fixed
    centre: Fixed
    steps: int = eqx.field(static=True)

    def __init__(
        self,
        initial: FullGaussian,
        transition: Array,
        process: Array,
        loading: Array,
        bias: Array,
        noise: AbstractNoise,
        steps: int = 1,
        *,
        floor: Fixed | None = None,
        centre: Fixed | None = None,
    ):
        d, k = jnp.shape(bias), jnp.shape(initial.location)
        got = jnp.shape(transition), jnp.shape(process), jnp.shape(loading)
        if got != (k + k, k + k, d + k):
            raise ValueError(
                f"LinearDynamical with a bias {d} and a first state {k} needs a transition {k + k}, a process factor "
                f"{k + k} and a loading {d + k}, got {got[0]}, {got[1]} and {got[2]}."
            )
        self.initial, self.transition, self.process = initial, transition, process
        self.loading, self.bias, self.noise = loading, bias, noise
        self.floor = Fixed(1e-6) if floor is None else floor
        self.centre, self.steps = Fixed(bias) if centre is None else centre, steps

    @classmethod
    def from_moments(cls, batch: Row, k: int, noise: type[AbstractNoise] = DiagonalNoise) -> Self:
        """A start for learning, without chance: principal components of the steps, then their regression in time.

        A step here is a window of steps that has twice as many cells as there are states, as in subspace identification
        (Van Overschee & De Moor 1994, Automatica 30, 75-93): states that one step does not show are seen in several.
        ``batch`` holds the rows, (n, T, d), ``k`` is the number of states.
        """
        n, steps, d = batch.x.shape
        rows = windows(batch, -(-2 * k // d))
        factors = LinearGaussian.from_moments(rows, k, noise)
        scores = jax.vmap(lambda row: factors.posterior(row).mean())(rows).reshape(n, steps, k)
        seen = weights(rows).reshape(n, steps)
        transition, process = in_time(scores, jnp.minimum(seen[:, 1:], seen[:, :-1]))
        initial = FullGaussian(jnp.zeros(k, scores.dtype), jnp.eye(k, dtype=scores.dtype))
        variances = factors.noise_scale()[:d] ** 2
        shown = factors.loading[:d], unfix(factors.bias)[:d], noise.of(variances)
        return cls(initial, transition, process, *shown, steps)

    def sample(
        self, context: PyTree = None, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, "steps k"], Float[Array, "steps d"]]:
        first, move, show = jr.split(key, 3)
        own = jr.normal(move, (self.steps - 1, self.transition.shape[0]), self.transition.dtype)
        start = self.initial.sample(key=first)

        def forth(before: Array, noise: Array) -> tuple[Array, Array]:
            here = self.transition @ before + noise
            return here, here

        _, later = jax.lax.scan(forth, start, own @ jnp.tril(self.process).T)
        z = jnp.concatenate([start[None], later])
        return z, self.likelihood(z).sample(key=show)

    def of_length(self, steps: int) -> Self:
        """The same model, which draws so many steps."""
        shown = self.loading, self.bias, self.noise, steps
        return type(self)(self.initial, self.transition, self.process, *shown, floor=self.floor, centre=self.centre)

    def likelihood(self, z: Float[Array, "t k"], context: PyTree = None) -> Gaussian:
        """p(x | z) of a path of any number of steps."""
        scale = jnp.broadcast_to(self.noise_scale()[None], (z.shape[0], self.bias.size))
        return Gaussian(z @ self.loading.T + self.bias[None], scale)

    def log_prior(self, z: Float[Array, "t k"], row: Row) -> Scalar:
        away = jnp.concatenate([(z[0] - self.initial.location)[None], z[1:] - z[:-1] @ self.transition.T])
        process = jnp.broadcast_to(jnp.tril(self.process), (z.shape[0] - 1, *self.process.shape))
        return log_density(away, jnp.concatenate([self.initial.lower()[None], process]))

    def log_likelihood(self, z: Float[Array, "t k"], row: Row) -> Scalar:
        return self.likelihood(z).log_prob(row.x, seen_cells(row))

    def posterior(self, row: Row) -> OneNode:
        return OneNode(self.path(row))

    def path(self, row: Row) -> StatePath:
        """The law of the states given the observed cells: to draw from, to score by, or its smoothed `moments`."""
        return self.filtered(row.x, seen_cells(row)).path()

    def log_evidence(self, row: Row) -> Scalar:
        return jnp.sum(self.filtered(row.x, seen_cells(row)).evidence)

    def filter(self, row: Row) -> tuple[Float[Array, "t k"], Float[Array, "t k k"]]:
        """Means and covariances of each state given the observed cells up to its own step."""
        found = self.filtered(row.x, seen_cells(row))
        return found.means, found.roots @ jnp.swapaxes(found.roots, 1, 2)

    def smooth(self, row: Row) -> tuple[Float[Array, "t k"], Float[Array, "t k k"], Float[Array, "pairs k k"]]:
        """Means and covariances of each state given all observed cells, and Cov(z_{t+1}, z_t)."""
        return self.path(row).moments()

    def forecast(self, row: Row, steps: int) -> tuple[Float[Array, "ahead d"], Float[Array, "ahead d d"]]:
        """Means and covariances of x at each of the ``steps`` steps that follow the row's last one."""
        found = self.filtered(row.x, seen_cells(row))
        ends = row.x.shape[0] if row.length is None else row.length
        noise = jnp.diag(self.noise_scale() ** 2)

        def ahead(law: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            mean, root = law
            shown = self.loading @ root
            return self.move(*law)[:2], (self.loading @ mean + self.bias, shown @ shown.T + noise)

        return jax.lax.scan(ahead, (found.predicted[ends], found.predicted_roots[ends]), None, steps)[1]

    def conditional(self, row: Row) -> Held:
        path, exists = self.path(row), existing(row)[:, None]
        seen = seen_cells(row.after(path.last.factor))
        x = jnp.where(seen, row.x, 0)
        return Held(Completed(self, path, x, seen), x, seen | ~jnp.broadcast_to(exists, seen.shape))

    def statistics(self, row: Row) -> tuple[Motion, Scalar]:
        seen = seen_cells(row)
        found = self.filtered(row.x, seen)
        means, covariances, crosses = found.path().moments()
        u = with_one(means)
        residual = jnp.where(seen, row.x - unfix(self.centre)[None], 0)
        outer = (u[:, :, None] * u[:, None, :]).at[:, :-1, :-1].add(covariances)
        cross = means[1:, :, None] * means[:-1, None, :] + crosses
        shown = jnp.einsum("td,tuv->duv", seen.astype(u.dtype), outer), residual.T @ u, jnp.sum(residual**2, axis=0)
        return Motion(*shown, *moves(outer, cross, alive(seen).astype(u.dtype))), jnp.sum(found.evidence)

    def expected(self, batch: Row) -> tuple[Motion, Scalar]:
        return _whole(self, batch) if batch.mask is None and batch.length is None else summed(self, batch)

    def maximise(self, statistics: Motion) -> Self:
        centre = unfix(self.centre)
        theta, squares = statistics.shown(jnp.column_stack([self.loading, self.bias - centre]))
        noise = self.noise.maximise(squares, statistics.outer[:, -1, -1])
        initial = statistics.initial(self.initial, self.floor)
        dynamics = statistics.dynamics(self.transition, self.process, self.floor)
        shown = theta[:, :-1], theta[:, -1] + centre, noise
        return type(self)(initial, *dynamics, *shown, self.steps, floor=self.floor, centre=self.centre)

    def log_penalty(self) -> Scalar:
        return jnp.zeros((), self.loading.dtype)

    def noise_scale(self) -> Float[Array, " d"]:
        """Standard deviation of the noise of each cell."""
        return self.noise.scale(self.bias.size)

    def filtered(self, x: Float[Array, "t d"], seen: Bool[Array, "t d"]) -> Filtered:
        """The pass forward over the cells in ``seen``.

        Under a `jax.vmap` over ``x`` alone, covariances do not depend on the row and are computed once.
        """

        def step(law: tuple[Array, Array], cells: tuple[Array, Array]) -> tuple[tuple[Array, Array], tuple]:
            mean, root, evidence = self.correct(*law, *cells)
            ahead, ahead_root, gain, shift, factor = self.move(mean, root)
            return (ahead, ahead_root), (*law, mean, root, evidence, gain, shift, factor)

        start = self.initial.location, self.initial.lower()
        (ahead, root), found = jax.lax.scan(step, start, (jnp.where(seen, x, 0), seen))
        predicted = jnp.concatenate([found[0], ahead[None]]), jnp.concatenate([found[1], root[None]])
        return Filtered(*predicted, *found[2:])

    def correct(
        self, mean: Float[Array, " k"], root: Float[Array, "k k"], x: Float[Array, " d"], seen: Bool[Array, " d"]
    ) -> tuple[Float[Array, " k"], Float[Array, "k k"], Scalar]:
        """The law of a state after its cells were seen, and their log density: sums of squares, which keep digits."""
        scale = self.noise_scale()
        spread = jnp.where(seen[:, None], (self.loading @ root) / scale[:, None], 0)
        residual = jnp.where(seen, (x - self.bias - self.loading @ mean) / scale, 0)
        eye = jnp.eye(mean.size, dtype=root.dtype)
        inner = jnp.linalg.cholesky(eye + spread.T @ spread)
        # solved once for both uses: two solutions for many rows at once may wait for one another, see `Row.after`
        inverse = solve_triangular(inner, eye, lower=True)
        push = inverse.T @ (inverse @ (spread.T @ residual))
        square = jnp.sum((residual - spread @ push) ** 2) + jnp.sum(push**2)
        log_det = jnp.sum(jnp.log(jnp.diagonal(inner))) + jnp.sum(jnp.where(seen, jnp.log(scale), 0))
        evidence = -0.5 * square - log_det - jnp.sum(seen) * HALF_LOG_2PI
        return mean + root @ push, root @ inverse.T, evidence

    def move(self, mean: Float[Array, " k"], root: Float[Array, "k k"]) -> tuple[Array, Array, Array, Array, Array]:
        """The next state's mean and factor; and how this state follows from it: gain, shift and factor."""
        k = mean.size
        both = jnp.block([[self.transition @ root, jnp.tril(self.process)], [root, jnp.zeros_like(root)]])
        lower = lower_root(both)
        gain = solve_triangular(lower[:k, :k], lower[k:, :k].T, lower=True, trans=1).T
        ahead = self.transition @ mean
        return ahead, lower[:k, :k], gain, mean - gain @ ahead, lower[k:, k:]


class Completed(AbstractDistribution):
    """p(x | observed cells) of a sequence under a `LinearDynamical`: its mean, draws, and the density of other cells.

    Examples
    --------
    >>> one, seen = jnp.ones((1, 1)), jnp.array([[True], [False]])
    >>> walk = LinearDynamical(FullGaussian(jnp.zeros(1), one), one, one, one, jnp.zeros(1), DiagonalNoise(jnp.ones(1)))
    >>> row = Row(jnp.array([[3.0], [0.0]]), seen)
    >>> law = Completed(walk, walk.path(row), row.x, seen)
    >>> round(float(law.log_prob(jnp.array([[0.0], [1.5]]), ~seen)), 4)  # N(1.5; 1.5, 2.5)
    -1.3771
    """

    model: LinearDynamical
    path: StatePath
    x: Float[Array, "t d"]
    seen: Bool[Array, "t d"]

    def sample(self, *, key: PRNGKeyArray) -> Float[Array, "t d"]:
        """A path of states, then cells with noise of their own."""
        move, show = jr.split(key)
        return self.model.likelihood(self.path.sample(key=move)).sample(key=show)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density in nats of the cells in ``mask`` that were not observed, given those that were."""
        more = ~self.seen if mask is None else mask & ~self.seen
        both = jnp.where(self.seen, self.x, jnp.where(more, value, 0))
        # one pass for both: factorisations of two passes at once may wait for one another
        each = jax.vmap(lambda seen: jnp.sum(self.model.filtered(both, seen).evidence))
        joint, observed = each(jnp.stack([self.seen | more, self.seen]))
        return joint - observed

    def mean(self) -> Float[Array, "t d"]:
        """The smoothed means, as cells."""
        return self.model.likelihood(self.path.mean()).mean()


def _whole(model: LinearDynamical, batch: Row) -> tuple[Motion, Scalar]:
    """Sums over complete sequences of one length: their covariances are the same, and computed once."""
    weight, seen = weights(batch), jnp.ones(batch.x.shape[1:], bool)

    def look(x: Float[Array, "t d"]) -> tuple[tuple[Array, Array, Array], Scalar]:
        found = model.filtered(x, seen)
        return found.path().moments(), jnp.sum(found.evidence)

    (means, covariances, crosses), evidence = jax.vmap(look, out_axes=((0, None, None), 0))(batch.x)
    u, residual, total = with_one(means), batch.x - unfix(model.centre)[None, None], jnp.sum(weight)
    outer = jnp.einsum("n,ntu,ntv->tuv", weight, u, u).at[:, :-1, :-1].add(total * covariances)
    cross = jnp.einsum("n,ntj,ntk->tjk", weight, means[:, 1:], means[:, :-1]) + total * crosses
    all_steps = jnp.sum(outer, axis=0)
    shown = (
        jnp.broadcast_to(all_steps, (model.bias.size, *all_steps.shape)),
        jnp.einsum("n,ntd,ntu->du", weight, residual, u),
        jnp.einsum("n,ntd->d", weight, residual**2),
    )
    first, before, after, crossed, pairs = moves(outer, cross, jnp.ones(seen.shape[0], outer.dtype))
    return Motion(*shown, first, before, after, crossed, pairs * total), weight @ evidence
