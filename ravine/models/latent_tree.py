r"""A sentence is read along a binary tree that is latent: merge two neighbours, and again, until one node is left.

Choi, Yoo & Lee 2018, "Learning to compose task-specific tree structures", arXiv:1707.02786. Every pair of neighbours is
composed, and the probability to merge pair i is :math:`\propto \exp s_i`, where a score s says what pairs go first.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ravine._check import require
from ravine.core import AbstractDistribution, AbstractGradient, AbstractPosterior, Cost, Draw, Row, Scalar
from ravine.dist import OneHot
from ravine.nets import MLP, relu
from ravine.posteriors import AbstractTrajectoryGradient, check

NEVER = -1e9  # the logit of a merge that cannot be
MOST = 2**12  # evaluations of the cost, where an estimator of one node is nested in that of the node before


class Nodes(eqx.Module):
    """Nodes of trees, in the order of the words below them: outputs h and memory cells c of an LSTM."""

    h: Float[Array, "*nodes width"]
    c: Float[Array, "*nodes width"]


class TreeLSTM(eqx.Module):
    r"""Two nodes to one. Tai, Socher & Manning 2015, arXiv:1503.00075, equations 9 to 14 with two children.

    .. math::
        c = \sigma(f_l) c_l + \sigma(f_r) c_r + \sigma(i) \tanh(u), \quad h = \sigma(o) \tanh(c)

    The gates :math:`i, f_l, f_r, o, u` are affine in :math:`(h_l, h_r)`; the biases of both f start at 1.

    Examples
    --------
    >>> one = Nodes(jnp.zeros(3), jnp.ones(3))
    >>> round(float(TreeLSTM(3, key=jr.key(0))(one, one).c[0]), 4)  # 2 / (1 + exp(-1))
    1.4621
    """

    gates: MLP

    def __init__(self, width: int, *, key: PRNGKeyArray) -> None:
        bias = jnp.repeat(jnp.array([0.0, 1.0, 1.0, 0.0, 0.0]), width)
        self.gates = MLP(2 * width, 5 * width, (), relu, key=key, bias=bias)

    def __call__(self, left: Nodes, right: Nodes) -> Nodes:
        """The parent of two nodes, each a vector h and a vector c."""
        i, of_left, of_right, o, u = jnp.split(self.gates(jnp.concatenate([left.h, right.h])), 5)
        s = jax.nn.sigmoid
        c = s(of_left) * left.c + s(of_right) * right.c + s(i) * jnp.tanh(u)
        return Nodes(s(o) * jnp.tanh(c), c)


class AbstractLeaf(eqx.Module):
    """How embedded words become the lowest nodes; says which net, of a size that the data decide."""

    @abc.abstractmethod
    def built(self, inputs: int, width: int, *, key: PRNGKeyArray) -> Callable[[Array], Nodes]:
        """A net from words of shape (length, inputs) to nodes of ``width`` numbers."""


class AffineLeaf(AbstractLeaf):
    """Each word by itself, (h, c) affine in its embedding. Choi et al. 2018, equation 9.

    Examples
    --------
    >>> AffineLeaf().built(4, 3, key=jr.key(0))(jnp.zeros((6, 4))).h.shape
    (6, 3)
    """

    def built(self, inputs: int, width: int, *, key: PRNGKeyArray) -> Callable[[Array], Nodes]:
        return EachWord(MLP(inputs, 2 * width, (), relu, key=key))


class RecurrentLeaf(AbstractLeaf):
    """The states of an LSTM that reads the sentence from the left, the leaf transformation of Choi et al. 2018.

    Examples
    --------
    >>> RecurrentLeaf().built(4, 3, key=jr.key(0))(jnp.zeros((6, 4))).h.shape
    (6, 3)
    """

    def built(self, inputs: int, width: int, *, key: PRNGKeyArray) -> Callable[[Array], Nodes]:
        return FromLeft(eqx.nn.LSTMCell(inputs, width, key=key))


class EachWord(eqx.Module):
    """A node of every word alone."""

    net: MLP

    def __call__(self, words: Float[Array, "length inputs"]) -> Nodes:
        """The nodes of the words."""
        return Nodes(*jnp.split(jax.vmap(self.net)(words), 2, axis=1))


class FromLeft(eqx.Module):
    """A node of every word and those before it."""

    cell: eqx.nn.LSTMCell

    def __call__(self, words: Float[Array, "length inputs"]) -> Nodes:
        """The nodes of the words."""
        start = jnp.zeros(self.cell.hidden_size, words.dtype)

        def step(state: tuple[Array, Array], word: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            h, c = self.cell(word, state)
            return (h, c), (h, c)

        return Nodes(*jax.lax.scan(step, (start, start), words)[1])


class AbstractOrder(eqx.Module):
    """Which pair of neighbours is merged first; says what scores them, of a size that the data decide."""

    @abc.abstractmethod
    def built(self, width: int, *, key: PRNGKeyArray) -> Callable[[Array], Array]:
        """A net from the outputs of composed pairs, shape (pairs, width), to their scores."""


class LearnedOrder(AbstractOrder):
    r"""Score :math:`q \cdot h_i / \sqrt d` with a vector q that is learned: the tree is latent. Choi et al. 2018.

    Examples
    --------
    >>> LearnedOrder().built(3, key=jr.key(0))(jnp.zeros((4, 3))).tolist()
    [0.0, 0.0, 0.0, 0.0]
    """

    def built(self, width: int, *, key: PRNGKeyArray) -> Callable[[Array], Array]:
        return Query(0.01 * jr.normal(key, (width,)))


class LeftFirst(AbstractOrder):
    """Always the first pair: the left-branching tree, which a latent one has to beat.

    Examples
    --------
    >>> jax.nn.softmax(LeftFirst().built(3, key=jr.key(0))(jnp.zeros((4, 3)))).tolist()
    [1.0, 0.0, 0.0, 0.0]
    """

    def built(self, width: int, *, key: PRNGKeyArray) -> Callable[[Array], Array]:
        return FirstPair()


class Query(eqx.Module):
    """Scores by a scaled inner product with a vector."""

    query: Float[Array, " width"]

    def __call__(self, pairs: Float[Array, "pairs width"]) -> Float[Array, " pairs"]:
        """The scores of the pairs."""
        return pairs @ self.query / jnp.sqrt(jnp.asarray(self.query.size, pairs.dtype))


class FirstPair(eqx.Module):
    """Scores that make the first pair certain."""

    def __call__(self, pairs: Float[Array, "pairs width"]) -> Float[Array, " pairs"]:
        """The scores of the pairs."""
        return jnp.full(len(pairs), NEVER, pairs.dtype).at[0].set(0)


class Tree(eqx.Module):
    """A tree as the merges that make it, one after the other, each a (soft) one-hot vector, and its root.

    Of a sentence that is shorter than the room for it the last merges are not made, and hold 1 at the first place.
    """

    merges: Float[Array, "merges places"]
    root: Float[Array, " width"]


class Trees(AbstractPosterior):
    """The law of the binary trees over a sentence: its latent is a `Tree`.

    An `AbstractTrajectoryGradient` draws whole trees, in one compiled loop. Any other estimator is nested, merge inside
    merge, which is exact for `Enumerate` and serves short sentences.

    Attributes
    ----------
    leaves : the words, followed by padding; room for at least 2.
    cell, order : compose two nodes, and score the results.
    length : how many words there are.
    """

    leaves: Nodes
    cell: TreeLSTM
    order: Callable[[Array], Array]
    length: Int[Array, ""]

    def law(self, nodes: Nodes, left: Int[Array, ""]) -> tuple[OneHot, Nodes]:
        """The law of the next merge when ``left`` nodes are left, and what every merge would give."""
        pairs = jax.vmap(self.cell)(Nodes(nodes.h[:-1], nodes.c[:-1]), Nodes(nodes.h[1:], nodes.c[1:]))
        place = jnp.arange(len(pairs.h))
        able = (place < left - 1) | ((place == 0) & (left < 2))  # a finished tree has one thing to do: nothing
        return OneHot(jnp.where(able, self.order(pairs.h), NEVER)), pairs

    def merged(self, nodes: Nodes, pairs: Nodes, merge: Float[Array, " places"], left: Int[Array, ""]) -> Nodes:
        """The nodes after a merge: those before it stay, those after it move up by one place."""
        after = jnp.cumsum(merge) - merge
        share = lambda s, x: s[:, None] * x  # noqa: E731

        def moved(old: Float[Array, "nodes width"], new: Float[Array, "places width"]) -> Float[Array, "nodes width"]:
            made = share(1 - after - merge, old[:-1]) + share(merge, new) + share(after, old[1:])
            return jnp.where(left > 1, jnp.concatenate([made, old[-1:]]), old)

        return jax.tree.map(moved, nodes, pairs)

    def drawn(self, draw: Draw, *, key: PRNGKeyArray) -> tuple[Tree, Scalar]:
        (merges, _), root, log_q = self._walk(lambda d, k: draw(d, key=k), jr.split(key, len(self.leaves.h) - 1))
        return Tree(merges, root), log_q

    def grown(self, merges: Float[Array, "merges places"]) -> Tree:
        """The tree of these merges, with its root composed along them."""
        return Tree(merges, self._walk(lambda d, merge: merge, merges)[1])

    def likeliest(self) -> Tree:
        """The tree of the merges that are the likeliest one by one: what Choi et al. 2018 predict from."""
        best = lambda d, key: jax.nn.one_hot(jnp.argmax(d.logits), d.logits.size, dtype=d.logits.dtype)  # noqa: E731
        return self.drawn(best, key=jr.key(0))[0]

    def log_prob(self, z: Tree) -> Scalar:
        return self._walk(lambda d, merge: merge, z.merges)[2]

    def mean(self) -> Tree:
        """The tree whose every merge is the mean of its law."""
        return self.drawn(lambda d, key: d.mean(), key=jr.key(0))[0]

    def nodes(self) -> tuple[AbstractDistribution, ...]:
        (_, logits), *_ = self._walk(lambda d, _: d.mean(), jnp.arange(len(self.leaves.h) - 1))
        return tuple(OneHot(one) for one in logits)

    def expect(self, cost: Cost, gradient: AbstractGradient, *, key: PRNGKeyArray) -> Scalar:
        check(gradient, self)
        if isinstance(gradient, AbstractTrajectoryGradient):
            # without a derivative in the draw a tree is a constant, and its root is to be composed again
            whole = (lambda tree: tree) if gradient.differentiates else (lambda tree: self.grown(tree.merges))
            return gradient.over(lambda tree, log_q: cost(whole(tree), log_q), self, key=key)
        calls = gradient.evaluations(self)
        do = "shorten the sentences, or choose one that draws whole trees, such as RLOO"
        require(calls <= MOST, f"{type(gradient).__name__}", f"at most {MOST} evaluations of the cost", f"{calls}", do)
        return self._nested(cost, gradient, (), (self.leaves, jnp.zeros(())), key)

    def _walk(self, choose: Callable[[OneHot, Any], Array], told: Any) -> tuple[tuple[Array, Array], Array, Scalar]:
        """Every merge chosen by ``choose(law, told[i])``: merges and logits, the root, and log q of the merges."""

        def step(state: tuple[Nodes, Array, Scalar], one: Any) -> tuple[Any, tuple[Array, Array]]:
            nodes, left, log_q = state
            d, pairs = self.law(nodes, left)
            merge = choose(d, one)
            return (self.merged(nodes, pairs, merge, left), left - 1, log_q + d.log_prob(merge)), (merge, d.logits)

        start = (self.leaves, self.length, jnp.zeros((), self.leaves.h.dtype))
        (nodes, _, log_q), steps = jax.lax.scan(step, start, told)
        return steps, nodes.h[0], log_q

    def _nested(
        self,
        cost: Cost,
        gradient: AbstractGradient,
        merges: tuple[Array, ...],
        state: tuple[Nodes, Scalar],
        key: PRNGKeyArray,
    ) -> Scalar:
        nodes, log_q = state
        if len(merges) == len(self.leaves.h) - 1:
            return cost(Tree(jnp.stack(merges), nodes.h[0]), log_q)
        (here, below), left = jr.split(key), self.length - len(merges)
        d, pairs = self.law(nodes, left)

        def inner(merge: Array) -> Scalar:
            after = self.merged(nodes, pairs, merge, left), log_q + d.log_prob(merge)
            return self._nested(cost, gradient, (*merges, merge), after, below)

        return gradient(inner, d, key=here)


class LatentTree(eqx.Module):
    r"""Label y of a sentence x by the root of a latent tree: :math:`p(y \mid x) = E_{q(t \mid x)}[p(y \mid t, x)]`.

    A row holds word numbers ``x`` of shape (room,), of which the first ``length`` count, and a class number ``y``.

    Parameters
    ----------
    words, classes : how many different ones there are.
    inputs, width : numbers of an embedding, and of h and of c of a node.
    hidden : widths of the hidden layers from the root to the classes.
    leaf, order : how embedded words become nodes, and which of these are merged first.

    Examples
    --------
    >>> model = LatentTree(5, 3, 4, 6, (8,), AffineLeaf(), LearnedOrder(), key=jr.key(0))
    >>> row = Row(jnp.array([0, 3, 1, 0]), length=jnp.array(3), y=jnp.array(2))
    >>> tree = model.posterior(row).likeliest()
    >>> tree.merges.shape, model.log_label(tree, row).shape
    ((3, 3), ())
    """

    embedding: Float[Array, "words inputs"]
    leaf: Callable[[Array], Nodes]
    cell: TreeLSTM
    order: Callable[[Array], Array]
    head: MLP

    def __init__(
        self,
        words: int,
        classes: int,
        inputs: int,
        width: int,
        hidden: tuple[int, ...],
        leaf: AbstractLeaf,
        order: AbstractOrder,
        *,
        key: PRNGKeyArray,
    ) -> None:
        embedded, leaves, pairs, scores, head = jr.split(key, 5)
        self.embedding = jr.normal(embedded, (words, inputs))
        self.leaf, self.cell = leaf.built(inputs, width, key=leaves), TreeLSTM(width, key=pairs)
        self.order = order.built(width, key=scores)
        self.head = MLP(width, classes, hidden, relu, key=head)

    def posterior(self, row: Row) -> Trees:
        """q(t | x)."""
        length = jnp.asarray(row.x.size if row.length is None else row.length)
        return Trees(self.leaf(self.embedding[row.x]), self.cell, self.order, length)

    def log_labels(self, tree: Tree) -> Float[Array, " classes"]:
        """log p(y | t, x) of every class, in nats."""
        return jax.nn.log_softmax(self.head(tree.root))

    def log_label(self, z: Tree, row: Row) -> Scalar:
        """log p(y | t, x) of the row's class, in nats."""
        return self.log_labels(z)[row.y]
