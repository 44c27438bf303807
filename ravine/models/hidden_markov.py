"""Hidden Markov models: a Markov chain of hidden states, and one law of a step for each; every number is exact."""

from __future__ import annotations

from typing import NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ravine._tree import Fixed, unfix
from ravine.core import AbstractConjugate, AbstractDirected, Row, Scalar, weights
from ravine.dist import MarkovPath
from ravine.dist.markov import filtered, safe_log
from ravine.models.components import AbstractComponents, Collect
from ravine.models.laws import Held, Stepwise, SwitchedLaw
from ravine.posteriors import OneNode


class PathCounts(NamedTuple):
    """Expected counts over sequences: of first states, of moves, of steps in each state; and the laws' own sums."""

    first: Float[Array, " k"]
    moves: Float[Array, "k k"]
    steps: Float[Array, " k"]
    sums: PyTree[Array]


class Smoothed(NamedTuple):
    """What a pass forth and back finds, steps first.

    ``states`` are p(state | whole sequence) and ``alone`` p(state | steps so far); ``ratios`` are what the later steps
    say of the state at each step but the first: its probability given all, over that given the earlier ones.
    """

    states: Float[Array, "t n k"]
    alone: Float[Array, "t n k"]
    ratios: Float[Array, "s n k"]
    norms: Float[Array, "t n"]


