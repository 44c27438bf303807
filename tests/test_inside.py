"""Seeing inside: slopes, adversarial rows, rows that raise a unit, latents at work, and how learning is aligned."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
import pytest
from helpers import CELLS, bits, some
from inside import (
    CLASSIFIERS,
    DOUBLE,
    ENCODERS,
    ROWS,
    classifier,
    encoder,
    grey,
    linear,
    margins,
    rows_for,
    table,
    weights_of,
)
from scipy.stats import kstest
from sklearn.linear_model import LogisticRegression

import ravine as rv
from ravine import diagnose
from ravine._check import Complaint
from ravine._jax import precision
from ravine.cli import main
from ravine.core import Row
from ravine.diagnose import (
    FGSM,
    L2,
    PGD,
    Ascent,
    Linf,
    activation_maximisation,
    adversarial_examples,
    alignment,
    cell_range,
    latent_traversal,
    learning_alignment,
    output_gradients,
    robust_accuracy,
    rule_alignment,
)
from ravine.diagnose.balls import Box
from ravine.diagnose.density import log_density
from ravine.evidence import ImportanceWeighted
from ravine.gradients import Enumerate
from ravine.labels import log_shares
from ravine.objectives import ELBO, Contrast, ExactLikelihood, MaximumLikelihood, WakeSleep
from ravine.rules import Contrastive, ContrastiveDivergence, Descend, gradient_descent

FEW = ("net",)  # the others take part in the costly checks in `make test-all`
EVERY = some(CLASSIFIERS, *FEW)


# --- slopes


@pytest.mark.parametrize("name", EVERY)
def test_log_shares_are_what_predict_proba_says(name):
    X, _ = rows_for(name)
    fitted = classifier(name)
    with precision(fitted.precision):
        row = fitted._row(fitted._ready(X[:7]))
        got = np.asarray(jax.jit(jax.vmap(lambda row: log_shares(row, fitted.model_)))(row))
    np.testing.assert_allclose(np.exp(got), fitted.predict_proba(X[:7]), rtol=1e-9, atol=1e-12)


def differences(verb: Any, X: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Slopes of a verb by central differences, shape (rows, outputs, columns)."""
    flat, found = X.reshape(len(X), -1), []
    for move in np.diag(step):
        up, down = (verb((flat + sign * move).reshape(X.shape)) for sign in (1, -1))
        found.append((up - down) / (2 * move.sum()))
    return np.stack(found, axis=-1)


@pytest.mark.parametrize("name", some(CLASSIFIERS, "net"))
def test_slopes_of_classes_are_those_of_the_public_verb(name):
    X, fitted = rows_for(name)[0][:5], classifier(name)
    step = 1e-5 * np.reshape(rows_for(name)[0], (ROWS, -1)).std(axis=0)
    labels = diagnose.outputs.classes_of(fitted)
    got = output_gradients(fitted, X, labels=labels)
    wanted = differences(lambda X: np.log(fitted.predict_proba(X)), X, step)
    np.testing.assert_allclose(got * step, wanted * step, atol=1e-9, rtol=1e-5)
    assert np.abs(wanted * step).max() > 1e-7


@pytest.mark.parametrize("name", some([name for name in ENCODERS if name != "net"], "factors"))
def test_slopes_of_latents_are_those_of_the_public_verb(name):
    X, fitted = table()[0][:5], encoder(name)
    step = 1e-5 * table()[0].std(axis=0)
    wanted = differences(fitted.transform, X, step)
    np.testing.assert_allclose(output_gradients(fitted, X) * step, wanted * step, atol=1e-9, rtol=1e-5)
    second = output_gradients(fitted, X, latents=1)[:, 0]
    np.testing.assert_allclose(second, output_gradients(fitted, X)[:, 1], rtol=1e-12)


def test_a_missing_cell_has_no_slope_and_the_others_that_of_the_row_with_a_hole():
    X, fitted = table()[0][:3], classifier("net")
    X[1, 2] = np.nan
    step = 1e-5 * np.nanstd(X, axis=0)
    got = output_gradients(fitted, X, labels=0)[:, 0]
    wanted = differences(lambda X: np.log(fitted.predict_proba(X)), X, step)[:, 0]
    assert got[1, 2] == 0
    np.testing.assert_allclose(got[[0, 2]], wanted[[0, 2]], rtol=1e-5)
    np.testing.assert_allclose(got[1, [0, 1, 3]], wanted[1, [0, 1, 3]], rtol=1e-5)


@pytest.mark.slow
def test_the_slope_of_hidden_bits_at_no_field_is_a_quarter_of_their_receptive_fields():
    """d sigmoid(a) / dx = sigmoid'(a) w, between the bits too."""
    X = (np.random.default_rng(0).random((40, 4)) < 0.5).astype(float)
    fitted = rv.RBM(hidden=3, steps=50, spread=0.5, **DOUBLE).fit(X)
    h = fitted.transform(X[:6])
    wanted = (h * (1 - h))[..., None] * fitted.receptive_fields()
    np.testing.assert_allclose(output_gradients(fitted, X[:6]), wanted, rtol=1e-10)


