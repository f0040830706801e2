"""Diagnostics against closed forms and errors that were put there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jflow import diagnostics
from jflow.bijector import Bijector, zero_log_det
from jflow.combinators import chain, invert, remat, repeat

KEY = jax.random.key(3)


def test_bits_per_dim_of_uniform_pixels_is_their_depth():
    # A uniform density over 256 values of each of 28 x 28 x 3 numbers: 8 bits each.
    log_prob = jnp.full(4, -28 * 28 * 3 * np.log(256.0))
    bits = diagnostics.bits_per_dim(log_prob, (28, 28, 3))
    np.testing.assert_allclose(bits, 8.0, rtol=1e-6)
    with pytest.raises(ValueError, match="event's shape"):
        diagnostics.bits_per_dim(log_prob, 28)


def test_effective_sample_size_is_kish_s():
    size, n = diagnostics.effective_sample_size(jnp.full(50, -1e4))
    assert n == 50 and np.isclose(size, 50)
    weights = np.array([1.0, 2.0, 3.0, 0.0])
    log_weights = jnp.array([0.0, np.log(2), np.log(3), -jnp.inf]) + 500
    size, n = diagnostics.effective_sample_size(log_weights)
    np.testing.assert_allclose(size, weights.sum() ** 2 / (weights**2).sum(), rtol=1e-5)
    assert n == 4
    # Importance weights N(0, 1) / N(0, s^2): the limit of ESS / N is known.
    s = 1.5
    z = s * jax.random.normal(KEY, (200_000,))
    log_weights = -0.5 * z**2 + 0.5 * (z / s) ** 2 + np.log(s)
    size, n = diagnostics.effective_sample_size(log_weights)
    np.testing.assert_allclose(size / n, np.sqrt(2 * s**2 - 1) / s**2, rtol=2e-2)
    with pytest.raises(ValueError, match="flatten"):
        diagnostics.effective_sample_size(jnp.zeros((2, 2)))


def test_reconstruction_error_is_the_one_put_there(layers):
    scale, _ = layers

    def off(error, log_det_error):
        def forward(params, x, condition=None, key=None):
            return 2 * x, zero_log_det(x) + 1.0

        def inverse(params, z, condition=None, key=None):
            return z / 2 + error, zero_log_det(z) - 1.0 + log_det_error

        return Bijector(None, forward, inverse)

    x = jnp.array([[1.0, -4.0], [0.5, 2.0]])
    found = diagnostics.reconstruction_error(off(0.25, 0.5), (), x)
    np.testing.assert_allclose(found, (0.25, 0.0625, 0.5), rtol=1e-6)
    found = diagnostics.reconstruction_error(off(jnp.nan, 0.0), (), x)
    assert np.isinf(found.absolute) and found.log_det == 0
    b = repeat(scale(), 3)
    found = diagnostics.reconstruction_error(b, b.init(KEY, x), x)
    assert 0 <= found.absolute < 1e-5 and found.log_det < 1e-5


def break_leaf(params, copy=None):
    """The same parameters with a log-scale whose exponential overflows."""
    value = params["log_scale"]
    value = jnp.full_like(value, 100.0) if copy is None else value.at[copy].set(100.0)
    return params | {"log_scale": value}


def test_first_nonfinite_counts_copies_within_copies(layers):
    scale, shift = layers
    x = jax.random.normal(KEY, (8, 2))
    b = chain(shift(), repeat(chain(repeat(scale(), 3), shift()), 4), invert(scale()))
    params = b.init(KEY, x)
    assert diagnostics.first_nonfinite(b, params, x) is None
    inner, rest = params[1]
    broken = params[0], (break_leaf(inner, (2, 1)), rest), params[2]
    path = "1:repeat > chain copy 2 > 0:repeat > scale copy 1"
    assert diagnostics.first_nonfinite(b, broken, x) == path
    broken = (
        params[0],
        params[1],
        {
            "bias": params[2]["bias"],
            "log_scale": jnp.full(2, -100.0),
        },
    )
    assert diagnostics.first_nonfinite(b, broken, x) == "2:invert > invert(scale)"


def test_first_nonfinite_sees_into_layers_that_are_computed_again(layers):
    scale, shift = layers
    x = jax.random.normal(KEY, (8, 2))
    b = repeat(remat(chain(shift(), scale())), 3)
    first, rest = b.init(KEY, x)
    found = diagnostics.first_nonfinite(b, (first, break_leaf(rest, (1, 0))), x)
    assert found == "remat copy 1 > 1:scale"


def test_first_nonfinite_names_what_it_was_given(layers):
    scale, shift = layers
    x = jax.random.normal(KEY, (8, 2))
    b = chain(scale(), shift())
    params = b.init(KEY, x)
    assert diagnostics.first_nonfinite(b, params, x.at[0, 0].set(jnp.nan)) == "x"
    condition = {"c": jnp.full((8, 1), jnp.inf)}
    found = diagnostics.first_nonfinite(b, params, x, condition)
    assert found == "condition['c']"
    hole = params[0] | {"bias": jnp.array([0.0, jnp.nan])}, params[1]
    assert diagnostics.first_nonfinite(b, hole, x) == "params[0]['bias']"
    alone = scale()
    found = diagnostics.first_nonfinite(alone, break_leaf(params[0]), x)
    assert found == "the bijector itself"