class HiddenMarkov(AbstractDirected, AbstractConjugate):
    r"""A hidden state per step, one of k, that depends on the one before; every step is drawn from its state's law.

    .. math:: p(x) = \sum_{z} \pi_{z_1} p_{z_1}(x_1) \prod_{t=2}^{T} A_{z_{t-1} z_t}\, p_{z_t}(x_t)

    Baum, Petrie, Soules & Weiss 1970, Ann. Math. Statist. 41, 164-171; Rabiner 1989, Proc. IEEE 77, 257-286. A row is
    one sequence: ``x`` and ``mask`` of shape (steps, d), of which ``length`` steps exist. Missing cells and steps are
    summed out; a step beyond the length adds nothing. The latent is the path, one-hot, of shape (steps, k).

    Parameters
    ----------
    start : unnormalised log probabilities of the first state, shape (k,).
    moves : those of the next state, a row for each present one, shape (k, k).
    components : the k laws of one step, such as `FullCovariance` or `BitComponents`.
    steps : how many steps are drawn.
    allowed : first states and moves that are possible, shape (k + 1, k), those of the start first; unless given, what
        is not minus infinity in ``start`` and ``moves``. Learning allows nothing else.

    Raises
    ------
    ValueError
        When there are not as many states everywhere.

    Examples
    --------
    >>> from ravine.models.diagonal_components import DiagonalCovariance
    >>> laws = DiagonalCovariance(jnp.array([[-2.0], [2.0]]), jnp.ones((2, 1)))
    >>> model = HiddenMarkov(jnp.zeros(2), jnp.log(jnp.array([[0.9, 0.1], [0.1, 0.9]])), laws, steps=3)
    >>> row = Row(jnp.array([[2.0], [0.0], [2.0]]), jnp.array([[True], [False], [True]]))
    >>> model.decode(row)[0].tolist(), round(float(model.conditional(row).mean()[1, 0]), 2)
    ([1, 1, 1], 1.95)
    """

    start: Float[Array, " k"]
    moves: Float[Array, "k k"]
    components: AbstractComponents
    steps: int = eqx.field(static=True)
    allowed: Fixed

    def __init__(
        self,
        start: Array,
        moves: Array,
        components: AbstractComponents,
        steps: int = 1,
        allowed: Fixed | None = None,
    ):
        k, shapes = components.size(), (jnp.shape(start), jnp.shape(moves))
        if shapes != ((k,), (k, k)):
            came = " and ".join(map(str, shapes))
            raise ValueError(f"HiddenMarkov of {k} laws needs a start ({k},) and moves ({k}, {k}), got {came}.")
        possible = jnp.isfinite(jnp.concatenate([start[None], moves]))
        self.start, self.moves = jnp.where(possible[0], start, 0), jnp.where(possible[1:], moves, 0)
        self.components, self.steps = components, steps
        self.allowed = Fixed(possible) if allowed is None else allowed

    @classmethod
    def from_responsibilities(cls, batch: Row, shares: Float[Array, "n t k"], components: AbstractComponents) -> Self:
        """The model that fits sequences whose states are given: one maximisation step.

        Every move is counted once more than it happened, so that none is forbidden by chance.
        """
        n, t, k = shares.shape
        alive = _alive(batch) & (weights(batch) > 0)[:, None]
        shares = jnp.where(alive, weights(batch)[:, None], 0)[..., None] * shares
        whole = jnp.sum(shares, axis=2, keepdims=True)
        sure = shares[:, 1:] / jnp.where(whole > 0, whole, 1)[:, 1:]
        moves = 1 + jnp.einsum("nti,ntj->ij", shares[:, :-1], sure)
        _, collect = components.evaluate(_steps(batch))
        before = cls(jnp.zeros(k, shares.dtype), jnp.zeros((k, k), shares.dtype), components, t)
        counts = jnp.sum(shares, axis=(0, 1))
        sums = collect(shares.reshape(-1, k))
        return before.maximise(PathCounts(1 + jnp.sum(shares[:, 0], axis=0), moves, counts, sums))

    def of_length(self, steps: int) -> Self:
        """The same model, which draws so many steps."""
        return type(self)(self.start, self.moves, self.components, steps, self.allowed)

    def prior(self, context: PyTree = None) -> MarkovPath:
        return self._chain(self.steps)

    def likelihood(self, z: Float[Array, "t k"], context: PyTree = None) -> Stepwise:
        return Stepwise(jax.vmap(self.components.law)(z))

    def log_prior(self, z: Float[Array, "t k"], row: Row) -> Scalar:
        return self._chain(z.shape[0]).log_prob(z)

    def log_likelihood(self, z: Float[Array, "t k"], row: Row) -> Scalar:
        there = _alive(_one(row))[0]
        mask = jnp.ones(row.x.shape, bool) if row.mask is None else row.mask
        return self.likelihood(z).log_prob(jnp.where(there[:, None], row.x, 0), mask & there[:, None])

    def posterior(self, row: Row) -> OneNode:
        return OneNode(self.path(row))

    def path(self, row: Row) -> MarkovPath:
        """p(path | observed cells), itself a Markov chain, whose moves differ from step to step."""
        smoothed = self._smoothed(self._evaluate(_one(row))[0])
        after = self._log_moves()[None] + safe_log(smoothed.ratios[:, 0])[:, None, :]
        possible = jnp.any(jnp.isfinite(after), axis=-1, keepdims=True)
        return MarkovPath(safe_log(smoothed.states[0, 0]), jnp.where(possible, after, self._log_moves()[None]))

    def log_evidence(self, row: Row) -> Scalar:
        return _evidence(_one(row), self._filtered(self._evaluate(_one(row))[0])[1])[0]

    def conditional(self, row: Row) -> Held:
        path = self.path(row)
        known = eqx.tree_at(lambda r: r.length, row.after(path.start), None, is_leaf=lambda node: node is None)
        laws = jax.vmap(lambda x, mask: self.components.given(Row(x, mask)))(known.x, known.mask)
        return Held.observed(SwitchedLaw(path, laws), row)

    def decode(self, row: Row) -> tuple[Int[Array, " t"], Scalar]:
        """The path of highest probability given the row, and its log joint probability with the row, in nats.

        Viterbi 1967, IEEE Trans. Inf. Theory 13, 260-269. Steps that do not exist repeat the last state.
        """
        log_prob, there = self._evaluate(_one(row))[0][:, 0], _alive(_one(row))[0]
        moves, stay = self._log_moves(), jnp.where(jnp.eye(self.start.size, dtype=bool), 0, -jnp.inf)

        def step(best: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
            density, exists = at
            joint = best[:, None] + jnp.where(exists, moves, stay.astype(moves.dtype))
            return jnp.max(joint, axis=0) + density, jnp.argmax(joint, axis=0)

        first = self._log_start() + log_prob[0]
        last, pointers = jax.lax.scan(step, first, (log_prob[1:], there[1:]))
        back = lambda state, pointer: (pointer[state], state)  # noqa: E731
        origin, path = jax.lax.scan(back, jnp.argmax(last), pointers, reverse=True)
        return jnp.append(origin, path), jnp.max(last)

    def statistics(self, row: Row) -> tuple[PathCounts, Scalar]:
        return self.expected(eqx.tree_at(lambda r: r.weight, _one(row), None, is_leaf=lambda node: node is None))

    def expected(self, batch: Row) -> tuple[PathCounts, Scalar]:
        log_prob, collect = self._evaluate(batch)
        smoothed = self._smoothed(log_prob)
        share = jnp.where(_alive(batch), weights(batch)[:, None], 0).T[..., None]
        heavy = share * smoothed.states
        moves = jnp.einsum("tni,tnj->ij", share[1:] * smoothed.alone[:-1], smoothed.ratios)
        sums = collect(jnp.swapaxes(heavy, 0, 1).reshape(-1, heavy.shape[-1]))
        moves = jnp.exp(self._log_moves()) * moves
        counts = PathCounts(jnp.sum(heavy[0], axis=0), moves, jnp.sum(heavy, axis=(0, 1)), sums)
        return counts, weights(batch) @ _evidence(batch, smoothed.norms)

    def maximise(self, statistics: PathCounts) -> Self:
        start = _normalised(statistics.first, self.start)
        moves = jax.vmap(_normalised)(statistics.moves, self.moves)
        components = self.components.maximise(statistics.sums, statistics.steps)
        return type(self)(start, moves, components, self.steps, self.allowed)

    def log_penalty(self) -> Scalar:
        return self.components.log_penalty()

    def _log_start(self) -> Float[Array, " k"]:
        return jax.nn.log_softmax(jnp.where(unfix(self.allowed)[0], self.start, -jnp.inf))

    def _log_moves(self) -> Float[Array, "k k"]:
        return jax.nn.log_softmax(jnp.where(unfix(self.allowed)[1:], self.moves, -jnp.inf))

    def _chain(self, steps: int) -> MarkovPath:
        moves = self._log_moves()
        return MarkovPath(self._log_start(), jnp.broadcast_to(moves, (steps - 1, *moves.shape)))

    def _evaluate(self, batch: Row) -> tuple[Float[Array, "t n k"], Collect]:
        """log p(step | state) of steps that exist, 0 for the others; and how shares of steps become the laws' sums."""
        n, t = batch.x.shape[:2]
        log_prob, collect = self.components.evaluate(_steps(batch))
        by_step = jnp.swapaxes(log_prob.reshape(n, t, -1), 0, 1)
        return jnp.where(_alive(batch).T[..., None], by_step, 0), collect

    def _filtered(self, log_prob: Float[Array, "t n k"]) -> tuple[Float[Array, "t n k"], Float[Array, "t n"]]:
        return filtered(self._log_start(), jnp.exp(self._log_moves()), log_prob)

    def _smoothed(self, log_prob: Float[Array, "t n k"]) -> Smoothed:
        """Forth, then back from the last step: the passes of Rauch, Tung & Striebel, for states that can be counted."""
        alone, norms = self._filtered(log_prob)
        moves = jnp.exp(self._log_moves())

        def step(later: Array, before: Array) -> tuple[Array, tuple[Array, Array]]:
            predicted = before @ moves
            ratio = jnp.where(predicted > 0, later / jnp.where(predicted > 0, predicted, 1), 0)
            now = before * (ratio @ moves.T)
            return now, (now, ratio)

        _, (states, ratios) = jax.lax.scan(step, alone[-1], alone[:-1], reverse=True)
        return Smoothed(jnp.concatenate([states, alone[-1:]]), alone, ratios, norms)


def _one(row: Row) -> Row:
    """A batch of this sequence."""
    return jax.tree.map(lambda leaf: leaf[None], row)


def _alive(batch: Row) -> Bool[Array, "n t"]:
    """Which steps exist."""
    n, t = batch.x.shape[:2]
    return jnp.ones((n, t), bool) if batch.length is None else jnp.arange(t)[None] < batch.length[:, None]


def _steps(batch: Row) -> Row:
    """Every step as a row of its own; what lies beyond the end of a sequence is 0."""
    n, t, d = batch.x.shape
    x = jnp.where(_alive(batch)[..., None], batch.x, 0).reshape(n * t, d)
    return Row(x, None if batch.mask is None else batch.mask.reshape(n * t, d))


def _evidence(batch: Row, norms: Float[Array, "t n"]) -> Float[Array, " n"]:
    """The sums over steps that exist and hold anything; exactly 0 where there are none."""
    told = _alive(batch) if batch.mask is None else _alive(batch) & jnp.any(batch.mask, axis=-1)
    return jnp.sum(jnp.where(told.T, norms, 0), axis=0)


def _normalised(counts: Float[Array, " k"], before: Float[Array, " k"]) -> Float[Array, " k"]:
    """Log shares of the counts; as before where nothing was counted."""
    total = jnp.sum(counts)
    floor = jnp.finfo(counts.dtype).eps * total
    return jnp.where(total > 0, jnp.log((counts + floor) / jnp.where(total > 0, total, 1)), before)