# --- balls

BALLS = {"linf": Linf(), "l2": L2()}


def box_of(stream: np.random.Generator, cells: int) -> Box:
    return Box(jnp.asarray(-stream.random(cells)), jnp.asarray(stream.random(cells)))


@pytest.mark.parametrize("name", some(BALLS, "linf"))
def test_projections_hold_and_do_nothing_the_second_time(name, x64):
    ball, stream = BALLS[name], np.random.default_rng(2)
    for radius in (0.0, 0.3, 0.8, 5.0):
        for _ in range(20):
            box = box_of(stream, 5)
            once = ball.project(jnp.asarray(3 * stream.normal(size=5)), radius, box)
            assert float(ball.norm(once)) <= radius
            assert bool(jnp.all((once >= box.low) & (once <= box.high)))
            np.testing.assert_array_equal(ball.project(once, radius, box), once)


@pytest.mark.parametrize("name", BALLS)
def test_projections_are_nearest(name, x64):
    """From the nearest point of a convex set, no other point of it lies in the direction of what was projected."""
    ball, stream = BALLS[name], np.random.default_rng(3)
    for _ in range(40):
        box, radius, away = box_of(stream, 4), float(0.2 + stream.random()), 2 * stream.normal(size=4)
        near = np.asarray(ball.project(jnp.asarray(away), radius, box))
        points = np.asarray(box.low) + stream.random((4000, 4)) * np.asarray(box.high - box.low)
        inside = points[np.asarray(jax.vmap(ball.norm)(jnp.asarray(points))) <= radius]
        assert len(inside) and np.max((inside - near) @ (away - near)) <= 1e-9


@pytest.mark.parametrize("name", BALLS)
def test_steepest_moves_have_length_1_and_rise_most(name, x64):
    ball, stream = BALLS[name], np.random.default_rng(4)
    slope = stream.normal(size=6)
    best = np.asarray(ball.steepest(jnp.asarray(slope)))
    dual = np.abs(slope).sum() if name == "linf" else np.linalg.norm(slope)
    assert float(ball.norm(jnp.asarray(best))) == pytest.approx(1.0, abs=1e-12)
    assert slope @ best == pytest.approx(dual, rel=1e-12)
    small = np.asarray(ball.steepest(jnp.asarray(1e-300 * slope)))  # whose square is 0
    np.testing.assert_allclose(small, best, rtol=1e-12)
    assert not np.asarray(ball.steepest(jnp.zeros(3))).any()


@pytest.mark.parametrize("name", BALLS)
def test_draws_are_uniform_in_the_ball(name, x64):
    """The d-th power of the norm is uniform, and signs are even; with another seed this fails once in a thousand."""
    ball, draws = BALLS[name], 4000
    moves = jax.vmap(lambda key: ball.draw(jnp.zeros(3), key=key))(jr.split(jr.key(5), draws))
    assert kstest(np.asarray(jax.vmap(ball.norm)(moves)) ** 3, "uniform").pvalue > 1e-3 / 2
    signs = np.asarray(moves) > 0
    assert np.abs(signs.mean(axis=0) - 0.5).max() < 4 * 0.5 / draws**0.5


# --- attacks on a linear classifier


@pytest.mark.parametrize(
    ("attack", "order"),
    [(FGSM(), 1), (PGD(steps=10), 1), (PGD(steps=10, starts=3), 1), (FGSM(L2()), 2), (PGD(L2(), steps=30), 2)],
    ids=repr,
)
@pytest.mark.parametrize("scaled", some([False, True], True))
def test_the_log_odds_of_a_linear_classifier_fall_by_the_dual_norm(attack, order, scaled):
    X, y = table(2)
    fitted, far = linear(), 0.3
    scale = np.array([1.0, 10.0, 0.1, 2.0]) if scaled else None
    slope, _ = weights_of(fitted)
    found = adversarial_examples(fitted, X, y, radius=far, attack=attack, bounds=(-1e3, 1e3), scale=scale)
    fall = margins(fitted, X, y) - margins(fitted, found.rows, y)
    np.testing.assert_allclose(fall, far * np.linalg.norm(slope * (1 if scale is None else scale), order), rtol=1e-6)
    np.testing.assert_allclose(found.distance, far, rtol=1e-6)


def test_no_move_in_the_ball_does_better_than_the_sign_of_the_slope():
    X, y = table(2)
    fitted, stream = linear(), np.random.default_rng(6)
    found = adversarial_examples(fitted, X[:1], y[:1], radius=0.3, attack=FGSM(), bounds=(-1e3, 1e3))
    others = X[:1] + 0.3 * stream.uniform(-1, 1, size=(5000, 4))
    assert margins(fitted, found.rows, y[:1])[0] <= margins(fitted, others, np.repeat(y[:1], 5000)).min()


