"""Nets: a table of them times what every net must do; then what only some do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from ravine.nets import MLP, ConvDecoder, ConvEncoder, ConvReader, ResMLP, reader, writer
from ravine.nets.conv import Doubling, Halving

KEY = jr.key(20260101)
NETS = {  # how to make it, shape of its input, number of outputs
    "mlp": (lambda **form: MLP(6, 5, hidden=(8, 7), **form), (2, 3), 5),
    "affine": (lambda **form: MLP(6, 5, hidden=(), **form), (6,), 5),
    "res-mlp": (lambda **form: ResMLP(6, 5, width=8, blocks=2, **form), (6,), 5),
    "res-mlp-flat": (lambda **form: ResMLP(6, 5, width=8, blocks=0, **form), (6,), 5),
    "encoder": (lambda **form: ConvEncoder((8, 8), 5, channels=(3, 4), **form), (8, 8), 5),
    "encoder-odd-sides-colour": (lambda **form: ConvEncoder((7, 5, 3), 5, channels=(2, 3, 4), **form), (7, 5, 3), 5),
    "decoder": (lambda **form: ConvDecoder(6, (8, 8), 64, channels=(3, 4), **form), (6,), 64),
    "decoder-odd-sides-colour": (lambda **form: ConvDecoder(6, (7, 5, 3), 210, channels=(2, 3), **form), (2, 3), 210),
    "reader": (lambda **form: ConvReader(2, 34, 5, (4, 4), (3, 2), (6, 4), **form), (34,), 5),
    "reader-no-numbers": (lambda **form: reader(30, 5, (6,), jnp.tanh, (5, 2, 3), (2,), **form), (5, 6), 5),
    "writer": (lambda **form: writer(6, 60, (5, 4), jnp.tanh, (5, 2, 3), (2, 3), **form), (6,), 60),
    "decoder-one-level": (lambda **form: ConvDecoder(6, (3, 4), 12, channels=(2,), **form), (6,), 12),
}
FEW = ("mlp", "res-mlp", "encoder", "decoder-odd-sides-colour", "reader", "writer")  # the others by `make test-all`
MARKED = [pytest.param(*net, id=name, marks=() if name in FEW else pytest.mark.slow) for name, net in NETS.items()]
NET = pytest.mark.parametrize(("make", "shape", "outputs"), MARKED)


@NET
def test_one_input_of_any_shape_gives_one_vector(make, shape, outputs):
    net = eqx.filter_jit(make(key=KEY))
    x = jr.normal(KEY, shape)
    got = net(x)
    assert got.shape == (outputs,)
    assert np.array_equal(net(x.ravel()), got)
    assert np.std(got) > 0


@NET
def test_batches_come_by_vmap(make, shape, outputs):
    net, xs = make(key=KEY), jr.normal(KEY, (3, *shape))
    together = jax.jit(lambda net, xs: jax.vmap(net)(xs))(net, xs)
    alone = eqx.filter_jit(net)
    for i in range(3):
        np.testing.assert_allclose(together[i], alone(xs[i]), rtol=1e-5, atol=1e-6)


@NET
def test_weights_are_glorot_uniform_and_biases_zero(make, shape, outputs):
    """Glorot and Bengio 2010, equation 16: weights fill (-b, b), b = sqrt(6 / (fan in + fan out))."""
    layers = [n for n in jax.tree.leaves(make(key=KEY), is_leaf=is_layer) if is_layer(n)]
    for layer in layers:
        weight = np.asarray(layer.weight)
        bound = np.sqrt(6 / (sum(weight.shape[:2]) * np.prod(weight.shape[2:])))
        assert np.max(np.abs(weight)) < bound
        # the largest of n uniform numbers is below 1 - 14 / n with probability exp(-14), about 1e-6
        assert np.max(np.abs(weight)) > bound * (1 - 14 / weight.size)
        assert abs(np.mean(weight)) < 4.5 * bound / np.sqrt(3 * weight.size)
        assert layer.bias is None or not np.any(layer.bias)


def is_layer(node):
    return isinstance(node, eqx.nn.Linear | eqx.nn.Conv | eqx.nn.ConvTranspose)


def test_layers_do_not_share_their_weights():
    first, second = MLP(4, 4, hidden=(4,), key=KEY).layers
    assert not np.any(first.weight == second.weight)
    assert not np.any(first.weight == MLP(4, 4, hidden=(4,), key=jr.key(1)).layers[0].weight)


@NET
def test_an_output_bias_is_where_the_net_starts(make, shape, outputs):
    bias = jnp.linspace(-3, 3, outputs)
    with_it, without = make(key=KEY, bias=bias), make(key=KEY)
    x = jr.normal(KEY, shape)
    np.testing.assert_allclose(with_it(x) - without(x), bias, atol=1e-5)
    assert sum(np.array_equal(leaf, bias) for leaf in jax.tree.leaves(with_it)) == 1


@NET
def test_what_does_not_fit_is_refused(make, shape, outputs):
    with pytest.raises(ValueError, match="takes .* numbers, got shape"):
        make(key=KEY)(jnp.zeros((2, *shape)))
    with pytest.raises(ValueError, match=rf"bias must have shape \({outputs},\)"):
        make(key=KEY, bias=jnp.zeros(outputs + 1))


@NET
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters_have_the_default_type(make, shape, outputs, dtype):
    with jax.enable_x64(dtype == "float64"):
        net = jax.eval_shape(lambda: make(key=KEY, bias=jnp.zeros(outputs, "float32")))
        got = jax.eval_shape(lambda net, x: net(x), net, jnp.zeros(shape))
    assert {leaf.dtype.name for leaf in jax.tree.leaves((net, got))} == {dtype}


@NET
def test_nets_of_one_form_trace_once(make, shape, outputs):
    traces = []
    run = eqx.filter_jit(lambda net, x: traces.append(0) or net(x))
    first, second = make(key=KEY), make(key=jr.key(1), bias=jnp.ones(outputs))
    run(first, jnp.zeros(shape)), run(second, jnp.zeros(shape))
    assert len(traces) == 1
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert all(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(first))


@NET
def test_every_parameter_learns(make, shape, outputs):
    x, target = jr.normal(KEY, shape), jr.normal(jr.key(1), (outputs,))
    slope = jax.jit(jax.grad(lambda net: jnp.sum((net(x) - target) ** 2)))(make(key=KEY))
    for leaf in jax.tree.leaves(slope):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)


def test_the_activation_is_the_one_given(x64):
    net = MLP(3, 2, hidden=(4,), activation=jnp.sin, key=KEY)
    first, last = net.layers
    x = jnp.arange(3.0)
    np.testing.assert_allclose(net(x), last.weight @ jnp.sin(first.weight @ x), rtol=1e-12)


def test_a_deep_residual_net_passes_its_gradient():
    net = ResMLP(4, 4, width=16, blocks=12, key=KEY)
    slope = jax.jit(jax.jacobian(net))(jnp.ones(4))
    assert 0.1 < np.linalg.norm(slope) < 100


def test_an_encoder_sees_the_image_where_it_is():
    """Shifting an image by one stride shifts the first maps by one cell."""
    conv = ConvEncoder((8, 8), 1, channels=(3,), key=KEY).layers[0]
    image = jnp.zeros((1, 8, 8)).at[0, 2, 4].set(1)
    np.testing.assert_allclose(conv(jnp.roll(image, 2, 1))[:, 1:], conv(image)[:, :-1], atol=1e-6)


def test_an_encoder_reads_rows_columns_and_channels():
    net, image = ConvEncoder((4, 5, 3), 2, channels=(2,), key=KEY), jr.normal(KEY, (4, 5, 3))
    want = net.leave(jax.nn.silu(net.layers[0](image.transpose(2, 0, 1))).ravel())
    np.testing.assert_allclose(net(image), want, rtol=1e-5)


def test_a_reader_sees_the_numbers_before_the_image_and_planes_beside_each_other():
    net, x = ConvReader(2, 14, 3, (2, 3), (4,), (5,), key=KEY), jr.normal(KEY, (14,))
    values, mask = x[2:8].reshape(2, 3), x[8:].reshape(2, 3)
    seen = jnp.tanh(net.conv(jnp.stack([values, mask], axis=-1)))
    np.testing.assert_allclose(net(x), net.rest(jnp.concatenate([x[:2], seen])), rtol=1e-5)


def test_a_decoder_writes_first_numbers_first_and_cells_in_the_image_s_order():
    """With all weights 0 but the last layer's bias, each output is its own bias; the order is (number, *shape)."""
    net = ConvDecoder(2, (4, 6, 3), 144, channels=(2,), key=KEY)
    maps = jnp.arange(6.0)[:, None, None] + jnp.zeros((6, 4, 6))
    flat = eqx.tree_at(lambda n: n.layers, net, (lambda h: maps,))
    want = np.broadcast_to(np.arange(6).reshape(2, 1, 1, 3), (2, 4, 6, 3))
    assert np.array_equal(flat(jnp.zeros(2)).reshape(2, 4, 6, 3), want)


