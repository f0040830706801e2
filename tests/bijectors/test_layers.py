"""Layers against closed forms and hand-computed numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import nets, scalars

KEY = jax.random.key(0)


# hand-computed: 4 x 4 image 0 .. 15, the block at the top left is 0 1 / 4 5
@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("channel_major", [0, 1, 4, 5]),
        ("block_major", [0, 1, 4, 5]),
        ("diagonal", [0, 5, 1, 4]),
    ],
)
def test_squeeze_orders_of_one_channel(order, expected):
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    z, log_det = jflow.squeeze(order=order).forward((), x)
    assert z.shape == (1, 2, 2, 4) and log_det == 0
    np.testing.assert_array_equal(z[0, 0, 0], expected)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("channel_major", [0, 2, 4, 6, 1, 3, 5, 7]),
        ("block_major", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("diagonal", [0, 1, 6, 7, 2, 3, 4, 5]),
    ],
)
def test_squeeze_orders_of_two_channels(order, expected):
    x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    np.testing.assert_array_equal(
        jflow.squeeze(order=order).forward((), x)[0].ravel(), expected
    )


def test_glows_scale_by_hand():
    """(x + t) sigmoid(u + 2): at u = 0, 0.880797; at u = -2, one half."""
    law = scalars.affine("sigmoid", shift_first=True)
    raw = jnp.array([[0.5, 0.0], [0.5, -2.0]])
    y, log_derivative = law.forward(raw, jnp.array([1.0, 1.0]))
    np.testing.assert_allclose(y, [1.5 * 0.8807970779778823, 0.75], rtol=1e-6)
    np.testing.assert_allclose(log_derivative, [-0.12692801104297, -np.log(2)], 1e-6)


@pytest.mark.parametrize(
    ("name", "u", "log_scale"),
    [
        ("soft_clip", 2.0, 2.0 / (1.0 + 2.0 / np.log(1000.0))),
        ("exp", -1.5, -1.5),
        ("sigmoid", 0.0, -0.126928011042972),
        ("softplus", 0.0, 0.0),
        ("softplus", -40.0, -40.0 + np.log(np.e - 1)),
        ("atan", 1.0, 1.0),
    ],
)
def test_scale_maps_by_hand(name, u, log_scale):
    _, got = scalars.multiplicative(name).forward(jnp.array([[u]]), jnp.ones(1))
    np.testing.assert_allclose(got, [log_scale], rtol=2e-6, atol=1e-7)


def test_the_learned_factor_of_tanh_is_the_last_raw_parameter():
    _, got = scalars.multiplicative("tanh").forward(
        jnp.array([[0.7, 2.0]]), jnp.ones(1)
    )
    np.testing.assert_allclose(got, 2.0 * np.tanh(0.7), rtol=1e-6)


def test_checkerboard_leaves_odd_places_alone_and_moves_the_others():
    def net(out_features):
        class Ones:
            def init(self, key, x, condition=None):
                return ()

            def apply(self, params, x, condition=None):
                return jnp.ones((*x.shape[:-1], out_features))

        return Ones()

    x = jnp.zeros((1, 3, 4, 1))
    odd = np.indices((3, 4)).sum(0) % 2
    for swap in (False, True):
        b = jflow.coupling(scalars.shift(), net, "checkerboard", swap=swap)
        z, _ = b.forward(b.init(KEY, x), x)
        np.testing.assert_array_equal(z[0, ..., 0], odd if swap else 1 - odd)


def test_coupling_asks_its_network_only_for_the_active_part():
    asked = []

    def net(out_features):
        asked.append(out_features)
        return nets.mlp(4)(out_features)

    jflow.coupling(scalars.affine(), net).init(KEY, jnp.ones((2, 10)))
    jflow.coupling(scalars.affine("tanh"), net).init(KEY, jnp.ones((2, 10)))
    assert set(asked) == {10}  # 5 active coordinates, 2 predicted numbers each


def test_whitening_is_the_maximum_likelihood_gaussian():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)) + 3.0
    mean, covariance = x.mean(0), np.cov(x.T, bias=True)
    with jax.enable_x64(True):
        centred = x - mean
        quadratic = (centred @ np.linalg.inv(covariance) * centred).sum(1)
        constant = np.linalg.slogdet(2 * np.pi * covariance)[1]
        expected = -0.5 * (quadratic + constant)
        layers = [jflow.whitening(k, epsilon=0.0) for k in ("cholesky", "zca", "pca")]
        for layer in [*layers, jflow.triangular_affine(epsilon=0.0)]:
            f = jflow.flow(layer, jflow.normal((4,)))
            params = f.init(KEY, jnp.asarray(x))
            np.testing.assert_allclose(f.log_prob(params, x), expected, rtol=1e-9)
            z = f.encode(params, x)
            np.testing.assert_allclose(np.cov(z.T, bias=True), np.eye(4), atol=1e-9)
        zca = layers[1].init(KEY, jnp.asarray(x))["fixed"]["w"]
        np.testing.assert_allclose(zca, zca.T, atol=1e-10)


def test_batch_norm_tracks_the_batch_by_its_gradient():
    b = jflow.batch_norm()
    x = 2.0 + 3.0 * jax.random.normal(KEY, (50, 2))
    params = b.init(KEY, jnp.zeros((4, 2)))  # mean 0, variance 1
    for scale in (1.0, 1e-3):  # whatever the loss

        def loss(params, scale=scale):
            return scale * b.forward(params, x)[1].mean()

        grads = jax.grad(loss)(params)["statistics"]
        np.testing.assert_allclose(grads["mean"], -x.mean(0), rtol=1e-5)
        np.testing.assert_allclose(grads["variance"], 1.0 - x.var(0), rtol=1e-5)


def test_batch_norm_by_the_batch_normalises_it_and_shares_params():
    x = 2.0 + 3.0 * jax.random.normal(KEY, (50, 2))
    running, batch = jflow.batch_norm(), jflow.batch_norm("batch")
    params = running.init(KEY, jax.random.normal(KEY, (50, 2)))
    z, log_det = batch.forward(params, x)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(z.var(0), 1, atol=1e-3)
    np.testing.assert_allclose(log_det, -0.5 * np.log(x.var(0) + 1e-4).sum(), rtol=1e-5)
    fresh = running.init(KEY, x)
    np.testing.assert_allclose(running.forward(fresh, x)[0], z, atol=1e-4)
    # gradients flow through the batch's moments: shifting x leaves z as it is
    slope = jax.grad(lambda c: batch.forward(params, x + c)[0][0, 0])(0.0)
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_dequantize_stays_in_its_bin_and_counts_its_log_det():
    x = jnp.tile(jnp.arange(256), 400).reshape(-1, 256)
    b = jflow.dequantize(8)
    z, log_det = b.forward((), x, key=KEY)
    assert z.min() >= 0 and z.max() < 1
    np.testing.assert_array_equal(b.inverse((), z)[0], x)
    np.testing.assert_allclose(log_det, -256 * np.log(256), rtol=1e-6)
    assert abs(float((z * 256 - x).mean()) - 0.5) < 0.01
    with pytest.raises(ValueError, match="key"):
        b.forward((), x)


def test_the_uniform_density_has_as_many_bits_per_dim_as_the_integers():
    uniform = jflow.Bijector(
        lambda key, x, condition=None: (),
        *[lambda p, x, condition=None, key=None: (x, jnp.zeros(len(x)))] * 2,
    )
    x = jnp.arange(32).reshape(2, 4, 4, 1)
    _, log_det = jflow.chain(jflow.dequantize(5), uniform).forward(((), ()), x, key=KEY)
    np.testing.assert_allclose(jflow.bits_per_dim(log_det, (4, 4, 1)), 5.0, rtol=1e-6)


def test_outside_its_support_a_logit_gives_minus_infinity_and_finite_gradients():
    f = jflow.flow(jflow.logit(0.05), jflow.normal((1,)))
    x = jnp.array([[-0.1], [0.5], [1.1], [1e30]])
    log_prob = f.log_prob(f.init(KEY, x[1:2]), x)
    np.testing.assert_array_equal(np.isneginf(log_prob), [True, False, True, True])
    grads = jax.grad(lambda x: f.log_prob({"bijector": (), "base": ()}, x)[1])(x)
    assert np.isfinite(grads).all()


def test_training_noise_needs_a_key_to_act():
    b = jflow.training_noise(-0.01, 0.0)
    x = jnp.full((100, 3), 0.5)
    np.testing.assert_array_equal(b.forward((), x)[0], x)
    noise = b.forward((), x, key=KEY)[0] - x
    assert noise.min() >= -0.0101 and noise.max() <= 0 and noise.std() > 0.002


def test_constant_channels_keep_their_scale():
    x = jnp.stack([jnp.full(8, 3.0), jnp.arange(8.0)], axis=1)
    for b in (jflow.actnorm(), jflow.batch_norm()):
        z, _ = b.forward(b.init(KEY, x), x)
        np.testing.assert_allclose(z[:, 0], 0, atol=1e-6)
        assert np.isfinite(z).all()