def test_robust_accuracy_of_a_linear_classifier_is_the_share_of_margins_beyond_the_dual_norm():
    X, y = table(2)
    fitted, radii = linear(), [0.5, 0.0, 0.1, 0.2]
    margin, (slope, _) = margins(fitted, X, y), weights_of(fitted)
    for attack, dual in ((FGSM(), np.abs(slope).sum()), (PGD(L2(), steps=20), np.linalg.norm(slope))):
        found = robust_accuracy(fitted, X, y, radii, attack=attack, bounds=(-1e3, 1e3))
        wanted = [np.mean(margin > radius * dual) for radius in sorted(radii)]
        assert found.radii.tolist() == sorted(radii) and found.accuracy.tolist() == wanted
        assert wanted[0] == np.mean(fitted.predict(X) == y) > wanted[-1]
        np.testing.assert_allclose(found.standard_error**2, found.accuracy * (1 - found.accuracy) / ROWS)


@pytest.mark.slow
def test_a_classifier_that_is_sure_can_still_be_attacked():
    """In single precision its shares are 0 and 1, and their logarithm has no slope of its own."""
    X, y = table(2)
    fitted = rv.EnergyClassifier(hidden=(), steps=100, random_state=0).fit(X, y)
    louder = jax.tree.map(lambda leaf: 1e4 * leaf if eqx.is_inexact_array(leaf) else leaf, fitted.model_.net)
    fitted.model_ = dataclasses.replace(fitted.model_, net=louder)
    assert set(np.unique(fitted.predict_proba(X))) == {0.0, 1.0}
    against = np.diff(np.asarray(louder.layers[0].weight), axis=0)[0] * np.where(y == 1, 1, -1)[:, None]
    found = adversarial_examples(fitted, X, y, radius=0.1, attack=FGSM(), bounds=(-1e3, 1e3))
    np.testing.assert_allclose(found.rows - X, 0.1 * np.sign(against), atol=1e-6)


# --- attacks on any classifier