@pytest.mark.parametrize("sides", [(8, 8), (7, 5), (1, 2), (6, 9)])
def test_products_of_matrices_are_convolutions(sides):
    """What runs on a CPU, and what runs elsewhere; values and slopes."""
    weight, small = jr.normal(KEY, (4, 3, 3, 3)), tuple(-(-n // 2) for n in sides)
    for layer, image in ((Halving.of(weight), (3, *sides)), (Doubling.of(weight, sides, biased=True), (3, *small))):
        layer = eqx.tree_at(lambda one: one.conv.bias, layer, jnp.arange(4.0)[:, None, None])
        x = jr.normal(jr.key(1), image)
        one, other = (
            jax.jit(jax.value_and_grad(lambda at, f=f: jnp.sum(f(at[0])(at[1]) ** 2)))((layer, x))
            for f in (lambda layer: layer.products, lambda layer: layer.conv)
        )
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)
        assert layer(x).shape == (4, *(sides if len(small) and image[1:] == small else small))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ConvEncoder((8,), 2, key=KEY), "an image has shape"),
        (lambda: ConvDecoder(2, (8, 8, 1, 1), 64, key=KEY), "an image has shape"),
        (lambda: ConvDecoder(2, (8, 8), 65, key=KEY), "multiple of the 64 cells"),
        (lambda: ConvDecoder(2, (8, 8), 64, channels=(), key=KEY), "channels not empty"),
        (lambda: reader(4, 2, (3,), jnp.tanh, None, (2,), key=KEY), "channels: expected rows that are images"),
        (lambda: writer(4, 2, (), jnp.tanh, (2, 1), (2,), key=KEY), "hidden: expected one width at least"),
    ],
)
def test_shapes_that_are_no_images_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
