"""Conditioners against XLA's own convolution, and what they promise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import scramble
from flax import nnx
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

import jflow
from jflow import nets, scalars
from jflow.interop import nnx_net
from jflow.nets.conv import conv2d
from jflow.nets.convnet import Conv, Whiten

KEY = jax.random.key(0)


def _xla(x, kernel):
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dims)


def test_relu_and_its_derivatives_are_jaxs():
    x = jnp.array([-jnp.inf, -1.5, -0.0, 0.0, 2.0, jnp.inf, jnp.nan])
    out, ours = jax.jit(lambda x: jax.jvp(nets.relu, (x,), (3.0 + x * 0.0,)))(x)
    np.testing.assert_array_equal(out, jax.nn.relu(x))
    for grad in (jax.grad, lambda f: jax.jacfwd(jax.grad(f))):
        np.testing.assert_array_equal(
            jax.vmap(grad(lambda x: nets.relu(x) ** 2))(x[1:-2]),
            jax.vmap(grad(lambda x: jax.nn.relu(x) ** 2))(x[1:-2]),
        )
    np.testing.assert_array_equal(ours[1:5], [0.0, 0.0, 0.0, 3.0])


@pytest.mark.parametrize("order", [1, 2])
def test_the_derivatives_of_glows_hidden_layers_are_their_formulas(order):
    """`max((h + bias) exp(3 log_scale), 0)`, by differences of float64 numbers."""
    with jax.enable_x64(True):
        keys = jax.random.split(KEY, 4)
        layer, h = Whiten(3.0), jax.random.normal(keys[0], (2, 3, 3, 4))
        params = {"bias": 0.3 * jax.random.normal(keys[1], (4,))}
        params["log_scale"] = 0.3 * jax.random.normal(keys[2], (4,))

        def ours(params, h):
            return (layer.apply({"params": params}, h) ** 3).sum()

        def formula(params, h):
            scale = jnp.exp(3.0 * params["log_scale"])
            return (jnp.maximum((h + params["bias"]) * scale, 0.0) ** 3).sum()

        np.testing.assert_allclose(ours(params, h), formula(params, h), rtol=1e-12)
        check_grads(ours, (params, h), order, modes=["fwd", "rev"], rtol=1e-5)


@pytest.mark.parametrize("channels", [(3, 3), (1, 4), (8, 2)])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_filter_gradients_are_xlas(size, channels):
    x = jax.random.normal(KEY, (2, 5, 6, channels[0]))
    kernel = jax.random.normal(KEY, (size, size, *channels))

    def grad(conv):
        return jax.jit(jax.grad(lambda k: (conv(x, k) ** 2).sum()))(kernel)

    np.testing.assert_allclose(grad(conv2d), grad(_xla), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("scanned", [False, True])
def test_conv2d_and_its_derivatives_are_xlas(size, scanned):
    x = jax.random.normal(KEY, (2, 5, 6, 3))
    kernels = 0.3 * jax.random.normal(jax.random.key(1), (2, size, size, 3, 3))

    def total(conv, x, kernels):
        if scanned:
            y, _ = lax.scan(lambda x, k: (jnp.tanh(conv(x, k)), None), x, kernels)
        else:
            y = jnp.tanh(conv(jnp.tanh(conv(x, kernels[0])), kernels[1]))
        return (y**2).sum()

    got, expected = (
        jax.jit(jax.value_and_grad(lambda x, k, c=c: total(c, x, k), (0, 1)))(
            x, kernels
        )
        for c in (conv2d, _xla)
    )
    for a, e in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels, features", [(3, 32), (32, 3), (8, 8)])
def test_conv2d_in_shard_map_sums_the_shared_kernels_gradient(channels, features):
    x = jax.random.normal(KEY, (4, 5, 6, channels))
    kernel = jax.random.normal(KEY, (3, 3, channels, features))
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))

    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    @partial(jax.shard_map, mesh=mesh, in_specs=(P("data"), P()), out_specs=P())
    def divided(x, kernel):
        return lax.psum((conv2d(x, kernel) ** 2).sum(), "data")

    whole = jax.grad(lambda x, k: (_xla(x, k) ** 2).sum(), (0, 1))
    for a, e in zip(divided(x, kernel), whole(x, kernel), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-3)


def test_second_derivatives_of_conv2d():
    x = jax.random.normal(KEY, (1, 3, 3, 1))
    kernel = jax.random.normal(KEY, (3, 3, 1, 1))

    def curvature(conv):
        inner = jax.grad(lambda x: (conv(x, kernel) ** 3).sum())
        return jax.grad(lambda x: (inner(x) ** 2).sum())(x)

    np.testing.assert_allclose(curvature(conv2d), curvature(_xla), rtol=1e-4)


def test_marked_edges_are_an_indicator_channel():
    """As a padded image with one more channel, 1 in the padding and 0 inside."""
    x = jax.random.normal(KEY, (2, 4, 5, 3))
    layer = Conv(2, 3, jax.nn.initializers.normal(1.0), mark_edges=True)
    params = layer.init(KEY, x)["params"]
    params = {**params, "edge": jax.random.normal(KEY, params["edge"].shape)}
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    inside = jnp.pad(
        jnp.zeros((2, 4, 5, 1)), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1
    )
    kernel = jnp.concatenate([params["kernel"], params["edge"]], axis=2)
    expected = lax.conv_general_dilated(
        jnp.concatenate([padded, inside], -1),
        kernel,
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, atol=1e-5)


NETS = {
    "mlp": (nets.mlp(8, 8), (6,)),
    "mlp-tanh": (nets.mlp(8, activation=jnp.tanh), (6,)),
    "mlp-none": (nets.mlp(), (6,)),
    "glow": (nets.glow_net(8), (4, 4, 6)),
    "residual": (nets.residual_net(8, 1), (4, 4, 6)),
    "zero_conv": (nets.zero_conv(), (4, 4, 6)),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_nets_start_at_zero_and_end_in_float32(name, dtype):
    build, shape = NETS[name]
    if dtype is not None:
        makers = {"mlp": lambda: nets.mlp(8, 8, dtype=dtype)}
        makers["glow"] = lambda: nets.glow_net(8, dtype=dtype)
        makers["residual"] = lambda: nets.residual_net(8, 1, dtype=dtype)
        if name not in makers:
            return
        build = makers[name]()
    x = jax.random.normal(KEY, (3, *shape))
    for condition in (None, jnp.ones((3, 2))):
        net = build(4)
        params = jax.jit(net.init)(KEY, x, condition)
        y = jax.jit(net.apply)(params, x, condition)
        assert y.shape == (3, *shape[:-1], 4) and y.dtype == jnp.float32
        assert not y.any()
        assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(params))


@pytest.mark.parametrize("inputs", [1, 4])
def test_units_of_dense_layers_bend_at_places_of_their_own(inputs):
    mlp = nets.mlp(64, 64)(3).init(KEY, jnp.ones((2, inputs)))["params"]
    made = nets.made(64, 64)(inputs, 2).init(KEY, jnp.ones((2, inputs)))["layers"]
    for layers in (list(mlp.values()), made):
        for layer in layers[:-1]:
            places = jnp.sqrt(len(layer["kernel"])) * layer["bias"]
            assert len(set(places.tolist())) == len(places) >= 32
            assert 0.8 < abs(places).max() <= 1 and abs(places.mean()) < 0.3
        assert not layers[-1]["bias"].any(), "a flow starts as the identity"


def test_bfloat16_bodies_keep_inverses():
    law, x = scalars.affine(), jax.random.normal(KEY, (32, 8))
    net = nets.mlp(16, 16, dtype=jnp.bfloat16)
    step = jflow.chain(jflow.coupling(law, net), jflow.reverse())
    b = jflow.repeat(step, 4)
    params = scramble(b.init(KEY, x), KEY, 0.1)
    z, log_det = jax.jit(b.forward)(params, x)
    assert np.abs(z - x).max() > 0.1
    again, back = jax.jit(b.inverse)(params, z)
    np.testing.assert_allclose(again, x, atol=1e-4)
    np.testing.assert_allclose(log_det, -back, atol=1e-4)


def test_relu_output_is_never_negative():
    net = nets.mlp(8, output_activation=jax.nn.relu, zero_last=False)(5)
    x = jax.random.normal(KEY, (20, 3))
    y = net.apply(net.init(KEY, x), x)
    assert (y >= 0).all() and (y > 0).any()


def test_image_conditions_are_averaged_down():
    x = jnp.zeros((2, 4, 4, 2))
    condition = jax.random.normal(KEY, (2, 8, 8, 3))
    build = nets.glow_net(8)
    net = build(2)
    params = net.init(KEY, x, condition)
    means = condition.reshape(2, 4, 2, 4, 2, 3).mean((2, 4))
    np.testing.assert_array_equal(
        net.apply(params, x, condition), net.apply(params, x, means)
    )


@pytest.mark.parametrize("bad", [jnp.zeros(3), jnp.zeros((3, 5, 4, 1)), {"a": 1}])
def test_conditions_that_a_net_cannot_use_are_named(bad):
    with pytest.raises(ValueError, match="condition"):
        nets.glow_net(4)(2).init(KEY, jnp.zeros((3, 4, 4, 1)), bad)


def test_nnx_modules_come_in_through_the_adapter():
    class Net(nnx.Module):
        def __init__(self, rngs, features, out_features):
            self.first = nnx.Linear(features, 8, rngs=rngs)
            self.last = nnx.Linear(8, out_features, rngs=rngs)

        def __call__(self, x, condition=None):
            return self.last(jnp.tanh(self.first(x)))

    b = jflow.repeat(jflow.coupling(scalars.affine(), nnx_net(Net)), 2)
    x = jax.random.normal(KEY, (6, 4))
    params = jax.jit(b.init)(KEY, x)
    z, _ = jax.jit(b.forward)(params, x)
    np.testing.assert_allclose(jax.jit(b.inverse)(params, z)[0], x, atol=1e-5)
    assert all(jnp.issubdtype(a.dtype, jnp.floating) for a in jax.tree.leaves(params))

    class Dropped(Net):
        def __init__(self, rngs, features, out_features):
            super().__init__(rngs, features, out_features)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

    with pytest.raises(ValueError, match="pure function"):
        nnx_net(Dropped)(2).init(KEY, x)