@pytest.mark.parametrize("ball", BALLS.values(), ids=repr)
@pytest.mark.parametrize("name", some(["net", "deep", "rbm"], "net"))
def test_one_whole_step_of_descent_is_the_fast_method(name, ball):
    X, y = rows_for(name)
    far = {"radius": 0.2, "bounds": (-1e3, 1e3)}
    one, other = (
        adversarial_examples(classifier(name), X, y, attack=attack, **far)
        for attack in (FGSM(ball), PGD(ball, steps=1, size=1.0))
    )
    np.testing.assert_array_equal(one.rows, other.rows)
    assert one.distance.max() == pytest.approx(0.2, rel=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_the_fast_method_follows_the_sign_of_the_slope_of_the_cross_entropy(name):
    X, _ = rows_for(name)
    fitted = classifier(name)
    told = fitted.predict(X)
    found = adversarial_examples(fitted, X[:5], radius=1e-3, attack=FGSM(), bounds=(-1e3, 1e3))
    places = np.searchsorted(diagnose.outputs.classes_of(fitted), told[:5])
    slope = -output_gradients(fitted, X[:5], labels=diagnose.outputs.classes_of(fitted))[np.arange(5), places]
    moves = (found.rows - X[:5]).reshape(5, -1)
    assert (np.sign(slope) != 0).any()
    clear = np.abs(slope) > 1e-9 * np.abs(slope).max()
    np.testing.assert_allclose(moves[clear], 1e-3 * np.sign(slope)[clear], rtol=1e-6)


@pytest.mark.parametrize("attack", [PGD(steps=5, starts=2), PGD(L2(), steps=5, starts=2)], ids=repr)
@pytest.mark.parametrize("name", EVERY)
def test_moved_rows_stay_near_and_in_range_and_say_what_is_said_of_them(name, attack):
    X, y = rows_for(name)
    fitted, scale = classifier(name), np.reshape(X, (ROWS, -1)).std(axis=0)
    found = adversarial_examples(fitted, X, y, radius=0.8, attack=attack, scale=scale)
    moves, ends = (found.rows - X).reshape(ROWS, -1), cell_range(fitted, X)
    order = np.inf if attack.ball == Linf() else 2
    length = np.linalg.norm(moves / scale, order, axis=1)
    assert length.max() <= 0.8 * (1 + 1e-12) and length.max() > 0.5
    np.testing.assert_allclose(found.distance, length, rtol=1e-9)
    np.testing.assert_allclose(found.moves, moves, atol=1e-9)
    flat = found.rows.reshape(ROWS, -1)
    assert (flat >= ends.low).all() and (flat <= ends.high).all()
    np.testing.assert_array_equal(found.before, fitted.predict(X))
    np.testing.assert_array_equal(found.after, fitted.predict(found.rows))
    np.testing.assert_array_equal(found.changed, found.before != found.after)
    told = lambda X: np.log(fitted.predict_proba(X))[np.arange(ROWS), y]  # noqa: E731
    assert told(found.rows).mean() < told(X).mean() - 0.01


def test_more_steps_and_starts_raise_the_loss():
    X, y = table()
    fitted, scale = classifier("net"), table()[0].std(axis=0)
    log_p = lambda attack: np.log(  # noqa: E731
        fitted.predict_proba(adversarial_examples(fitted, X, y, radius=1.0, attack=attack, scale=scale).rows)
    )[np.arange(ROWS), y]
    fast, slow, many = (log_p(attack) for attack in (FGSM(), PGD(), PGD(starts=4)))
    assert slow.mean() < fast.mean()
    assert (many <= slow + 1e-9).all()


def test_a_row_gets_the_same_move_in_any_company():
    X, y = table()
    many, one = (
        adversarial_examples(
            classifier("net"), X[rows], y[rows], radius=0.5, attack=PGD(steps=3, starts=3), bounds=(-1e3, 1e3)
        ).rows
        for rows in (slice(None), slice(7, 8))
    )
    np.testing.assert_array_equal(many[7:8], one)


def test_a_target_is_aimed_at():
    X, _ = table()
    fitted, scale = classifier("net"), table()[0].std(axis=0)
    found = adversarial_examples(fitted, X, radius=3.0, target=2, scale=scale)
    share = lambda X: fitted.predict_proba(X)[:, 2]  # noqa: E731
    assert (share(found.rows) >= share(X)).all() and (found.after == 2).mean() > 0.9 > (found.before == 2).mean()
    away = adversarial_examples(fitted, X, fitted.predict(X), radius=3.0, scale=scale)
    np.testing.assert_array_equal(adversarial_examples(fitted, X, radius=3.0, scale=scale).rows, away.rows)


@pytest.mark.slow
def test_cells_that_are_missing_stay_missing_and_others_move():
    X, y = table()
    X = X.copy()
    X[4, 1] = X[5] = np.nan
    found = adversarial_examples(classifier("net"), X, y, radius=0.3, attack=FGSM())
    np.testing.assert_array_equal(np.isnan(found.rows), np.isnan(X))
    assert found.distance[5] == 0 and found.distance[4] > 0 and found.moves[4, 1] == 0


@pytest.mark.slow
def test_rows_come_back_in_the_kind_they_came_in():
    X, y = table()
    frame = pd.DataFrame(X, columns=list("abcd"), index=np.arange(ROWS) + 100)
    fitted = rv.EnergyClassifier(hidden=(3,), steps=20, random_state=0).fit(frame, y)
    made = adversarial_examples(fitted, frame, y, radius=0.1, attack=FGSM()).rows
    assert made.columns.tolist() == list("abcd") and made.index.equals(frame.index)
    images, labels = grey()
    found = adversarial_examples(classifier("deep"), images, labels, radius=20, attack=FGSM())
    assert found.rows.shape == images.shape and found.rows.min() >= 0 and found.rows.max() <= 255


def test_shares_of_robust_rows_never_rise_and_begin_at_the_accuracy():
    X, y = table()
    fitted = classifier("rbm")
    found = robust_accuracy(fitted, X, y, [0.0, 0.1, 0.4, 1.0], attack=PGD(steps=5), scale=X.std(axis=0))
    assert found.accuracy[0] == np.mean(fitted.predict(X) == y) > found.accuracy[-1]
    assert (np.diff(found.accuracy) <= 0).all() and found.rows == ROWS and found.attack == "PGD(steps=5)"
    assert json.loads(json.dumps(found.to_json()))["accuracy"] == found.accuracy.tolist()
    assert str(found).splitlines()[0] == f"PGD(steps=5), {ROWS} rows" and "+-" in str(found)


class Timid(diagnose.AbstractAttack):
    """The fast method, which does not dare to go far."""

    ball: diagnose.AbstractBall = Linf()

    def __call__(self, loss: Any, radius: Any, box: Box, *, key: Any) -> Any:
        return jnp.where(radius < 0.25, FGSM()(loss, radius, box, key=key), 0.0)


def test_what_is_lost_in_a_ball_is_lost_in_larger_ones():
    X, y = table(2)
    found = robust_accuracy(linear(), X, y, [0.0, 0.2, 0.4], attack=Timid(), bounds=(-1e3, 1e3))
    assert found.accuracy[2] == found.accuracy[1] < found.accuracy[0]


# --- rows that raise a unit


def slope_of_factor(fitted: Any, k: int) -> np.ndarray:
    """What a latent of factor analysis is linear in."""
    X = table()[0]
    return output_gradients(fitted, X[:1], latents=k)[0, 0]


def test_the_highest_row_of_a_linear_unit_in_a_ball_is_its_weight_direction():
    X, fitted, far = table()[0], encoder("factors"), 0.7
    for k in range(2):
        slope = slope_of_factor(fitted, k)
        ascent = Ascent(starts=3, radius=far)
        found = activation_maximisation(fitted, X, latents=k, scale=1.0, bounds=(-1e4, 1e4), ascent=ascent)
        wanted = X.mean(axis=0) + far * slope / np.linalg.norm(slope)
        np.testing.assert_allclose(found.rows[0], wanted, atol=1e-6)
        np.testing.assert_allclose(found.values, fitted.transform(found.rows)[:, k], rtol=1e-9)
        np.testing.assert_allclose(found.starts[0], found.values[0], rtol=1e-6)


def test_the_highest_row_of_a_linear_unit_in_range_is_a_corner():
    X, fitted = table()[0], encoder("factors")
    found, ends = activation_maximisation(fitted, X), cell_range(fitted, X)
    assert found.names == ("latent 0", "latent 1")
    for k in range(2):
        np.testing.assert_allclose(found.rows[k], np.where(slope_of_factor(fitted, k) > 0, ends.high, ends.low))


def test_a_penalty_stops_a_linear_unit_where_the_slopes_are_equal():
    """max a x - p/2 |x - m|^2 is at m + a / p, in units of the scale."""
    X, fitted, scale = table()[0], encoder("factors"), np.array([1.0, 10.0, 0.1, 2.0])
    slope = slope_of_factor(fitted, 0)
    ascent = Ascent(starts=2, penalty=5.0)
    found = activation_maximisation(fitted, X, latents=0, scale=scale, bounds=(-1e4, 1e4), ascent=ascent)
    np.testing.assert_allclose((found.rows[0] - X.mean(axis=0)) / scale, slope * scale / 5, atol=1e-6)


@pytest.mark.slow
def test_a_pull_stops_a_linear_unit_where_the_slope_of_log_p_is_equal():
    """max a x + g log N(x; b, C) is at b + C a / g."""
    X, fitted, pull = table()[0], encoder("factors"), 0.5
    slope, wide = slope_of_factor(fitted, 0), np.array([1.0, 10.0, 0.1, 2.0])
    deviation, middle = X.std(axis=0), fitted.inverse_transform(np.zeros((1, 2)))[0]
    weight = (fitted.inverse_transform(np.eye(2)) - middle).T
    noise = np.asarray(fitted.model_.noise.scale(4)) * np.asarray(fitted.schema_.scale)
    covariance = weight @ weight.T + np.diag(noise**2)
    ascent = Ascent(starts=2, pull=pull)
    found = activation_maximisation(fitted, X, latents=0, scale=wide, bounds=(-1e4, 1e4), ascent=ascent)
    np.testing.assert_allclose((found.rows[0] - middle) / deviation, covariance @ slope / pull / deviation, atol=1e-5)


def test_the_highest_rows_of_a_net_are_above_all_rows_and_no_cell_can_raise_them():
    X, fitted = table()[0], encoder("vae")
    found = activation_maximisation(fitted, X, ascent=Ascent(starts=6))
    latents, ends = fitted.transform(X), cell_range(fitted, X)
    assert (found.values > latents.max(axis=0)).all()
    np.testing.assert_allclose(found.values, np.diagonal(fitted.transform(found.rows)), rtol=1e-9)
    np.testing.assert_array_equal(found.values, found.starts.max(axis=1))
    slope = output_gradients(fitted, found.rows)[np.arange(2), np.arange(2)] * (ends.high - ends.low)
    free = np.where(slope > 0, found.rows < ends.high, found.rows > ends.low)
    assert np.abs(np.where(free, slope, 0)).max() < 1e-3 * np.abs(slope).max()


@pytest.mark.parametrize("name", EVERY)
def test_rows_that_raise_a_class_are_told_to_be_of_it(name):
    X, fitted = rows_for(name)[0], classifier(name)
    labels = diagnose.outputs.classes_of(fitted)
    found = activation_maximisation(fitted, X, labels=labels, ascent=Ascent(starts=4, steps=60))
    rows = found.rows.reshape(len(labels), *X.shape[1:])
    np.testing.assert_array_equal(fitted.predict(rows), labels)
    told = np.log(np.diagonal(fitted.predict_proba(rows)))
    np.testing.assert_allclose(found.values, told, atol=1e-7)
    assert (found.values >= np.log(fitted.predict_proba(X)).max(axis=0) - 1e-6).all()


@pytest.mark.slow
def test_the_highest_bits_of_a_hidden_unit_are_the_signs_of_its_weights():
    X = (np.random.default_rng(0).random((40, 5)) < 0.5).astype(float)
    fitted = rv.RBM(hidden=3, steps=50, spread=0.5, **DOUBLE).fit(X)
    found = activation_maximisation(fitted, X)
    np.testing.assert_array_equal(found.rows, (fitted.receptive_fields() > 0).astype(float))
    np.testing.assert_allclose(found.values, np.diagonal(fitted.transform(found.rows)), rtol=1e-12)


@pytest.mark.parametrize("name", some(["vae", "gaussian-rbm", "rbm", "net", "deep"], "net"))
def test_a_pull_leads_to_rows_that_are_likelier(name):
    X, fitted = rows_for(name)[0], encoder(name) if name in ENCODERS else classifier(name)
    what = {"labels": fitted.classes_[:1]} if name in ("rbm", "net") else {"latents": 0}
    free, held = (
        activation_maximisation(fitted, X, **what, ascent=Ascent(starts=3, steps=80, pull=pull)) for pull in (0.0, 3.0)
    )
    flat = lambda found: found.rows.reshape(-1)  # noqa: E731
    law = log_density(fitted.model_, Row(jnp.zeros(fitted.schema_.shape)))
    cells = lambda row: (row / fitted.schema_.divisor - fitted.schema_.shift) / fitted.schema_.scale  # noqa: E731
    with precision("float64"):
        low, high = (float(law(Row(jnp.asarray(cells(flat(found)))), fitted.model_)) for found in (free, held))
    assert high > low + 0.1
    assert held.values[0] <= free.values[0] + 1e-9


@pytest.mark.parametrize("name", ["rbm", "net", "gaussian-rbm", "factors"])
def test_the_density_of_a_pull_is_that_of_the_rows_up_to_a_constant(name, monkeypatch):
    """The law that listing or a closed form gives; a net of energies has the free energy beside it."""
    X, fitted = table()[0][:5], encoder(name) if name in ENCODERS else classifier(name)
    with precision("float64"):
        row = fitted._row(X)
        law = log_density(fitted.model_, jax.tree.map(lambda leaf: leaf[0], row))
        got = np.asarray(jax.jit(jax.vmap(lambda row: law(row, fitted.model_)))(row))
    wanted = -fitted.free_energy(X) if name == "net" else fitted.score_samples(X)
    np.testing.assert_allclose(np.diff(got), np.diff(wanted), rtol=1e-7, atol=1e-9)


# --- latents at work


def test_a_linear_decoder_goes_along_its_loading_in_a_straight_line():
    X, fitted, stops = table()[0], encoder("factors"), np.array([-3.0, 0.5, 2.0])
    found = latent_traversal(fitted, X, stops=stops)
    weight = np.asarray(fitted.model_.loading) * np.asarray(fitted.schema_.scale)[:, None]
    assert found.rows.shape == (2, 3, 4)
    for lines, k in zip(found.rows, found.latents, strict=True):
        for i in range(3):
            np.testing.assert_allclose(lines[i] - lines[0], (stops[i] - stops[0]) * weight[:, k], atol=1e-9)
    spread = fitted.transform(X).std(axis=0)
    assert found.latents.tolist() == np.argsort(-spread).tolist()


@pytest.mark.parametrize("name", ["vae", "gaussian-rbm"])
def test_the_other_latents_are_held_at_their_mean(name):
    X, fitted = table()[0], encoder(name)
    held = fitted.transform(X).mean(axis=0)
    found = latent_traversal(fitted, X, latents=[1, 0], stops=[0.2, 0.9])
    for lines, k in zip(found.rows, (1, 0), strict=True):
        for row, stop in zip(lines, (0.2, 0.9), strict=True):
            z = held.copy()
            z[k] = stop
            np.testing.assert_allclose(row, fitted.inverse_transform(z[None])[0], rtol=1e-9)


@pytest.mark.slow
def test_a_table_of_several_kinds_is_decoded_as_such():
    stream = np.random.default_rng(0)
    frame = pd.DataFrame({"size": stream.normal(size=60), "colour": stream.choice(["red", "blue"], 60)})
    small = {"latents": 2, "hidden": (4,), "steps": 20, "random_state": 0, "evidence": ImportanceWeighted(5)}
    fitted = rv.MixedFactorAnalysis(**small).fit(frame)
    found = latent_traversal(fitted, frame, stops=[-1, 1])
    assert found.rows.index.names == ["latent", "stop"] and found.rows.shape == (4, 2)
    assert set(found.rows["colour"]) <= {"red", "blue"} and found.names == ("size", "colour")


# --- alignment


def test_a_gradient_is_aligned_with_itself_and_against_its_negation():
    tree = {"a": jnp.array([3.0, -4.0]), "b": (jnp.ones((2, 2)), jnp.zeros(2))}
    for factor in (1.0, -1.0, 2.5, -1e-30):
        found = alignment(jax.tree.map(lambda leaf, f=factor: f * leaf, tree), tree)
        for name in ("a", "b.0"):
            assert found.cosines[name] == pytest.approx(np.sign(factor), abs=1e-12)
            assert found.ratios[name] == pytest.approx(abs(factor), rel=1e-6)
        assert found.cosine == pytest.approx(np.sign(factor), abs=1e-12)
        assert found.ratio == pytest.approx(abs(factor), rel=1e-6)
        assert np.isnan(found.cosines["b.1"]) and np.isnan(found.ratios["b.1"])
    right = alignment({"a": jnp.array([0.0, 1.0])}, {"a": jnp.array([2.0, 0.0])})
    assert right.cosine == 0 and right.ratio == 0.5
    assert alignment({"a": jnp.zeros(1)}, {"a": jnp.ones(1)}).ratio == 0
    assert alignment({"a": jnp.ones(1)}, {"a": jnp.zeros(1)}).ratio == np.inf
    assert "all together" in str(found) and "b.0" in str(found)


BATCH = Row(jnp.asarray((np.random.default_rng(0).random((8, CELLS)) < 0.4).astype(float)))


def test_descent_on_a_loss_is_aligned_with_it_by_its_rate(x64):
    model, loss = bits(), ELBO(Enumerate())
    batch = jax.tree.map(jnp.asarray, BATCH)
    found = rule_alignment(Descend(loss, gradient_descent(0.01)), loss, model, batch, key=jr.key(0))
    assert found.cosine == pytest.approx(1, abs=1e-9) and found.ratio == pytest.approx(0.01, rel=1e-9)
    assert all(cosine == pytest.approx(1, abs=1e-9) for cosine in found.cosines.values())
    same = rule_alignment(loss, loss, model, batch, key=jr.key(0))
    assert same.ratio == pytest.approx(1, rel=1e-9)


def test_the_wake_phase_follows_the_bound_and_the_sleep_phase_does_not(x64):
    """By 4000 draws a leaf of the generator is within 2 degrees; noise would have to be ten times as large to fail."""
    batch = jax.tree.map(jnp.asarray, BATCH)
    found = rule_alignment(WakeSleep(), ELBO(Enumerate()), bits(), batch, key=jr.key(1), draws=4000)
    generator = {name: cosine for name, cosine in found.cosines.items() if name.startswith("p.")}
    recogniser = {name: cosine for name, cosine in found.cosines.items() if name.startswith("q.")}
    assert min(generator.values()) > np.cos(np.deg2rad(2))
    assert max(recogniser.values()) < 0.9
    assert all(0.95 < found.ratios[name] < 1.05 for name in generator)


@pytest.mark.slow
def test_longer_chains_bring_contrastive_divergence_nearer_to_the_likelihood():
    X = (np.random.default_rng(0).random((50, 5)) < [0.2, 0.8, 0.5, 0.7, 0.4]).astype(float)
    X[:, 4] = X[:, 0]
    fitted = rv.RBM(hidden=3, steps=150, rate=0.2, spread=1.5, **DOUBLE).fit(X)
    angles = []
    for sweeps in (1, 30):
        rule = Contrastive(Contrast(), ContrastiveDivergence(sweeps), gradient_descent(1.0))
        found = learning_alignment(fitted, X, ExactLikelihood(), rule, draws=400)
        angles.append((found.cosine, abs(np.log(found.ratio))))
    assert angles[0][0] < angles[1][0] > 0.97
    assert angles[1][1] < 0.3


def test_a_recipe_is_looked_at_with_its_own_rule():
    X, fitted = table()[0], encoder("factors")
    found = learning_alignment(fitted, X, MaximumLikelihood(), draws=1)
    assert found.cosine > 0 and any(name == "loading" for name in found.cosines)


# --- pictures and words


@pytest.mark.slow
def test_everything_can_be_drawn(tmp_path):
    images, y = grey()
    deep, X = classifier("deep"), table()[0]
    pictures = {
        "moved": adversarial_examples(deep, images, y, radius=30, attack=FGSM()),
        "curve": robust_accuracy(deep, images, y, [0, 30], attack=FGSM()),
        "highest": activation_maximisation(deep, images, labels=[0, 1], ascent=Ascent(starts=2, steps=5)),
        "table": latent_traversal(encoder("factors"), X),
        "images": latent_traversal(deep_belief(), images, latents=[0, 2]),
    }
    for name, found in pictures.items():
        assert found.plot(tmp_path / f"{name}.png") is not None
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert "predictions changed" in str(pictures["moved"])


def deep_belief() -> Any:
    images, y = grey()
    small = {"layers": (5, 4), "greedy": 20, "steps": 3, "sweeps": 5, "binarise": "dynamic"}
    return rv.DeepBeliefClassifier(**small, **DOUBLE).fit(images, y)


# --- from the shell


@pytest.mark.slow
def test_the_shell_counts_rows_that_stay_right(tmp_path, capsys):
    X, y = table(2)
    frame = pd.DataFrame(X, columns=list("abcd")).assign(kind=np.array(["one", "other"])[y])
    frame.loc[3, "kind"] = None
    frame.to_csv(tmp_path / "rows.csv", index=False)
    settings = {"latents": 1, "hidden": "(6,)", "steps": 60, "label": "'kind'", "kind": "'real'"}
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    run = [str(tmp_path / name) for name in ("rows.csv", "run", "curve.png")]
    assert main(["fit", "semi-supervised-gumbel", run[0], *words, "--out", run[1], "--test-size", "0.5"]) == 0
    capsys.readouterr()
    assert main(["diagnose", run[1], "--robustness", "--json", "--plot", run[2]]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["radii"] == [0.0, 0.02, 0.05, 0.1, 0.2] and 29 <= told["rows"] <= 30
    assert told["accuracy"] == sorted(told["accuracy"], reverse=True) and told["accuracy"][0] > 0.6
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert main(["diagnose", run[1], "--robustness", "--gradients"]) == 2
    assert "one at a time" in capsys.readouterr().err


@pytest.mark.slow
def test_the_shell_holds_clusters_to_their_own_word(tmp_path, capsys):
    assert main(["fit", "gaussian-mixture", "iris", "--set", "iterations=5", "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["diagnose", str(tmp_path / "run"), "--robustness"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "PGD(), 15 rows" and lines[2].split()[1] == "1.000"


# --- one clear line


def bits_of() -> tuple[np.ndarray, np.ndarray]:
    y = np.arange(40) % 2
    return np.repeat(y[:, None], 3, axis=1).astype(float), y


def refused(action: Any, *words: str) -> None:
    with pytest.raises(Complaint) as caught:
        action()
    assert str(caught.value).isprintable()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"radius": -0.1}, ("radius", "at least 0", "-0.1")),
        ({"radius": np.nan}, ("radius",)),
        ({"radius": "far"}, ("radius", "'far'")),
        ({"y": np.full(ROWS, 7)}, ("y", "one of [0, 1, 2]", "7")),
        ({"y": [0, 1]}, ("y", "shape (2,)")),
        ({"target": 9}, ("target", "9")),
        ({"bounds": (3, 1)}, ("bounds", "low below high")),
        ({"bounds": 3}, ("bounds",)),
        ({"bounds": (0, 1)}, ("bounds", "rows outside")),
        ({"scale": 0.0}, ("scale", "positive")),
        ({"scale": np.ones(3)}, ("scale", "4")),
    ],
)
def test_attacks_that_cannot_be_are_one_line(change, words):
    X, y = table()
    given = {"y": y, "radius": 0.1, "attack": FGSM()} | change
    refused(lambda: adversarial_examples(classifier("net"), X, **given), *words)


