"""Factorisations of many matrices at once wait for one another.

On a processor each of them shares its matrices out to the very threads that run programs, and waits. As many as there
are threads, started at once, wait for ever (jaxlib before 0.11.2).
"""

import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ravine as rv
from ravine import train, verbs
from ravine._jax import hasty_jit
from ravine.models.families import Full, Tied

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
INSTRUCTION = re.compile(r"^ +(?:ROOT )?%?([\w.-]+) = (.*)$")
MANY = re.compile(r"^\(?[a-z0-9]+\[(?:\d+,)*(\d+),\d+,\d+\]")  # the first result has an axis of matrices


def free_to_meet(text: str) -> list[tuple[str, str]]:
    """Pairs of batched LAPACK calls in a compiled program of which neither needs the other's results."""
    bodies: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if head := COMPUTATION.match(line):
            body = bodies.setdefault(head[1], {})
        elif found := INSTRUCTION.match(line):
            body[found[1]] = found[2]
    calls: dict[str, bool] = {}  # of a computation: whether it has such calls inside

    def has_calls(computation: str) -> bool:
        if computation not in calls:
            calls[computation] = False
            calls[computation] = any(is_call(told) for told in bodies[computation].values())
        return calls[computation]

    def is_call(told: str) -> bool:
        if "lapack_" in told:
            return bool(MANY.match(told))
        return any(has_calls(name) for name in re.findall(r"%?([\w.-]+)", told) if name in bodies)

    met = []
    for body in bodies.values():
        needs: dict[str, set[str]] = {}
        for name, told in body.items():  # operands come first
            parents = [parent for parent in re.findall(r"%?([\w.-]+)", told) if parent in needs]
            needs[name] = set(parents).union(*(needs[parent] for parent in parents))
        busy = [name for name, told in body.items() if is_call(told)]
        met += [(a, b) for i, b in enumerate(busy) for a in busy[:i] if a not in needs[b]]
    return met


class Watched:
    """A jitted function whose programs are looked at before they run."""

    def __init__(self, function: Any, found: list[Any]):
        self.function, self.found = function, found

    def __call__(self, *arguments: Any) -> Any:
        self.found.append(free_to_meet(self.function.lower(*arguments).compile().compiled.as_text()))
        return self.function(*arguments)


@pytest.fixture
def found(monkeypatch):
    programs: list[Any] = []
    monkeypatch.setattr(verbs, "_in_blocks", Watched(eqx.filter_jit(verbs._through), programs))
    monkeypatch.setattr(verbs, "_in_blocks_seldom", Watched(hasty_jit(verbs._through), programs))
    monkeypatch.setattr(train, "_advance", Watched(eqx.filter_jit(train._loop), programs))
    return programs


RECIPES = {
    "full": rv.GaussianMixture(components=2, iterations=2, covariance=Full(), random_state=0),
    "tied": rv.GaussianMixture(components=2, iterations=2, covariance=Tied(), random_state=0),
    "factors": rv.FactorAnalysis(latents=2, iterations=2, random_state=0),
    "variational": rv.VariationalFactorAnalysis(latents=2, steps=2, random_state=0),
}


@pytest.mark.parametrize(
    "name", ["full", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tied", "factors", "variational"))]
)
def test_no_two_can_meet(name, found):
    X = np.random.default_rng(0).normal(size=(20, 5))
    X[3, 1] = X[5, 0] = np.nan
    model = RECIPES[name].fit(X)
    model.score_samples(X), model.transform(X), model.impute(X), model.impute(X, draws=2), model.sample(3)
    model.reconstruct(X)
    assert len(found) > 5 and [pairs for pairs in found if pairs] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "variational"])
def test_no_two_can_meet_in_a_diagnosis(name, found):
    X = np.random.default_rng(0).normal(size=(60, 5))
    X[3, 1] = np.nan
    RECIPES[name].fit(X).diagnose(X)
    assert len(found) > 5 and [pairs for pairs in found if pairs] == []


def test_two_that_could_meet_are_found():
    x = jnp.stack([jnp.eye(3)] * 4)
    apart = jax.jit(lambda x: (jnp.linalg.cholesky(x), jnp.linalg.cholesky(2 * x)))
    after = jax.jit(lambda x: jnp.linalg.cholesky(jnp.linalg.cholesky(x)))
    single = jax.jit(lambda x: (jnp.linalg.cholesky(x[0]), jnp.linalg.cholesky(2 * x[0])))
    counts = [len(free_to_meet(f.lower(x).compile().as_text())) for f in (apart, after, single)]
    assert counts == [1, 0, 0]
