"""What a step costs: counts against sums done by hand, and memory that a program cannot do without."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jax import lax

from ravine.core import Row
from ravine.diagnose import StepCost, step_cost
from ravine.diagnose.cost import Work, tallied
from ravine.nets import MLP
from ravine.rules import Best, Descend, Guarded, Optimiser, gradient_descent


def ones(*shape: int) -> jax.Array:
    return jnp.ones(shape)


def operations(function: Any, *arguments: Any) -> float:
    found = tallied(function, *arguments)
    assert found.open_loops == 0 and found.uncounted == ()
    return found.operations


# --- single operations


@pytest.mark.parametrize(
    "function, arguments, expected",
    [
        (jnp.matmul, (ones(7, 5), ones(5, 3)), 2 * 7 * 5 * 3),
        (jnp.matmul, (ones(4, 7, 5), ones(4, 5, 3)), 4 * 2 * 7 * 5 * 3),
        (jnp.dot, (ones(5), ones(5)), 2 * 5),
        (lambda a, b: jnp.einsum("ijk,jkl->il", a, b), (ones(2, 3, 4), ones(3, 4, 5)), 2 * 2 * 5 * 12),
        (lambda a: jnp.tanh(a) * 2 + jnp.exp(a), (ones(2, 3),), 6 * 4),
        (lambda a: jnp.sum(a), (ones(7),), 6),
        (lambda a: jnp.max(a, axis=1), (ones(3, 7),), 3 * 6),
        (lambda a: jnp.argmax(a, axis=1), (ones(3, 7),), 3 * 6),
        (lambda a: jnp.cumsum(a, axis=1), (ones(3, 7),), 3 * 6),
        (lambda a: a.at[jnp.array([1, 2, 2])].add(ones(3, 4)), (ones(5, 4),), 12),
        (lambda a: a.at[jnp.array([1, 2, 2])].set(ones(3, 4)), (ones(5, 4),), 0),
        (lambda a: jnp.where(a > 0, a, 0.0).T[::-1].reshape(-1), (ones(3, 7),), 0),
        (lambda a: a * 3 + 1, (jnp.arange(5),), 0),
        (lambda a: jr.bits(a, (5,)), (jr.key(0),), 0),
        (jax.nn.relu, (ones(5),), 5),
        (jax.nn.silu, (ones(5),), 10),
        (jax.checkpoint(jnp.sin), (ones(5),), 5),
        (jax.vmap(lambda a: jnp.ones((3, 5)) @ a), (ones(4, 5),), 2 * 4 * 3 * 5),
        (lambda a: lax.linalg.cholesky(a, symmetrize_input=False), (jnp.eye(6),), 6**3 // 3),
        (lambda a: lax.linalg.triangular_solve(a, ones(6, 2), left_side=True, lower=True), (jnp.eye(6),), 36 * 2),
        (lambda a: lax.reduce_window(a, -jnp.inf, lax.max, (3,), (2,), "VALID"), (ones(9),), 8),
    ],
)  # fmt: skip
def test_an_operation_counts_as_by_hand(function, arguments, expected):
    assert operations(function, *arguments) == expected


def test_what_nothing_depends_on_is_not_counted():
    def both(a: jax.Array) -> jax.Array:
        unused = a @ a
        _, kept = lax.scan(lambda c, _: (c @ c, jnp.tanh(a)), unused, None, length=3)
        return kept

    assert operations(both, ones(4, 4)) == 3 * 16


def test_what_is_not_known_is_named():
    found = tallied(lambda a: jnp.sort(a) + jnp.linalg.eigvalsh(jnp.outer(a, a)).sum() * 0, ones(5))
    assert {"sort", "eigh"} <= set(found.uncounted)
    assert tallied(jnp.sort, jnp.arange(5)).uncounted == ()
    total = Work(1, 2, ("b",)) + Work(3, 4, ("a", "b"))
    assert total == Work(4, 6, ("a", "b"))


# --- convolutions, against a count of the products that are there


def products(x: tuple[int, ...], w: tuple[int, ...], out: tuple[int, ...], how: Any, groups: int) -> int:
    """Products of a kernel's cell with a real cell of an image, place by place, per row."""
    strides, padding, spread, gap = how
    count = 0
    for at in itertools.product(*map(range, out[2:])):
        for tap in itertools.product(*map(range, w[2:])):
            where = [a * s + t * g - p[0] for a, s, t, g, p in zip(at, strides, tap, gap, padding, strict=True)]
            ends = [(n - 1) * f for n, f in zip(x[2:], spread, strict=True)]
            there = all(0 <= i <= end and i % f == 0 for i, end, f in zip(where, ends, spread, strict=True))
            count += there
    return count * out[0] * out[1] * (x[1] // groups)


CONVOLUTIONS = {
    "plain": (((1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1)), 1),
    "padded": (((1, 1), ((1, 1), (2, 0)), (1, 1), (1, 1)), 1),
    "strided": (((2, 3), ((1, 1), (1, 1)), (1, 1), (1, 1)), 1),
    "transposed": (((1, 1), ((2, 2), (2, 2)), (2, 2), (1, 1)), 1),
    "dilated": (((1, 1), ((0, 0), (0, 0)), (1, 1), (2, 1)), 1),
    "grouped": (((1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1)), 2),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_counts_as_by_hand(name):
    how, groups = CONVOLUTIONS[name]
    x, w = ones(2, 4, 7, 6), ones(6, 4 // groups, 3, 2)
    run = lambda x, w: lax.conv_general_dilated(x, w, *how, feature_group_count=groups)  # noqa: E731
    expected = 2 * products(x.shape, w.shape, run(x, w).shape, how, groups)
    assert operations(run, x, w) == expected > 0
    if name == "plain":
        assert expected == 2 * (2 * 6 * 5 * 5) * (4 * 3 * 2)


def test_both_gradients_of_a_convolution_cost_as_much_as_it():
    """Each product of the forward pass is one of the gradient in the kernel, and one of that in the image."""
    run = lambda x, w: lax.conv_general_dilated(x, w, (2, 2), ((1, 1), (1, 1)))  # noqa: E731
    x, w = ones(2, 4, 8, 8), ones(6, 4, 3, 3)
    forward, seed = operations(run, x, w), jnp.ones_like(run(x, w))
    for i in (0, 1):
        back = lambda x, w, i=i: jax.vjp(run, x, w)[1](seed)[i]  # noqa: E731
        assert operations(back, x, w) == forward


# --- loops and branches


def product(c: jax.Array) -> jax.Array:
    return c @ c


ONE = 2 * 4**3


def jitted(a: jax.Array, lower: Any, upper: Any) -> jax.Array:
    inner = jax.jit(lambda lower, a: lax.fori_loop(lower, jnp.asarray(upper), lambda i, c: product(c), a))
    return inner(lower, a)


@pytest.mark.parametrize(
    "function, times",
    [
        (lambda a: lax.scan(lambda c, _: (product(c), None), a, None, length=7)[0], 7),
        (lambda a: lax.scan(lambda c, x: (product(c), x), a, jnp.arange(6.0))[0], 6),
        (lambda a: lax.fori_loop(0, 5, lambda i, c: product(c), a), 5),
        (lambda a: lax.fori_loop(2, 3, lambda i, c: lax.fori_loop(0, 4, lambda j, d: product(d), c), a), 4),
        (lambda a: lax.fori_loop(3, 3, lambda i, c: product(c), a), 0),
        (lambda a: jitted(a, 0, 5), 5),
        (lambda a: jitted(a, jnp.asarray(2), 5), 3),
        (lambda a: lax.while_loop(lambda c: c[1] < 10, lambda c: (product(c[0]), c[1] + 3), (a, 0))[0], 4),
        (lambda a: lax.while_loop(lambda c: c[1] <= 9, lambda c: (product(c[0]), 3 + c[1]), (a, 0))[0], 4),
        (lambda a: lax.while_loop(lambda c: c[1] < c[2], lambda c: (product(c[0]), c[1] + 1, c[2]), (a, 0, 6))[0], 6),
        (lambda a: lax.cond(jnp.sum(a) > 100, product, lambda a: product(product(a)), a), 2),
        (lambda a: lax.cond(True, product, lambda a: product(product(a)), a), 1),
        (lambda a: lax.switch(1, [lambda a: a, product, lambda a: product(product(a))], a), 1),
    ],
)
def test_a_loop_counts_as_often_as_it_runs(function, times):
    found = tallied(function, ones(4, 4))
    small = 15 if times == 2 else 0  # the sum that chooses the branch
    assert (found.operations, found.open_loops) == (times * ONE + small, 0)


@pytest.mark.parametrize(
    "function",
    [
        lambda a: lax.while_loop(lambda c: jnp.sum(c) < 10, product, a),
        lambda a: lax.while_loop(lambda c: c[1] < 10, lambda c: (product(c[0]), 2 * c[1]), (a, 1))[0],
        lambda a: lax.while_loop(lambda c: c[1] < c[2], lambda c: (product(c[0]), c[1] + 1, c[2] - 1), (a, 0, 6))[0],
        lambda a: lax.while_loop(lambda c: c[1] < 1.0, lambda c: (product(c[0]), c[1] + 0.1), (a, 0.0))[0],
        lambda a: lax.fori_loop(0, jnp.sum(a).astype(int), lambda i, c: product(c), a),
    ],
)
def test_a_loop_of_unknown_length_is_counted_once_and_said_so(function):
    found = tallied(function, ones(4, 4))
    assert found.open_loops == 1 and ONE <= found.operations <= ONE + 16


def test_the_gradient_of_a_loop_goes_through_it_again():
    """Forwards the scan, backwards two products a round."""
    value = lambda a, w: jnp.sum(lax.scan(lambda c, _: (c @ w, None), a, None, length=5)[0])  # noqa: E731
    both = operations(jax.grad(value, (0, 1)), ones(4, 4), ones(4, 4))
    sums = 5 * 16  # of what each round adds to the gradient in w
    assert both == 5 * 3 * ONE + sums


# --- a step


class Squares(eqx.Module):
    """Half the mean squared distance of a net's answer to 0."""

    def __call__(self, model: MLP, batch: Row, *, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        return jnp.sum(jax.vmap(model)(batch.x) ** 2), {}


WIDTHS = (5, 7, 3)


@functools.cache
def net() -> MLP:
    return MLP(WIDTHS[0], WIDTHS[-1], WIDTHS[1:-1], jnp.tanh, key=jr.key(0))


def rows(n: int) -> Row:
    return Row(jr.normal(jr.key(1), (n, WIDTHS[0])))


def loss(batch: Row) -> Any:
    """The loss of a batch as a function of the arrays of the net."""
    rest = eqx.filter(net(), eqx.is_array, inverse=True)
    return lambda arrays: Squares()(eqx.combine(arrays, rest), batch, key=jr.key(0))[0]


def by_hand(n: int) -> tuple[int, int]:
    """Products of matrices of the forward and the backward pass, and all else of both; in floating-point operations."""
    layers = [2 * n * a * b for a, b in itertools.pairwise(WIDTHS)]
    matrices = 3 * sum(layers) - layers[0]
    inner, outer = n * WIDTHS[1], n * WIDTHS[2]
    forward = inner + outer + inner + outer + (outer - 1)  # biases, tanh, squares, their sum
    backward = 2 * outer  # the derivative of a square: 2 h, times what comes from above
    backward += (outer - WIDTHS[2]) + (inner - WIDTHS[1])  # of the biases: sums over rows
    backward += 4 * inner  # with t = tanh and g from above: g (1 - t) + g (1 - t) t
    return matrices, forward + backward


def test_the_gradient_of_a_net_costs_three_forward_passes_less_one_product():
    n = 11
    found = operations(jax.value_and_grad(loss(rows(n))), eqx.filter(net(), eqx.is_array))
    assert found == sum(by_hand(n))


def test_a_step_costs_its_gradient_and_what_moves_the_weights():
    """The norm of the gradient, a rate for each weight and a sum: nothing of that grows with the rows."""
    weights, own = sum(a * b + b for a, b in itertools.pairwise(WIDTHS)), set()
    for n in (11, 64):
        cost = step_cost(Descend(Squares(), gradient_descent(0.1)), net(), rows(n), key=jr.key(0))
        own.add(cost.operations - sum(by_hand(n)))
        assert cost.rows == n and cost.open_loops == 0 and cost.uncounted == ()
        assert cost.operations_per_row == cost.operations / n and cost.bytes_per_row == cost.bytes / n
    assert len(own) == 1 and 4 * weights <= own.pop() <= 8 * weights


def test_what_is_done_once_a_step_does_not_grow_with_the_rows():
    rule = Descend(Squares(), Optimiser(optax.adam, (1e-3,)))
    one, two, four = (step_cost(rule, net(), rows(n), key=jr.key(0)).operations for n in (10, 20, 40))
    assert 2 * (two - one) == four - two > 0
    assert two - one == sum(by_hand(20)) - sum(by_hand(10))


def test_rules_around_a_rule_are_counted_too():
    """Looking at held-out rows seems to happen at each step; to undo a step needs another look at all weights."""
    inner = Descend(Squares(), gradient_descent(0.1))
    plain, guarded = (step_cost(rule, net(), rows(10), key=jr.key(0)) for rule in (inner, Guarded(inner)))
    watched = step_cost(Best(inner, Squares(), rows(30), 5, 10), net(), rows(10), key=jr.key(0))
    look = operations(loss(rows(30)), eqx.filter(net(), eqx.is_array))
    assert plain.operations < guarded.operations < plain.operations + 10 * 66
    assert watched.operations - plain.operations == pytest.approx(look, abs=30)


def test_memory_holds_what_the_backward_pass_needs():
    """The hidden layer of every row at least; twice the rows need about twice as much.

    Of a single program the compiler lays what fits where the results are to be, and does not count it.
    """
    wide = MLP(8, 1, (512,), jnp.tanh, key=jr.key(0))
    rule = Descend(Squares(), gradient_descent(0.1))
    one, two = (step_cost(rule, wide, Row(ones(n, 8)), key=jr.key(0)) for n in (500, 1000))
    assert one.bytes >= 4 * 500 * 512 and 1.5 * one.bytes < two.bytes < 2.5 * one.bytes
    assert two.bytes_per_row == pytest.approx(one.bytes_per_row, rel=0.3)


def test_memory_of_a_wide_net_with_few_rows_is_seen_too():
    """Its gradient, and the hidden layer."""
    wide = MLP(300, 300, (200,), jnp.tanh, key=jr.key(0))
    rule = Descend(Squares(), Optimiser(optax.adam, (1e-3,)))
    one, two = (step_cost(rule, wide, Row(ones(n, 300)), key=jr.key(0)) for n in (10, 200))
    assert one.bytes > 4 * 2 * 300 * 200 and two.bytes - one.bytes > 4 * 190 * 200


def test_precision_is_no_matter_of_operations_but_of_memory(x64):
    wide = MLP(8, 1, (512,), jnp.tanh, key=jr.key(0))
    rule = Descend(Squares(), gradient_descent(0.1))
    double = step_cost(rule, wide, Row(ones(500, 8)), key=jr.key(0))
    assert wide.layers[0].weight.dtype == np.float64 and double.bytes >= 8 * 500 * 512
    with jax.enable_x64(False):
        single = step_cost(rule, MLP(8, 1, (512,), jnp.tanh, key=jr.key(0)), Row(ones(500, 8)), key=jr.key(0))
    assert single.operations == double.operations and 1.5 * single.bytes < double.bytes


def test_in_words():
    assert str(StepCost(2000, 512.0, 4)) == "500 operations and 128 bytes per row of 4"
    words = str(StepCost(2000, 512.0, 4, 2, ("eigh",)))
    assert words.endswith("of 4; 2 loops of unknown length counted once; without eigh")
