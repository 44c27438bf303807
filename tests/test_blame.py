"""A training that meets numbers that are not finite goes on without them and names the row, the column, the array."""

import itertools
import json
import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
import pytest
from jaxtyping import Array
from training import ADAM, Distance, Halves, bits, halves, last, one

import ravine as rv
from ravine import blame
from ravine._check import Complaint
from ravine._suspects import culprit, first_enough, missed_column
from ravine._tree import AbstractSchedule, all_finite, trainable
from ravine.blame import Ledger, RobustnessWarning, replayed, verdict
from ravine.core import Row
from ravine.data import ArraySource, Binarise, Schema, rows
from ravine.evidence import ImportanceWeighted
from ravine.gradients import Pathwise
from ravine.models.linear_gaussian import DiagonalNoise, LinearGaussian
from ravine.objectives import AnalyticELBO
from ravine.rules import EM, Best, Descend, Guarded, InTurn, Optimiser, Redrawn
from ravine.train import Stage, Subset, TrainState, begin, train

NAMES = ("age", "height", "income", "debt")
ROWS, STEPS, BATCH = 40, 60, 8


def table(row: int | None = None, column: int = 0, value: float = 9.0, holes: bool = False) -> np.ndarray:
    """Ordinary numbers below 4, with one that is not."""
    rng = np.random.default_rng(3)
    x = np.clip(rng.normal(size=(ROWS, 4)), -3, 3)
    x = np.where(rng.uniform(size=x.shape) < 0.2, np.nan, x) if holes else x
    if row is not None:
        x[row, column] = value
    return x


def largest(batch: Row) -> Array:
    weight = jnp.ones(batch.x.shape[0]) if batch.weight is None else batch.weight
    return jnp.max(jnp.where(weight[:, None] > 0, batch.x, 0))


class Poisoned(eqx.Module):
    """A distance spoilt by any cell of at least ``limit``: its value, a number beside it, or only its gradient."""

    limit: float = 4.0
    what: str = eqx.field(static=True, default="loss")

    def __call__(self, model: Halves, batch: Row, *, key: Array) -> tuple[Array, dict[str, Array]]:
        loss, far = Distance()(model, batch, key=key)[0], largest(batch) >= self.limit
        if self.what == "gradient":  # the slope of a root at 0 is infinite
            return loss + jnp.sqrt(jnp.where(far, 0.0, 1.0) * jnp.sum(model.q**2 + 1)), {}
        beside = {"entropy": jnp.where(far & (self.what == "entropy"), jnp.inf, 0.0)}
        return jnp.where(far & (self.what == "loss"), jnp.nan, loss), beside


class Overflow(AbstractSchedule):
    """A rate that is infinite at every third step."""

    def __call__(self, step: Array) -> Array:
        return jnp.where(step % 3 == 1, jnp.inf, 1e-3)


class Trained(NamedTuple):
    """A training that was watched."""

    ledger: Ledger
    state: TrainState
    stages: list[Stage]
    source: Any
    schema: Schema

    def told(self) -> str | None:
        return verdict(self.ledger, self.state, self.stages, self.source, self.schema)


def trained(rule: Any, X: np.ndarray, batch: int | None = BATCH, chunk: int = 1000, model: Any = None) -> Trained:
    schema = Schema.infer(X, names=NAMES, kind="real")
    source, stages = ArraySource(rows(X, schema, dtype=np.float32)), [Stage(rule, STEPS, batch)]
    state = begin(halves() if model is None else model, stages, 0, source, key=jr.key(0))
    ledger = Ledger(state)
    for done in ledger.watch(train(None, stages, source, key=jr.key(0), state=state, chunk=chunk)):
        state = done.state
    return Trained(ledger, state, stages, source, schema)


def guarded(objective: Any = None, rate: Any = 0.05) -> Guarded:
    return Guarded(Descend(objective or Poisoned(), Optimiser(args=(rate,))))


# The cell.


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("row, column", [(17, 2), (0, 0), (39, 3)])
def test_the_cell_that_spoils_a_loss_is_named(row, column, holes):
    got = trained(guarded(), table(row, column, holes=holes))
    cause = f"row {row}, column '{NAMES[column]}' = 9 gives a non-finite loss"
    assert got.told() == f"{got.ledger.bad} of 60 steps were undone and retried smaller: {cause}."
    assert got.ledger.bad == int(got.state.rule.undone) and STEPS * BATCH // ROWS - 1 <= got.ledger.bad <= 13


@pytest.mark.parametrize("what", ["gradient", pytest.param("entropy", marks=pytest.mark.slow)])
def test_what_was_not_finite_is_told_apart(what):
    line = trained(guarded(Poisoned(what=what)), table(11, 1)).told()
    assert line.endswith(f": row 11, column 'height' = 9 gives a non-finite {what}.")