@pytest.mark.slow
def test_models_without_a_slope_are_one_line():
    X, y = bits_of()
    discrete = rv.ClassificationRBM(hidden=2, steps=5, random_state=0).fit(X, y)
    refused(lambda: adversarial_examples(discrete, X, y, radius=0.1), "ClassificationRBM", "3 binary cells", "grey")
    levels = rv.LatentClass(components=2, steps=5, kind="levels", random_state=0).fit(X * 2)
    refused(lambda: activation_maximisation(levels, X * 2, labels=0), "LatentClass", "level")
    frame = pd.DataFrame({"size": np.arange(40.0), "colour": ["red", "blue"] * 20})
    mixed = rv.LatentClass(components=2, steps=5, random_state=0).fit(frame)
    refused(lambda: adversarial_examples(mixed, frame, radius=0.1), "several kinds")
    foreign = LogisticRegression(max_iter=1000).fit(*table())
    refused(lambda: adversarial_examples(foreign, table()[0], radius=0.1), "LogisticRegression", "Ravine")
    refused(lambda: adversarial_examples(encoder("vae"), table()[0], radius=0.1), "VAE", "classifier")
    refused(lambda: adversarial_examples(rv.EnergyClassifier(), *table(), radius=0.1), "EnergyClassifier", "fit")
    trees = rv.LatentTreeClassifier(steps=2, random_state=0)
    refused(lambda: adversarial_examples(trees, ["a b"], radius=0.1), "LatentTreeClassifier", "rows of numbers")
    one = table()[0][:1]
    refused(lambda: adversarial_examples(classifier("net"), one, radius=0.1), "the rows", "bounds=(low, high)")
    refused(lambda: robust_accuracy(classifier("net"), *table(), [-1.0]), "radii")
    refused(lambda: robust_accuracy(classifier("net"), *table(), []), "radii")
    refused(lambda: PGD(steps=0), "PGD")


