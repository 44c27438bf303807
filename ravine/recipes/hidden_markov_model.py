"""Hidden Markov models by expectation-maximisation. Baum, Petrie, Soules & Weiss 1970; Rabiner 1989, Proc. IEEE 77.

The former: *A maximization technique occurring in the statistical analysis of probabilistic functions of Markov
chains*.
No number is reported to aim at: every number here is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ravine._check import whole
from ravine._jax import Precision
from ravine._tree import AbstractSchedule
from ravine.data import AnySchema
from ravine.information import Information
from ravine.models.families import AbstractFamily, Full
from ravine.models.first_models import HiddenStart, laws_of
from ravine.models.hidden_markov import HiddenMarkov
from ravine.rules import EM
from ravine.sequence_model import SequenceModel, States
from ravine.train import Stage
from ravine.trial import Trial


class HiddenMarkovModel(States, Information, SequenceModel):
    """A hidden state per step that depends on the one before, and a law of the step for each; every answer is exact.

    Real cells are Gaussian given the state, or mixtures of Gaussians; bits, codes and counts are independent given it,
    or mixtures of such. Missing cells and missing steps are summed out.

    Parameters
    ----------
    states : number of states.
    mixtures : number of parts that the law of a step is a mixture of, in each state.
    covariance : of real cells: `Full()`, `Tied()`, `Diagonal()` or `Spherical()`, each with its ``reg_covar``.
    smoothing : how often each value of a discrete cell is counted in each state besides what was seen.
    n_init : how many starts are learned from, on 10,000 sequences at most; learning goes on from the best of their
        ends.
    tol : learning stops when the mean log-likelihood of a sequence rises by less than this many nats.
    iterations : passes over the data at most.
    batch_size : sequences at a time; None takes all. Passes in batches give the same result.
    rate : step size of online EM (a schedule such as ``Power(-0.6)``); None is ordinary EM.

    Examples
    --------
    >>> import numpy as np
    >>> steps = np.random.default_rng(0).normal(size=(60, 1)) + 6 * (np.arange(60)[:, None] // 10 % 2)
    >>> model = HiddenMarkovModel(states=2, random_state=0).fit([steps[:40], steps[40:]])
    >>> path = model.predict(steps)
    >>> bool((path[:10] == path[0]).all() and path[10] != path[0]), model.forecast(steps, 3).shape
    (True, (1, 3, 1))
    """

    states: int = 2
    mixtures: int = 1
    covariance: AbstractFamily = Full()
    smoothing: float = 0.1
    n_init: int = 1
    tol: float = 1e-3
    iterations: int = 200
    batch_size: int | None = None
    rate: float | AbstractSchedule | None = None
    validation: float = 0.0
    precision: Precision = "float64"

    trials: ClassVar[Mapping[str, Trial]] = {
        "small": Trial("jsb-chorales", {"states": 64, "tol": 1e-2}, None, "no paper reports this model on the chorales")
    }

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> HiddenMarkov:
        """A model of the right shape; `stages` puts it where learning starts."""
        k, parts = whole("states", self.states), whole("mixtures", self.mixtures)
        laws = laws_of(schema, self.covariance, self.smoothing, k, parts)
        return HiddenMarkov(jnp.zeros(k), jnp.zeros((k, k)), laws)

    def stages(self, rows: int) -> list[Stage]:
        """Passes over the sequences."""
        batches = -(-rows // (self.batch_size or rows))
        start = HiddenStart(self.covariance, whole("n_init", self.n_init), float(self.tol), self.iterations)
        rule = EM(self.tol, self.rate, jnp.asarray(batches))
        return [Stage(rule, self.iterations * batches, self.batch_size, ordered=True, prepare=start)]