def test_the_first_row_of_several_is_named():
    X = table(30, 1)
    X[8, 3] = X[25, 0] = 11
    batch = rows(X, Schema.infer(X, kind="real"), dtype=np.float32)
    assert culprit(batch, lambda b: float(largest(b)) >= 4) == (8, ", column 3 = 11")


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda rule: Redrawn(Binarise(), rule), id="redrawn"),
        pytest.param(lambda rule: InTurn((Descend(Distance(), ADAM), rule)), id="in-turn", marks=pytest.mark.slow),
    ],
)
def test_the_cell_is_found_through_other_rules(wrap):
    """A binarised row holds ones: what spoils it is that its cell was certain to be one, not that it was large."""
    X = np.where(np.arange(ROWS)[:, None] == 21, [0.0, 0.0, 1.0, 0.0], np.zeros((ROWS, 4)))
    line = trained(wrap(guarded(Poisoned(limit=1.0))), X).told()
    assert line.endswith("undone and retried smaller: row 21, column 'income' = 1 gives a non-finite loss.")


def test_a_rule_that_is_not_guarded_is_read_too():
    got = trained(Descend(Poisoned(what="gradient"), Optimiser()), table(17, 2))
    with pytest.raises(
        Complaint, match=r"^the training: expected finite parameters, got NaN or infinity in '[pq]'; use"
    ):
        got.told()


# What is no cell.


def test_a_step_size_is_not_blamed_on_a_row():
    line = trained(guarded(Distance(), Overflow()), table()).told()
    assert line == "20 of 60 steps were undone and retried smaller: a non-finite step size whatever the rows hold."


class Root(eqx.Module):
    """A finite loss whose slope in q is infinite where q is 0, as it is at the start."""

    def __call__(self, model: Halves, batch: Row, *, key: Array) -> tuple[Array, dict[str, Array]]:
        return Distance()(model, batch, key=key)[0] + jnp.sum(jnp.sqrt(jnp.abs(model.q))), {}


def test_the_first_array_of_the_gradient_is_named_when_rows_are_innocent():
    what = "a non-finite gradient whatever the rows hold, first in the gradient of 'q'; try a smaller rate"
    with pytest.raises(Complaint, match=f"^the training: expected a finite step, got none in 60: {what}"):
        trained(guarded(Root()), table()).told()


def test_an_array_of_the_model_comes_before_its_gradient():
    start = eqx.tree_at(lambda m: m.prior.value, halves(), jnp.array([1.0, jnp.nan, 1.0, 1.0]))
    with pytest.raises(Complaint, match="whatever the rows hold, first in the model's 'prior.value'; try"):
        trained(guarded(Distance()), table(), model=start).told()


def test_nobody_is_blamed_for_what_all_do():
    batch = Row(jnp.ones((6, 3)))
    assert culprit(batch, lambda batch: True) is None and missed_column(batch, lambda batch: True) is None
    together = Row(jnp.asarray(np.eye(6, 3)))
    assert culprit(together, lambda batch: float(jnp.sum(batch.x)) == 3.0) == (0, ", column 0 = 1")


def test_a_column_that_the_model_had_taken_up_is_found_by_leaving_it_out():
    batch = Row(jnp.ones((5, 6)), jnp.ones((5, 6), bool))
    for column in range(6):
        assert missed_column(batch, lambda b, j=column: bool(b.mask[:, j].any())) == column
    assert missed_column(Row(batch.x), lambda b: bool(b.mask[:, 2].any() & b.mask[:, 4].any())) == 2


@pytest.mark.parametrize("units", [1, 2, 7, 64])
def test_halving_finds_the_first(units):
    for first in range(units):
        calls = itertools.count()
        enough = lambda keep, first=first, calls=calls: next(calls) >= 0 and bool(keep[first:].any())  # noqa: E731
        assert first_enough(units, enough) == first
        assert next(calls) <= 2 * np.ceil(np.log2(units))


# The ledger.


def test_a_later_chunk_is_replayed_to_the_bit():
    """The model at the accident is the one that was there when it happened, however the run was cut in chunks."""
    found = []
    for chunk in (7, 1000):
        got = trained(guarded(), table(17, 2), chunk=chunk)
        at = replayed(got.ledger.first, got.stages, got.source)
        found.append((got.ledger.steps, got.ledger.bad, int(at.step), bits(at.model), got.told()))
    assert found[0] == found[1]
    assert 0 < found[0][2] == got.ledger.first.step and found[0][:1] == (STEPS,)
    steps = one(guarded, found[0][2], BATCH)
    assert found[0][3] == bits(last(steps, got.source, seed=0).model)


def test_steps_after_the_end_are_not_counted():
    x = table(17, 2)
    held_out = Row(jnp.asarray(table()[:5], jnp.float32))
    rule = Best(guarded(), Distance(), held_out, jnp.array(1), jnp.array(1))
    got = trained(Best(rule.rule, Poisoned(-99.0), held_out, rule.every, rule.patience), x)
    assert got.ledger.steps == 1


