"""What every report begins with: what was fitted, how good it is, what was found, how it learned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ravine._tree import parameter_count
from ravine.report.charts import axis, legend, line, plot
from ravine.report.look import Looked
from ravine.report.markup import Html, count, details, figure, joined, number, section, table, tag, words

DIRECTIONS = {
    "exact": ("exact", "The number is exact: the model has log p(x) in closed form."),
    "lower": (
        "a lower bound",
        "The number is a lower bound: the true value is expected to be higher, so a model must not be called worse "
        "because its lower bound is lower.",
    ),
    "upper": ("an upper bound", "The number is an upper bound: the true value is expected to be lower."),
    "estimate": ("an estimate", "The number is an estimate that may lie on either side of the true value."),
}
LEVELS = {"good": "Good", "note": "Worth knowing", "warning": "Warning"}
MEASURES = {
    "lebesgue": "It is a log density in the units of the data, so it may be positive and changes with the units.",
    "counting": "It is a log probability, so 0 is the best there could be.",
    "mixed": "It adds log densities of the columns of reals, in their units, and log probabilities of the others.",
}


def lead(seen: Looked) -> Html:
    """What was fitted, in one sentence."""
    model, schema = seen.model, seen.model.schema_
    seconds = getattr(model, "seconds_", None)
    took = "" if seconds is None else f" in {number(seconds, 2)}\u00a0s"
    fitted = f"{type(model).__name__} fitted to {count(schema.rows, 'row')}{took}. Data: {schema.describe()}."
    short_of_it = "" if getattr(model, "complete_", True) else " The training was interrupted before its end."
    return tag("p", fitted + short_of_it, class_="lead")


def key_figures(seen: Looked, holes: float) -> Html:
    """A handful of numbers at a glance."""
    got, model = seen.evaluation, seen.model
    cause = "classes" if seen.classes else "latents"
    entries = [
        ("Log-likelihood", number(got.log_likelihood), f"± {number(got.standard_error, 2)} nats per row"),
        ("Kind of number", DIRECTIONS[got.direction][0].removeprefix("a ").removeprefix("an "), got.method),
        ("Parameters", f"{parameter_count(model.model_):,}", f"{model._n_features_out} {cause}"),
        (
            "Rows here",
            f"{seen.given:,}",
            f"{number(100 * holes, 2)} % of cells missing" if holes else "no cell missing",
        ),
    ]
    made = [tag("div", tag("dt", title), tag("dd", tag("b", big), tag("span", small))) for title, big, small in entries]
    return tag("dl", made, class_="figures")


def section_quality(seen: Looked) -> Html:
    """The log-likelihood in a sentence, and what it must not be taken for."""
    got = seen.evaluation
    which = {
        True: f"On {count(got.rows, 'row')} that the fit has not seen",
        False: f"On {count(got.rows, 'row')} of the training data",
        None: f"On {count(got.rows, 'row')} given to this report",
    }[seen.unseen]
    thinned = f", drawn at random from {seen.given:,}" if got.rows < seen.given else ""
    value = f"{number(got.log_likelihood)} ± {number(got.standard_error, 2)} nats per row"
    kind = f"{DIRECTIONS[got.direction][0]} by {got.method}; treatment: {got.treated}"
    care = {
        True: None,
        False: "These rows were learned from, so the number flatters the model.",
        None: "It says how the model does on new rows only if the fit has not seen these.",
    }[seen.unseen]
    return section(
        "quality",
        "How good it is",
        tag("p", f"{which}{thinned}, the mean log-likelihood is ", tag("strong", value), f" ({kind})."),
        words(DIRECTIONS[got.direction][1], MEASURES[got.measure], care),
        details("The number in full", table("Log-likelihood", ("What", "Value"), _quality_rows(seen))),
    )


def _quality_rows(seen: Looked) -> list[tuple[str, Any]]:
    got = seen.evaluation
    return [
        ("mean log-likelihood, nats per row", got.log_likelihood),
        ("standard error of the mean, nats", got.standard_error),
        ("bits per observed cell", got.bits_per_dim),
        ("direction", got.direction),
        ("method", got.method),
        ("base measure", got.measure),
        ("rows", got.rows),
        ("lowest row, nats", float(seen.log_p.min())),
        ("median row, nats", float(np.median(seen.log_p))),
        ("highest row, nats", float(seen.log_p.max())),
    ]


def section_findings(findings: Iterable[Any]) -> Html | None:
    """Diagnostics in words, the most urgent first."""
    order = {"warning": 0, "note": 1, "good": 2}
    known = sorted(findings, key=lambda finding: order[finding.level])
    if not known:
        return None
    made = [
        tag("li", tag("span", LEVELS[f.level], class_=f"badge {f.level}"), tag("h3", f.name), tag("p", f.words))
        for f in known
    ]
    return section("findings", "What was found", tag("ul", made, class_="findings"))


def section_curve(model: Any) -> Html:
    """The learning curve, or why there is none."""
    title, history = "How it learned", getattr(model, "history_", None)
    if not history:
        absent = "The history of the training was not kept with the model, so there is no learning curve."
        return section("curve", title, words(absent))
    done, training, held, what = curve(history)
    rows = [
        (f"{int(step)}", a, b) if np.isfinite(held).any() else (f"{int(step)}", a)
        for step, a, b in _thinned(done, training, held)
    ]
    heads = ("Step", f"Training: {what}", "Held-out rows")[: len(rows[0]) if rows else 2]
    numbers = table("Learning curve", heads, rows)
    if len(done) < 3:
        noted = "one value was" if len(done) == 1 else f"{len(done)} values were"
        few = f"Learning ended at step {int(done[-1])}; only {noted} noted on the way, too few for a curve."
        return section("curve", title, words(few), numbers)
    early = history[-1].get("stopped") is True
    ended = words("The training ended by itself, before its last possible step.") if early else None
    return section("curve", title, ended, _curve_figure(done, training, held, what), details("The numbers", numbers))


def curve(history: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Steps, training value and held-out value of each line of the history, and what they measure.

    Values go up when the model gets better where they are bounds or likelihoods; a loss goes down.
    """
    done, elbo, loss, held, objective = (_series(history, n) for n in ("done", "elbo", "loss", "held_out", "objective"))
    bound = np.isfinite(elbo) & np.isfinite(loss)
    if bound.any() and np.allclose(elbo[bound], -loss[bound], rtol=1e-3):
        return done, elbo, -held, "evidence lower bound, nats per row in the model's units"
    exact = _series(history, "log_likelihood")
    if np.isfinite(exact).any():
        return done, exact, -held, "log-likelihood, nats per row in the model's units"
    if np.isfinite(loss).any():
        return done, loss, held, "loss"
    return done, objective, held, "log-likelihood, nats per row in the model's units"


