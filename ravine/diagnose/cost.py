"""What one step of learning costs: operations on floating-point numbers, and memory, per row.

The operations are counted in the program as it is traced, with loops as often as they run, and not measured: the same
number on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from ravine._jax import live, temporary_bytes
from ravine._tree import as_arrays, strong
from ravine.core import AbstractRule, Row, rows_in

EACH = (
    "abs acos acosh add add_any asin asinh atan atan2 atanh cbrt ceil clamp cos cosh digamma div erf erf_inv erfc exp "
    "exp2 expm1 floor integer_pow lgamma log log1p logistic max min mul neg pow rem round rsqrt sign sin sinh sqrt "
    "square sub tan tanh"
)
FREE = frozenset(
    "bitcast_convert_type broadcast broadcast_in_dim concatenate convert_element_type copy copy_p dynamic_slice "
    "dynamic_update_slice gather iota optimization_barrier pad reduce_precision reshape rev scatter select_n slice "
    "split squeeze stop_gradient transpose".split()
)


class StepCost(NamedTuple):
    """What one step of learning costs.

    Attributes
    ----------
    operations : on floating-point numbers, of the whole step.
    bytes : what a step within a compiled loop holds at its peak beside the rows, the model and the state of the rule;
        NaN where the platform does not tell. A different compiler, or a different device, needs more or less.
    rows : of the batch.
    open_loops : how many loops run until something that is computed says stop; the work in each is counted once.
    uncounted : what makes floating-point numbers and is not counted, by the names of `jax.lax`.
    """

    operations: int
    bytes: float
    rows: int
    open_loops: int = 0
    uncounted: tuple[str, ...] = ()

    @property
    def operations_per_row(self) -> float:
        """The operations divided by the rows: what is done once a step, such as moving the weights, is shared out."""
        return self.operations / self.rows

    @property
    def bytes_per_row(self) -> float:
        """The memory divided by the rows; that for the gradient of the weights, which all rows share, included."""
        return self.bytes / self.rows

    def __str__(self) -> str:
        line = f"{self.operations_per_row:,.0f} operations and {self.bytes_per_row:,.0f} bytes per row"
        loops = f"; {self.open_loops} loops of unknown length counted once" if self.open_loops else ""
        others = f"; without {', '.join(self.uncounted)}" if self.uncounted else ""
        return f"{line} of {self.rows}{loops}{others}"


def step_cost(rule: AbstractRule, model: PyTree, batch: Row, *, key: PRNGKeyArray) -> StepCost:
    """Operations and memory of ``rule.step`` on a batch.

    A product of matrices of shapes (m, k) and (k, n) counts 2 m n k, a convolution twice its products with cells that
    are there (not with padding, nor with zeros between cells), any function of single numbers 1 for each number it
    makes, a sum or a largest of n numbers n - 1, a Cholesky factor n^3 / 3, the solution of a triangular system n^2 for
    each right-hand side. Moving, comparing and choosing numbers is free, and so is what is done with whole numbers,
    random bits included. A branch counts as the dearest of those that may be taken, so that a rule which looks at
    held-out rows now and then, such as `Best`, seems to do so at every step: give the rule inside it. What nothing
    depends on is left out; what the compiler finds to be done twice is not.

    Parameters
    ----------
    rule : what learns, such as that of a `Stage`.
    model, batch : what it learns from what.
    key : seeds what is drawn; the cost does not depend on it.

    Examples
    --------
    >>> from ravine.rules import Descend, gradient_descent
    >>> class Lined(eqx.Module):
    ...     def __call__(self, model, batch, *, key):
    ...         return jnp.sum(batch.x @ model), {}
    >>> step_cost(Descend(Lined(), gradient_descent(0.1)), jnp.ones((3, 2)), Row(jnp.ones((5, 3))), key=jr.key(0)).rows
    5
    """
    rule, model = as_arrays(rule), strong(as_arrays(model))
    state = strong(rule.init(model, batch, key=key))
    (moved, held), rest = eqx.partition(((model, state), (rule, batch, key)), eqx.is_array)

    def step(moved: PyTree, held: PyTree, now: Int[Array, ""]) -> PyTree:
        (model, state), (rule, batch, key) = eqx.combine((moved, held), rest)
        return eqx.filter(rule.step(model, state, batch, key=jr.fold_in(key, now), step=now), eqx.is_array)

    def steps(moved: PyTree, held: PyTree, count: Int[Array, ""]) -> PyTree:
        return jax.lax.fori_loop(0, count, lambda i, moved: step(moved, held, i)[:2], moved)

    work = tallied(step, moved, held, jnp.asarray(0))
    # of a single step the compiler would count nothing that fits where the results are to be
    program = jax.jit(steps).lower(moved, held, jnp.asarray(1)).compile()
    return StepCost(work.operations, temporary_bytes(program), rows_in(batch), work.open_loops, work.uncounted)


class Work(NamedTuple):
    """Operations, loops of unknown length, and what was not counted."""

    operations: int = 0
    open_loops: int = 0
    uncounted: tuple[str, ...] = ()

    def __add__(self, other: Work) -> Work:  # pyright: ignore[reportIncompatibleMethodOverride]
        names = tuple(sorted({*self.uncounted, *other.uncounted}))
        return Work(self.operations + other.operations, self.open_loops + other.open_loops, names)

    def times(self, often: int) -> Work:
        """The work of so many rounds."""
        return self._replace(operations=self.operations * often)


def tallied(function: Callable[..., Any], *arguments: Any) -> Work:
    """What a function of arrays does, by the rules of `step_cost`.

    Examples
    --------
    >>> tallied(lambda a, b: jnp.tanh(a @ b), jnp.ones((2, 3)), jnp.ones((3, 5))).operations
    70
    """
    traced = live(jax.make_jaxpr(function)(*arguments))
    return _of(traced.jaxpr, [_number(const) for const in traced.consts], {})


def _of(jaxpr: Any, consts: Sequence[Any], given: dict[Any, Any]) -> Work:
    """The count of a traced function, of some of whose inputs the value is known."""
    known = given | dict(zip(jaxpr.constvars, consts, strict=True))
    total = Work()
    for equation in jaxpr.eqns:
        values = [_value(known, atom) for atom in equation.invars]
        total += _equation(equation, values)
        if equation.primitive.name in KNOWING and None not in values:
            known[equation.outvars[0]] = KNOWING[equation.primitive.name](values)
    return total


KNOWING: dict[str, Callable[[Sequence[Any]], Any]] = {  # what makes a known number of known numbers
    "convert_element_type": lambda values: values[0],
    "clamp": lambda values: min(max(values[1], values[0]), values[2]),
}


def _value(known: dict[Any, Any], atom: Any) -> Any:
    """The number an input is, where it is known."""
    return _number(atom.val) if hasattr(atom, "val") else known.get(atom)


def _number(value: Any) -> Any:
    """The value of a single number; None of anything else."""
    kind = getattr(value, "dtype", type(value))
    plain = np.size(value) == 1 and not jnp.issubdtype(kind, jax.dtypes.extended)
    return np.asarray(value).reshape(()).item() if plain else None


def _equation(equation: Any, values: Sequence[Any]) -> Work:
    name, params = equation.primitive.name, equation.params
    if name in INNER:
        return INNER[name](params, values)
    made = 0 if name in FREE else COUNTS[name](equation) if name in COUNTS else None
    if made is not None:
        return Work(made if _real(equation) else 0)
    parts = () if name in OPAQUE else _inner(params)
    if parts:
        return sum((_closed(part, values) for part in parts), Work())
    return Work(uncounted=(name,)) if _real(equation) else Work()


def _real(equation: Any) -> bool:
    """Whether an equation is about floating-point numbers: by its result, or its argument where that is a place."""
    places = equation.primitive.name in ("argmax", "argmin")
    kinds = [getattr(atom.aval, "dtype", bool) for atom in (equation.invars if places else equation.outvars)]
    return any(jnp.issubdtype(kind, jnp.inexact) for kind in kinds)


# --- the operations of one equation


def _each(equation: Any) -> int:
    return equation.outvars[0].aval.size


def _fold(equation: Any) -> int:
    return equation.invars[0].aval.size - equation.outvars[0].aval.size


def _running(equation: Any) -> int:
    aval = equation.invars[0].aval
    return aval.size - aval.size // aval.shape[equation.params["axis"]]


def _product(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)


def _convolution(equation: Any) -> int:
    """Twice the products of a cell of the kernel with one that is there."""
    left, right, out = (atom.aval.shape for atom in (*equation.invars, *equation.outvars))
    numbers, params = equation.params["dimension_numbers"], equation.params
    batch, feature, *to = numbers.out_spec
    _, inputs, *kernel = numbers.rhs_spec
    _, _, *sides = numbers.lhs_spec
    taps = 1
    for i, (a, b, c) in enumerate(zip(sides, kernel, to, strict=True)):
        spread, gap = params["lhs_dilation"][i], params["rhs_dilation"][i]
        at = np.arange(out[c])[:, None] * params["window_strides"][i] + gap * np.arange(right[b])
        at = at - params["padding"][i][0]
        taps *= int(np.sum((at >= 0) & (at <= (left[a] - 1) * spread) & (at % spread == 0)))
    return 2 * out[batch] * out[feature] * right[inputs] * taps


def _added(equation: Any) -> int:
    return equation.invars[2].aval.size


def _window(equation: Any) -> int:
    return equation.outvars[0].aval.size * (math.prod(equation.params["window_dimensions"]) - 1)


def _cholesky(equation: Any) -> int:
    out = equation.outvars[0].aval
    return out.size * out.shape[-1] // 3


def _triangular(equation: Any) -> int:
    return equation.outvars[0].aval.size * equation.invars[0].aval.shape[-1]


COUNTS: dict[str, Callable[[Any], int]] = {
    **dict.fromkeys(EACH.split(), _each),
    **dict.fromkeys(("argmax", "argmin", "reduce_max", "reduce_min", "reduce_prod", "reduce_sum"), _fold),
    **dict.fromkeys(("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum"), _running),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min", "reduce_window_sum"), _window),
    **dict.fromkeys(("scatter-add", "scatter-mul", "scatter-sub", "scatter_add", "scatter_mul", "scatter_sub"), _added),
    "cholesky": _cholesky,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "triangular_solve": _triangular,
}
OPAQUE = ("reduce", "reduce_window", "select_and_scatter_add", "sort")  # their inner functions are of single numbers


# --- what has others inside


def _inner(params: dict[str, Any]) -> list[Any]:
    """The traced functions among the parameters of an equation."""
    leaves = jax.tree.leaves(list(params.values()), is_leaf=lambda part: hasattr(part, "eqns"))
    return [leaf for leaf in leaves if hasattr(leaf, "eqns")]


def _closed(part: Any, values: Sequence[Any]) -> Work:
    """The count of an inner function, closed or open, called with these values."""
    inside, consts = getattr(part, "jaxpr", part), [_number(const) for const in getattr(part, "consts", ())]
    alike = len(inside.invars) == len(values)
    return _of(inside, consts, dict(zip(inside.invars, values, strict=True)) if alike else {})


def _scan(params: dict[str, Any], values: Sequence[Any]) -> Work:
    """What is carried changes: only what stays the same is known inside."""
    held = list(values[: params["num_consts"]])
    rest = len(params["jaxpr"].jaxpr.invars) - len(held)
    return _closed(params["jaxpr"], held + [None] * rest).times(params["length"])


def _while(params: dict[str, Any], values: Sequence[Any]) -> Work:
    asks, goes = params["cond_nconsts"], params["body_nconsts"]
    ask, go, carried = list(values[:asks]), list(values[asks : asks + goes]), list(values[asks + goes :])
    steady = _steady(params["body_jaxpr"].jaxpr, goes, carried)
    again = _trips(params, ask, go, carried, steady)
    each = _closed(params["body_jaxpr"], go + steady) + _closed(params["cond_jaxpr"], ask + steady)
    return each + Work(open_loops=1) if again is None else each.times(again)


def _steady(body: Any, held: int, carried: Sequence[Any]) -> list[Any]:
    """What is carried through a loop and never changed, where it is known."""
    pairs = zip(body.invars[held:], body.outvars, carried, strict=True)
    return [value if before is after else None for before, after, value in pairs]


def _trips(
    params: dict[str, Any], ask: Sequence[Any], go: Sequence[Any], carried: Sequence[Any], steady: Sequence[Any]
) -> int | None:
    """How often a loop runs that counts up from a known number to another; None where it is no such loop."""
    question, body = params["cond_jaxpr"].jaxpr, params["body_jaxpr"].jaxpr
    if len(question.eqns) != 1 or question.eqns[0].primitive.name not in ("lt", "le"):
        return None
    known = dict(zip(question.invars, [*ask, *steady], strict=True))
    counter, limit = question.eqns[0].invars
    place = _place(question.invars[len(ask) :], counter)
    end = _value(known, limit)
    if place is None:
        return None
    start, by = carried[place], _increment(body, len(go), place, go)
    if not all(isinstance(n, int) for n in (start, end, by)) or by < 1:
        return None
    return max(0, math.ceil((end - start + (question.eqns[0].primitive.name == "le")) / by))


def _place(variables: Sequence[Any], one: Any) -> int | None:
    return next((i for i, variable in enumerate(variables) if variable is one), None)


def _increment(body: Any, held: int, place: int, go: Sequence[Any]) -> Any:
    """By how much a round of a loop raises its counter, where that is known."""
    known = dict(zip(body.invars[:held], go, strict=True))
    for equation in body.eqns:
        if equation.outvars[0] is body.outvars[place] and equation.primitive.name == "add":
            one, other = equation.invars
            one, other = (other, one) if other is body.invars[held + place] else (one, other)
            return _value(known, other) if one is body.invars[held + place] else None
    return None


def _branches(params: dict[str, Any], values: Sequence[Any]) -> Work:
    """The branch that is taken, where that is known, else the dearest."""
    branches, which = params["branches"], values[0]
    if which is not None:
        return _closed(branches[int(np.clip(which, 0, len(branches) - 1))], values[1:])
    return max((_closed(branch, values[1:]) for branch in branches), key=lambda count: count.operations)


INNER: dict[str, Callable[[dict[str, Any], Sequence[Any]], Work]] = {
    "cond": _branches,
    "scan": _scan,
    "while": _while,
}