@pytest.mark.slow
def test_units_that_are_not_there_are_one_line():
    X, fitted = table()[0], encoder("vae")
    refused(lambda: activation_maximisation(fitted, X, latents=2), "latents", "0 to 1")
    refused(lambda: activation_maximisation(fitted, X, latents=0.5), "latents")
    refused(lambda: activation_maximisation(fitted, X, labels=0), "VAE", "classifier")
    refused(lambda: activation_maximisation(classifier("net"), X, labels=5), "labels", "5")
    refused(lambda: activation_maximisation(classifier("gumbel"), X, latents=0, labels=0), "one at a time")
    refused(lambda: activation_maximisation(fitted, X, ascent=Ascent(penalty=-1.0)), "penalty")
    refused(lambda: activation_maximisation(fitted, X, ascent=Ascent(steps=0)), "steps")
    experts = classifier("experts")
    refused(lambda: activation_maximisation(experts, X, labels=0, ascent=Ascent(pull=1.0)), "pull", "ClassExperts")
    refused(lambda: latent_traversal(fitted, X, latents=5), "latents", "0 to 1")
    refused(lambda: latent_traversal(fitted, X, stops=[]), "stops")
    refused(lambda: latent_traversal(classifier("net"), X), "decodes latents")
    refused(lambda: latent_traversal(encoder("factors"), X).plot() and strips_of_a_table(), "images")
    refused(lambda: alignment({"a": jnp.ones(1)}, {"b": jnp.ones(1)}), "alignment")


def strips_of_a_table() -> Any:
    X, y = table()
    return adversarial_examples(classifier("net"), X, y, radius=0.1, attack=FGSM()).plot()
