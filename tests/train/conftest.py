"""A flow small enough to compile in no time, and data that it fits."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jflow.base import normal
from jflow.bijector import Bijector, zero_log_det
from jflow.combinators import chain, repeat
from jflow.flow import flow as make_flow


def scale():
    """z = (x + bias) * exp(log_scale), whitened by its init."""

    def init(key, x, condition=None):
        return {"bias": -x.mean(0), "log_scale": -jnp.log(x.std(0))}

    def log_det(params, x):
        return jnp.broadcast_to(params["log_scale"].sum(), x.shape[:1])

    def forward(params, x, condition=None, key=None):
        z = (x + params["bias"]) * jnp.exp(params["log_scale"])
        return z, log_det(params, x)

    def inverse(params, z, condition=None, key=None):
        x = z * jnp.exp(-params["log_scale"]) - params["bias"]
        return x, -log_det(params, z)

    return Bijector(init, forward, inverse)


def shift():
    """z_1 = x_1, z_2 = x_2 + tanh(x_1 w + c v) . u, the event turned round."""

    def init(key, x, condition=None):
        w, v, u = jax.random.normal(key, (3, 4))
        return {"w": w, "v": v, "u": 0.1 * u}

    def moved(params, first, condition):
        hidden = first * params["w"]
        if condition is not None:
            hidden = hidden + condition * params["v"]
        return jnp.tanh(hidden) @ params["u"][:, None]

    def forward(params, x, condition=None, key=None):
        a, b = x[:, :1], x[:, 1:]
        z = jnp.concatenate([b + moved(params, a, condition), a], axis=1)
        return z, zero_log_det(x)

    def inverse(params, z, condition=None, key=None):
        a, b = z[:, 1:], z[:, :1]
        x = jnp.concatenate([a, b - moved(params, a, condition)], axis=1)
        return x, zero_log_det(x)

    return Bijector(init, forward, inverse)


def toy_flow():
    step = chain(scale(), shift())
    return make_flow(chain(scale(), repeat(step, 2)), normal((2,)))


def toy_data(n=256):
    a, b = np.random.default_rng(0).normal(size=(2, n, 1))
    return np.concatenate([2 + 3 * a, a + 0.5 * b], axis=1).astype(np.float32)


@pytest.fixture(scope="session")
def flow():
    return toy_flow()


@pytest.fixture(scope="session")
def x():
    return toy_data()


@pytest.fixture(scope="session")
def params(flow, x):
    return flow.init(jax.random.key(0), x)


@pytest.fixture
def layers():
    return scale, shift


@pytest.fixture
def same():
    def check(a, b, **tolerance):
        assert jax.tree.structure(a) == jax.tree.structure(b)
        for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            if tolerance:
                np.testing.assert_allclose(one, other, **tolerance)
            else:
                np.testing.assert_array_equal(one, other)

    return check


@pytest.fixture
def heard():
    """SIGINT, which a shell lets its background jobs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
