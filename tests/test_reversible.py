"""Backward by inversion: the same gradients, and memory flat in depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import nets, scalars


def _step():
    law, net = scalars.affine(), nets.mlp(8)
    return jflow.chain(
        jflow.actnorm(),
        jflow.random_permutation(),
        jflow.coupling(law, net),
        jflow.coupling(law, net, swap=True),
    )


BUILDERS = {
    "repeat": lambda **kw: jflow.repeat(_step(), 5, **kw),
    "chain": lambda **kw: jflow.chain(_step(), jflow.reverse(), _step(), **kw),
    "nested": lambda **kw: jflow.repeat(jflow.chain(_step(), _step(), **kw), 2, **kw),
}
OPTIONS = [{}, {"anchor": 1}, {"anchor": 2}, {"anchor": 3}]


@pytest.mark.parametrize("which", ["forward", "inverse"])
@pytest.mark.parametrize("name", BUILDERS)
def test_gradients_equal_plain_ones(name, which):
    x = jax.random.normal(jax.random.key(0), (16, 6))
    condition = {
        "c": jax.random.normal(jax.random.key(1), (16, 3)),
        "label": jnp.arange(16),
    }

    class Pick:
        def init(self, key, condition):
            return jnp.ones(3)

        def apply(self, params, condition):
            return params * condition["c"] + condition["label"][:, None] / 16

    def value(options):
        b = jflow.embed_condition(BUILDERS[name](**options), Pick())

        def loss(params, x, c):
            y, log_det = getattr(b, which)(params, x, {**condition, "c": c})
            return (y**2).mean() + (log_det * jnp.arange(16.0)).mean()

        return b, jax.jit(jax.grad(loss, argnums=(0, 1, 2)))

    b, plain = value({})
    params = jax.jit(b.init)(jax.random.key(2), x, condition)
    params = jax.tree.map(
        lambda a: a + 0.05 * jnp.sin(jnp.arange(a.size)).reshape(a.shape), params
    )
    expected = plain(params, x, condition["c"])
    for options in OPTIONS[:2] if name == "nested" else OPTIONS:
        _, reversible = value({"reversible": True, **options})
        got = reversible(params, x, condition["c"])
        for a, e in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
            np.testing.assert_allclose(a, e, rtol=2e-3, atol=2e-5)


def test_anchors_stop_the_drift():
    """A layer whose inverse is wrong by 1/1000 each time: an anchor starts afresh."""
    scale = jflow.diagonal_scale()

    def inverse(params, z, condition=None, key=None):
        x, log_det = scale.inverse(params, z)
        return x + 1e-3, log_det

    lossy = scale._replace(inverse=inverse)
    x = jnp.linspace(1.0, 2.0, 12).reshape(4, 3)

    def grad(b):
        params = b.init(jax.random.key(0), x)
        return jax.grad(lambda p: jnp.square(b.forward(p, x)[0]).sum())(params)["raw"]

    expected = grad(jflow.repeat(lossy, 8))
    errors = [
        float(
            jnp.abs(
                grad(jflow.repeat(lossy, 8, reversible=True, anchor=a)) - expected
            ).max()
        )
        for a in (None, 4, 1)
    ]
    # the k-th rebuilt input is wrong by k / 1000, k at most 8, 4 and 1
    np.testing.assert_allclose(np.array(errors) / errors[2], [8, 4, 1], rtol=0.02)


def test_training_memory_does_not_grow_with_depth():
    x = jnp.ones((64, 16))

    def temporaries(n, reversible):
        b = jflow.repeat(_step(), n, reversible=reversible)
        params = jax.eval_shape(b.init, jax.random.key(0), x)
        grad = jax.jit(jax.grad(lambda p, x: b.forward(p, x)[1].sum()))
        return grad.lower(params, x).compile().memory_analysis().temp_size_in_bytes

    few, many = temporaries(4, True), temporaries(32, True)
    assert many < 1.1 * few
    assert temporaries(32, False) > 3 * many


def test_integer_events_are_refused_with_the_remedy():
    b = jflow.chain(jflow.dequantize(8), reversible=True)
    with pytest.raises(ValueError, match="dequantize"):
        b.forward(((),), jnp.ones((2, 3), jnp.int32), key=jax.random.key(0))


@pytest.mark.parametrize("anchor", [0, -1, 1.5])
def test_unusable_anchors_are_refused(anchor):
    with pytest.raises(ValueError, match="anchor"):
        jflow.repeat(_step(), 2, reversible=True, anchor=anchor)
    with pytest.raises(ValueError, match="reversible=True"):
        jflow.chain(_step(), anchor=2)


def test_drift_beyond_its_bound_is_told_while_training():
    b = jflow.repeat(jflow.diagonal_scale(), 4, reversible=True)
    flow = jflow.flow(b, jflow.normal((3,)))
    x = jax.random.normal(jax.random.key(0), (32, 3))
    params = flow.init(jax.random.key(1), x)

    def train(bound):
        watch = jflow.diagnostics.watch_drift(flow, x[:4], bound=bound, every=2)
        jflow.fit(
            flow,
            params,
            x,
            jflow.train.adam(1e-2),
            key=jax.random.key(2),
            steps=5,
            batch_size=8,
            callbacks=[watch],
            steps_per_dispatch=1,
            progress=False,
        )

    train(1e-3)
    with pytest.warns(RuntimeWarning, match=r"step \d: .*bound=1e-12.*anchor") as told:
        train(1e-12)
    # Steps 1, 2 and 4: every second one, from the first look on.
    assert 1 <= len(told) <= 3
    with pytest.raises(ValueError, match="bound=0 and every=1000 must be positive"):
        jflow.diagnostics.watch_drift(flow, x, bound=0)
