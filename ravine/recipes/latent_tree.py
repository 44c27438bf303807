"""Sentences read along latent trees. Choi, Yoo & Lee 2018, arXiv:1707.02786: the Gumbel Tree-LSTM.

On ListOps (Nangia & Bowman 2018, arXiv:1804.06028) the right tree is known, and the gradient estimator decides what is
found: Fan et al. 2022, arXiv:2206.07235, and Liu et al. 2023, arXiv:2304.08612, compare theirs there. Their runs (nodes
of 300 numbers, leaves of an LSTM, temperature 0.1, dropout, word vectors learned elsewhere) were not repeated here;
`python benchmarks/listops.py` compares estimators at a smaller size.
"""

from __future__ import annotations

import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule
from ravine.classifier import SentenceClassifier
from ravine.core import AbstractGradient, Objective
from ravine.data.sentences import Sentences
from ravine.gradients import StraightThroughGumbel
from ravine.models.latent_tree import AbstractLeaf, AbstractOrder, AffineLeaf, LatentTree, LearnedOrder
from ravine.objectives import CrossEntropy
from ravine.rules import Descend, Optimiser
from ravine.train import Stage


class LatentTreeClassifier(SentenceClassifier):
    """A binary tree-LSTM whose tree is drawn, merge by merge; it predicts along the likeliest merges.

    Parameters
    ----------
    inputs : numbers of the embedding of a word.
    width : numbers of the output and of the memory cell of a node.
    hidden : widths of the hidden layers between the root and the classes.
    leaf : how words become nodes: ``AffineLeaf()`` each by itself, ``RecurrentLeaf()`` from those before it too.
    order : which pair is merged first: ``LearnedOrder()``, or ``LeftFirst()`` for the left-branching tree.
    gradient : of the expectation over trees, such as ``GappedStraightThrough(0.1)``, ``ReinMax(1.1)`` or ``RLOO(4)``.
    rate : step size of Adam, a number or a schedule.
    clip : largest norm of a gradient.
    batch_size, steps : sentences per step, and the number of steps at most.

    Examples
    --------
    >>> from ravine.data import listops
    >>> X, y = listops.generate(60, longest=9)
    >>> model = LatentTreeClassifier(width=8, steps=3, random_state=0).fit(X, y)
    >>> model.predict_proba(X).shape, model.parse(["7"])
    ((60, 10), ['7'])
    """

    inputs: int = 32
    width: int = 64
    hidden: tuple[int, ...] = (64,)
    leaf: AbstractLeaf = AffineLeaf()
    order: AbstractOrder = LearnedOrder()
    gradient: AbstractGradient = StraightThroughGumbel(1.0)
    rate: float | AbstractSchedule = 1e-3
    clip: float = 5.0
    batch_size: int = 64
    steps: int = 20_000

    @property
    def objective(self) -> Objective:
        """The cross-entropy of the label, with the chosen estimator."""
        return CrossEntropy(self.gradient)

    def build(self, schema: Sentences, *, key: PRNGKeyArray) -> LatentTree:
        """Embedding, leaves, composition, order and classes, sized for the vocabulary."""
        words, classes = len(schema.words), len(schema.classes)
        sizes = words, classes, self.inputs, self.width, self.hidden
        return LatentTree(*sizes, self.leaf, self.order, key=key)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of minibatch descent."""
        adam = Optimiser(optax.adam, (self.rate,), self.clip)
        return [Stage(Descend(self.objective, adam), self.steps, self.batch_size)]
