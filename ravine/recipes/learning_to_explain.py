"""Learning to explain: k features of each row that tell what a classifier says. Chen et al. 2018, arXiv:1802.07814.

Chen, Song, Wainwright & Jordan, "Learning to Explain: An Information-Theoretic Perspective on Model Interpretation",
section 3. How it does on their four synthetic sets, whose relevant features are known: `benchmarks/explain.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Fixed
from ravine.core import AbstractGradient, Objective
from ravine.data import Schema
from ravine.dist import Conditional, KHot
from ravine.explainer import Explainer
from ravine.gradients import RLOO
from ravine.models.selection import Selective, learning
from ravine.nets import MLP, relu
from ravine.objectives import InformationBound
from ravine.recognisers import Filled
from ravine.rules import Descend, Optimiser
from ravine.train import Stage


class LearningToExplain(Explainer):
    """L2X: a network for q(S | x) over subsets of k features, and one for q(y | x_S), trained on what they tell of y.

    Raises a lower bound on the mutual information of the selected features and the answers of a black box. ``score`` is
    accuracy against the black box; ``bound`` is in nats.

    Parameters
    ----------
    k : number of features that are selected in each row.
    hidden : widths of the hidden layers of the selector.
    predictor : widths of the hidden layers of the classifier.
    activation : nonlinearity between layers.
    gradient : of the expectation over subsets, such as ``RLOO(4)``, ``SIMPLE()``, ``AIMLE(rate=1e-3)``, or the paper's
        ``ConcreteSubset(0.1)``.
    rate : step size of Adam, a number or a schedule.
    batch_size, steps : rows per step, and the number of steps at most.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> model = LearningToExplain(k=1, hidden=(8,), predictor=(8,), steps=200, rate=1e-2, random_state=0)
    >>> model.fit(X, X[:, 1] > 0).explain(X[:2]).names.ravel().tolist()
    ['x1', 'x1']
    """

    k: int = 4
    hidden: tuple[int, ...] = (100, 100)
    predictor: tuple[int, ...] = (200, 200)
    activation: Callable = relu
    gradient: AbstractGradient = RLOO(4)
    rate: float | AbstractSchedule = 1e-3
    batch_size: int = 100
    steps: int = 10_000

    @property
    def objective(self) -> Objective:
        """The bound on the mutual information with the chosen estimator."""
        return InformationBound(self.gradient)

    def build(self, schema: Schema, classes: int = 2, *, key: PRNGKeyArray) -> Selective:
        """A selector and a classifier sized for the data, and what the estimator learns."""
        first, second, beside = jr.split(key, 3)
        n, read = schema.width, Filled(Fixed(jnp.zeros(schema.shape)), tells=schema.holes)
        q_net = MLP(read.inputs(), n, self.hidden, self.activation, key=first)
        p_net = MLP(read.inputs(), classes, self.predictor, self.activation, key=second)
        select = Conditional(q_net, KHot(self.k), (n,))
        return Selective(read, select, p_net, learning(self.gradient, n, n, key=beside))

    def stages(self, rows: int) -> list[Stage]:
        """One stage of minibatch descent."""
        return [Stage(Descend(self.objective, Optimiser(optax.adam, (self.rate,))), self.steps, self.batch_size)]