def _series(history: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.asarray([np.nan if line.get(name) is None else float(line[name]) for line in history])


def _thinned(*series: np.ndarray, most: int = 15) -> Iterator[tuple[float, ...]]:
    places = np.unique(np.linspace(0, len(series[0]) - 1, min(most, len(series[0]))).astype(int))
    return zip(*(one[places].tolist() for one in series), strict=True)


def _curve_figure(done: np.ndarray, training: np.ndarray, held: np.ndarray, what: str) -> Html:
    late = np.concatenate([one[done >= 0.05 * done[-1]] for one in (training, held)])
    late = late[np.isfinite(late)]
    x = axis(0.0, float(done[-1]), "step", pad=0.01)
    y = axis(float(late.min()), float(late.max()), what, pad=0.05) if late.size else axis(0.0, 1.0, what)
    cut = bool(((training < y.low) | (training > y.high)).any())
    watched = bool(np.isfinite(held).any())
    marks = [line(x, y, done, training, "real"), *([line(x, y, done, held, "sampled")] if watched else [])]
    last = held[np.isfinite(held)][-1] if watched else training[np.isfinite(training)][-1]
    name = f"Learning curve over {int(done[-1])} steps; {what}; the last value is {number(last)}."
    entries = [("real line", "training"), *([("sampled line", "held-out rows")] if watched else [])]
    caption = "The first steps lie outside of the frame." if cut else None
    return figure(legend(*entries), plot(name, x, y, joined(*marks)), caption=caption)
