"""All of it at once: what went wrong with a fit, words first."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from ravine._check import Complaint, require, whole
from ravine._jax import highest_matmul
from ravine._tree import all_finite
from ravine.core import (
    AbstractDirected,
    AbstractDraw,
    AbstractEnergy,
    AbstractEvidence,
    AbstractLatentModel,
    AbstractReparametrised,
    AbstractTractable,
    LogLikelihood,
    Objective,
    Row,
    rows_in,
)
from ravine.diagnose._rows import (
    cells_of,
    chosen,
    completions,
    exact_part,
    made_rows,
    mask_of,
    nodes_of,
    some,
    stream,
)
from ravine.diagnose.gaps import SEARCH, Search, inference_gaps, no_gaps
from ravine.diagnose.importance import importance_tail
from ravine.diagnose.imputation import imputation_calibration
from ravine.diagnose.latents import latent_use
from ravine.diagnose.likelihoods import generalisation, odd_rows
from ravine.diagnose.noise import gradient_noise
from ravine.diagnose.samples import LEAST, copies, two_sample
from ravine.diagnose.units import unit_use
from ravine.diagnose.words import Diagnosis, Finding
from ravine.evidence import Exact, ExactGenerator, ImportanceWeighted, Normalised
from ravine.gradients import Pathwise
from ravine.objectives import ELBO
from ravine.recognisers import Unlooked
from ravine.verbs import blockwise, drawn, log_likelihood

CELLS = 2**14  # that are enough to tell whether imputations are calibrated
BATCH = 100  # rows whose gradient is drawn again and again


class Effort(NamedTuple):
    """How much is looked at.

    Attributes
    ----------
    rows : training rows, held-out rows and samples at most.
    few : rows at most where each takes long: per-row search for q, importance weights, imputation by weighted draws.
    draws : importance samples behind log p(x) where it is not exact; the same for training and held-out rows.
    particles : draws behind an imputation that is not exact.
    search : the search for the best q of a row.
    """

    rows: int = 512
    few: int = 64
    draws: int = 128
    particles: int = 200
    search: Search = SEARCH


USUAL = Effort()


class Subject(NamedTuple):
    """What the checks look at: some training rows, some to judge by with their places and log p(x), and all rows."""

    model: PyTree
    train: Row
    fresh: Row
    places: np.ndarray
    held_out: bool
    whole: Row
    scores: LogLikelihood
    objective: Objective | None
    evidence: AbstractEvidence
    effort: Effort


Check = Callable[..., Finding | str]  # (subject, *, key): what was found, or why nothing could be


def diagnose(
    model: PyTree,
    train: Row,
    held_out: Row | None = None,
    *,
    key: PRNGKeyArray,
    objective: Objective | None = None,
    draw: AbstractDraw | None = None,
    evidence: AbstractEvidence | None = None,
    effort: Effort = USUAL,
) -> Diagnosis:
    """Everything that can be said about a fit: which latents are used, what q loses, overfitting, samples, imputations.

    What does not apply to the model or the rows is left out, with a sentence that says why. Held-out rows are judged
    where there are any, else training rows. Rows without an observed cell are ignored.

    Parameters
    ----------
    model : the fitted model.
    train : all rows it was trained on, as it sees them; samples are compared with every one of them.
    held_out : rows it has not seen.
    objective : what training lowered, for the noise of its gradient; the ELBO with pathwise gradients unless given.
    draw : the random part of reading a row; one draw of each row is looked at.
    evidence : how log p(x) is evaluated; exact where possible and importance-weighted elsewhere unless given.
    effort : how many rows and draws.

    Raises
    ------
    ValueError
        When there are fewer than two rows with an observed cell.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ravine.models.linear_gaussian import DiagonalNoise, LinearGaussian
    >>> model = LinearGaussian(jnp.full((3, 1), jnp.nan), jnp.zeros(3), DiagonalNoise(jnp.ones(3)))
    >>> print(diagnose(model, Row(jnp.ones((5, 3))), key=jr.key(0)))  # one that fits is shown in the guide
    [warning] parameters: The model holds NaN or infinite parameters: nothing else can be said. Fit again with a ...
    """
    if not bool(all_finite(model)):
        words = "The model holds NaN or infinite parameters: nothing else can be said. Fit again with a smaller rate."
        return Diagnosis((Finding("parameters", "warning", words, {}),))
    with highest_matmul():
        keys = iter(jr.split(key, 4 + len(CHECKS)))
        every = presented(train, draw, key=next(keys))
        judged = None if held_out is None else presented(held_out, draw, key=next(keys))
        subject = _subject(model, every, judged, (objective, evidence, effort), key=next(keys))
        found = {name: _result(check, subject, next(keys)) for name, check in CHECKS.items()}
    findings = tuple(result for result in found.values() if isinstance(result, Finding))
    return Diagnosis(findings, tuple((name, reason) for name, reason in found.items() if isinstance(reason, str)))


def presented(batch: Row, draw: AbstractDraw | None, *, key: PRNGKeyArray) -> Row:
    """The rows as one draw of the random part of their reading presents them."""
    return batch if draw is None else blockwise(drawn, batch, draw, key)


def _subject(model: PyTree, train: Row, held_out: Row | None, how: tuple, *, key: PRNGKeyArray) -> Subject:
    (objective, evidence, effort), (here, there, luck) = how, jr.split(key, 3)
    some_train, places = some(train, whole("rows", effort.rows, 2), key=here)
    fresh = some_train
    if held_out is not None:
        fresh, places = some(held_out, effort.rows, key=there)
    fewest = min(rows_in(some_train), rows_in(fresh))
    require(fewest > 1, "diagnose", "at least 2 rows with an observed cell", f"{fewest}", "give more rows")
    evidence = _evidence(model, effort.draws) if evidence is None else evidence
    scores = _scored(model, evidence, fresh, luck)
    return Subject(model, some_train, fresh, places, held_out is not None, train, scores, objective, evidence, effort)


def _evidence(model: PyTree, draws: int) -> AbstractEvidence:
    if isinstance(model, AbstractTractable):
        return Exact()
    if isinstance(model, AbstractEnergy):
        return Normalised()
    return ImportanceWeighted(draws) if exact_part(model) is None else ExactGenerator()


def _result(check: Check, subject: Subject, key: PRNGKeyArray) -> Finding | str:
    try:
        return check(subject, key=key)
    except Complaint as refused:  # one check that cannot be made must not cost the others
        return str(refused).rstrip(".")


def _few(subject: Subject, rows: int) -> Row:
    return chosen(subject.fresh, np.arange(min(rows, rows_in(subject.fresh))))


def _latents(subject: Subject, *, key: PRNGKeyArray) -> Finding | str:
    if not isinstance(subject.model, AbstractLatentModel):
        return "an energy has no prior of its hidden units"
    if isinstance(getattr(getattr(subject.model, "model", subject.model), "q", None), Unlooked):
        return "latents are proposed from what is given alone: nothing is inferred from the row"
    return latent_use(subject.model, subject.fresh, key=key).finding()


def _units(subject: Subject, *, key: PRNGKeyArray) -> Finding | str:
    if isinstance(subject.model, AbstractLatentModel) or not hasattr(subject.model, "posterior"):
        return "the model has no hidden units of an energy"
    return unit_use(subject.model, subject.fresh, key=key).finding()


def _recogniser(subject: Subject, *, key: PRNGKeyArray) -> Finding | str:
    if not isinstance(subject.model, AbstractLatentModel):
        return "the hidden units of an energy are inferred without a recogniser to be judged"
    reason = no_gaps(subject.model, subject.fresh)
    if reason is not None:
        return reason
    rows = _few(subject, subject.effort.few)
    return inference_gaps(subject.model, rows, key=key, search=subject.effort.search).finding()


def _importance(subject: Subject, *, key: PRNGKeyArray) -> Finding | str:
    if isinstance(subject.model, AbstractTractable):
        return "log p(x) and the posterior are exact, so nothing is weighted"
    if isinstance(subject.model, AbstractEnergy):
        return "log p(x) is of a free energy and log Z: no draws of latents are weighted"
    return importance_tail(subject.model, _few(subject, 2 * subject.effort.few), key=key).finding()


def _gradient(subject: Subject, *, key: PRNGKeyArray) -> Finding | str:
    objective, model = subject.objective, subject.model
    if objective is None and not isinstance(model, AbstractLatentModel):
        return "the gradient depends on chains, which training did not leave"
    if objective is None and isinstance(model, AbstractTractable):
        return "the model learns in closed form, without a gradient"
    if objective is None:
        if not all(isinstance(node, AbstractReparametrised) for node in nodes_of(model, subject.train)):
            return "the latents are discrete and no objective with its gradient estimator was given"
        objective = ELBO(Pathwise())
    batch = chosen(subject.train, np.arange(min(BATCH, rows_in(subject.train))))
    return gradient_noise(model, objective, batch, key=key).finding()


def _scored(model: PyTree, evidence: AbstractEvidence, rows: Row, key: PRNGKeyArray) -> LogLikelihood:
    got = log_likelihood(model, evidence, rows, None, key=key)
    return got._replace(value=np.asarray(got.value, np.float64))


def _generalisation(subject: Subject, *, key: PRNGKeyArray) -> Finding | str:
    if not subject.held_out:
        return "no held-out rows were given"
    return generalisation(_scored(subject.model, subject.evidence, subject.train, key), subject.scores).finding()


def _odd(subject: Subject, *, key: PRNGKeyArray) -> Finding:
    return odd_rows(np.asarray(subject.scores.value), subject.places).finding()


def _samples(subject: Subject, *, key: PRNGKeyArray) -> Finding | str:
    batch = max((subject.fresh, subject.train), key=lambda b: (min(rows_in(b), LEAST), b is subject.fresh))
    rows, (here, there, coin) = rows_in(batch), jr.split(key, 3)
    if rows < LEAST:
        return f"{rows} rows are too few to compare samples with"
    made = made_rows(subject.model, rows, batch.context, key=here)
    data = cells_of(_completed(subject, batch, there))
    return two_sample(data, cells_of(made), stream=stream(coin)).finding()


def _completed(subject: Subject, rows: Row, key: PRNGKeyArray) -> Array | np.ndarray:
    """Rows whose holes are drawn from the model: under the right one they have the law of its samples."""
    if rows.mask is None:
        return rows.x
    return np.asarray(completions(subject.model, rows, subject.effort.particles, 1, key=key))[:, 0]


def _copies(subject: Subject, *, key: PRNGKeyArray) -> Finding | str:
    rows = rows_in(subject.fresh)
    if not subject.held_out or rows < LEAST:
        return f"it takes {LEAST} held-out rows to know how often fresh rows resemble training rows"
    made = cells_of(made_rows(subject.model, subject.effort.rows, subject.fresh.context, key=key))
    train, fresh = ((cells_of(batch.x), mask_of(batch)) for batch in (subject.whole, subject.fresh))
    return copies(train, fresh, made).finding()


def _imputations(subject: Subject, *, key: PRNGKeyArray) -> Finding | str:
    model, rows, few, draws = subject.model, subject.fresh, subject.effort.few, 79
    if not isinstance(model, AbstractTractable):
        if not isinstance(model, (AbstractDirected, AbstractEnergy)):
            return "the model has no p(x | z) to draw cells from"
        width = mask_of(rows).shape[1]  # weighted draws take long, and wide rows have many cells each
        rows, draws = _few(subject, max(few // 2, min(4 * few, CELLS // width))), 39
    # all draws of a row are picked from the same weighted latents, of which there must be more than for a single one
    found = imputation_calibration(model, rows, key=key, draws=draws, particles=5 * subject.effort.particles)
    return found.finding()


CHECKS: dict[str, Check] = {
    "latents": _latents,
    "hidden units": _units,
    "recogniser": _recogniser,
    "importance weights": _importance,
    "gradient": _gradient,
    "generalisation": _generalisation,
    "odd rows": _odd,
    "samples": _samples,
    "copies": _copies,
    "imputations": _imputations,
}