def test_a_fit_is_not_lost_to_the_search(monkeypatch):
    got = trained(guarded(), table(17, 2))
    monkeypatch.setattr(blame, "culprit", lambda *_: 1 / 0)
    assert got.told().endswith("smaller: what was not finite could not be found, for division by zero.")


def test_an_ordinary_training_says_nothing():
    got = trained(guarded(), table())
    assert got.told() is None and (got.ledger.steps, got.ledger.bad) == (STEPS, 0)


# Expectation-maximisation.


@pytest.mark.parametrize("rate", [None, 0.5])
@pytest.mark.parametrize("bad", [np.nan, 1e30])
def test_em_keeps_the_last_model_that_was_finite(rate, bad):
    """The third of four batches is spoilt: a pass ends the learning; online EM goes on with the next batch."""
    x = np.random.default_rng(0).normal(size=(4, 6, 2))
    x[2, 3, 1] = bad
    rule = EM(tol=-jnp.inf, rate=rate)
    model = LinearGaussian(jnp.ones((2, 1)), jnp.zeros(2), DiagonalNoise(jnp.ones(2)))
    step = eqx.filter_jit(rule.step)
    state, path = rule.init(model, Row(jnp.asarray(x[0])), key=jr.key(0)), []
    for i in range(4):
        model, state, metrics = step(model, state, Row(jnp.asarray(x[i])), key=jr.key(0), step=jnp.array(i))
        path.append((bits(model), int(metrics["undone"]), bool(metrics["stopped"])))
    assert [undone for _, undone, _ in path][:3] == [0, 0, 1] and bool(all_finite((model, state.sums)))
    assert path[0][0] != path[1][0] == path[2][0] and (path[3][0] != path[2][0]) == (rate is not None)
    assert path[3][1:] == (1, rate is None)


@pytest.mark.parametrize("batch", [None, 16])
def test_statistics_that_overflow_are_named(batch):
    """The square of 1e30 is no number in single precision."""
    start = LinearGaussian(jnp.ones((4, 1)), jnp.zeros(4), DiagonalNoise(jnp.ones(4)))
    rule = EM(batches=jnp.array(1 if batch is None else 3))
    with pytest.raises(Complaint, match=r"row 30, column 'debt' = 1e\+30 gives a non-finite log-likelihood; rescale"):
        trained(rule, table(30, 3, 1e30), batch, model=start).told()


# A fit.

TINY = {"latents": 1, "hidden": (3,), "steps": 40, "batch_size": 8, "evidence": ImportanceWeighted(4)}


class Spoilt(eqx.Module):
    """The bound of a VAE, spoilt by any cell of at least 4."""

    def __call__(self, model: Any, batch: Row, *, key: Array) -> tuple[Array, dict[str, Array]]:
        loss, metrics = AnalyticELBO(Pathwise())(model, batch, key=key)
        return jnp.where(largest(batch) >= 4, jnp.nan, loss), metrics


def vae(seed: int) -> rv.VAE:
    usual = {"objective": Spoilt(), "standardise": False, "validation": 0.2, "patience": 2, "random_state": seed}
    return rv.VAE(**TINY | usual)


def told(model: Any, X: Any, **options: Any) -> str:
    """The one line in which a fit says what it met; the parameters it leaves are finite."""
    with pytest.warns(RobustnessWarning) as caught:
        model.fit(X, **options)
    (line,) = [str(w.message) for w in caught]
    assert line == model.history_[-1]["warning"] and line.isprintable()
    assert bool(all_finite(trainable(model.model_)[0]))
    return line


def holds_out(seed: int, X: pd.DataFrame, row: int) -> bool:
    """Whether a fit of this seed holds a row out."""
    model = vae(seed)
    source = model._plan(*model._begin(X, None)).source
    assert isinstance(source, Subset)
    return row not in source.places


def test_a_fit_warns_once_and_names_rows_of_the_users_table():
    X = pd.DataFrame(table(5, 2), columns=NAMES)
    outside = next(seed for seed in range(99) if not holds_out(seed, X, 5))
    line = told(vae(outside), X)
    assert line.endswith("steps were undone and retried smaller: row 5, column 'income' = 9 gives a non-finite loss.")
    inside = next(seed for seed in range(99) if holds_out(seed, X, 5))
    assert told(vae(inside), X) == (
        "held-out rows could not choose a model, and the last one is kept: "
        "row 5, column 'income' = 9 gives a non-finite loss."
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet = vae(0).fit(pd.DataFrame(table(), columns=NAMES))
    assert "warning" not in quiet.history_[-1]


def test_a_fit_without_a_finite_step_is_refused_in_one_line(tmp_path):
    X = pd.DataFrame(table(17, 2, 1e30), columns=NAMES)
    with pytest.raises(
        ValueError, match=r"^the training: .* none in \d+: row 17, column 'income' = 1e\+30 gives a non"
    ):
        vae(0).fit(X, folder=tmp_path)
    assert "warning" not in json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
