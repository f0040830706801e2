"""What cannot work is refused with the argument, its value and the remedy.

One row for each mistake: what is called, the error, and words of its message.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jflow
from jflow import nets, scalars
from jflow.train import adam, make_train_step, negative_log_likelihood

KEY = jax.random.key(0)
X = np.asarray(jax.random.normal(KEY, (8, 4)))
C = np.asarray(jax.random.normal(KEY, (8, 2)))
ADAM = optax.adam(1e-3)


def build(net=None):
    layer = jflow.coupling(scalars.affine(), net or nets.mlp(4))
    return jflow.flow(jflow.chain(jflow.actnorm(), layer), jflow.normal((4,)))


def wide(out_features):
    """A conditioner that does not heed the size it is asked for."""
    return nets.mlp(4)(out_features + 1)


flow = build()
plain, conditional = flow.init(KEY, X), flow.init(KEY, X, C)
integers = jax.tree.map(lambda a: a.astype(jnp.int32), plain)


def fit(x=X, params=plain, **options):
    arguments = dict(key=KEY, steps=2, progress=False) | options
    return jflow.fit(flow, params, x, ADAM, **arguments)


ROWS = {
    # rank and event shape
    "no batch": (lambda: flow.log_prob(plain, X[0]), ValueError, r"x.*\(4,\).*x\[None"),
    "latent rank": (
        lambda: flow.decode(plain, X[0]),
        ValueError,
        r"z.*\(4,\).*z\[None",
    ),
    "fit rank": (lambda: fit(X[:, 0]), ValueError, r"fit: x.*\(8,\).*x\[:, None\]"),
    "small": (
        lambda: flow.log_prob(plain, X[:, :3]),
        ValueError,
        r"log_prob: x with events \(3,\).*base is over events \(4,\).*build the base",
    ),
    "broadcast": (
        lambda: flow.log_prob(plain, X[:, :1]),
        ValueError,
        r"log_prob: x with events \(1,\).*do not fit",
    ),
    "axes": (
        lambda: flow.encode(plain, X.reshape(8, 2, 2)),
        ValueError,
        r"encode: x with events \(2, 2\)",
    ),
    "latents": (
        lambda: flow.decode(plain, X[:, :3]),
        ValueError,
        r"decode: z are events \(3,\).*\(4,\); pass",
    ),
    "another flow's": (
        lambda: flow.log_prob({"bijector": ((), ()), "base": ()}, X),
        ValueError,
        "not in params.*'bias'",
    ),
    # conditions
    "missing": (
        lambda: flow.log_prob(conditional, X),
        ValueError,
        "condition None; pass .*only in params: .*ConditionBias",
    ),
    "missing in sample": (
        lambda: flow.sample(conditional, KEY, 3),
        ValueError,
        "sample: .* condition None; pass",
    ),
    "unexpected": (
        lambda: flow.log_prob(plain, X, C),
        ValueError,
        r"condition \(N, 2\); pass .*not in params: .*ConditionBias",
    ),
    "width": (
        lambda: flow.log_prob(conditional, X, C[:, :1]),
        ValueError,
        r"condition \(N, 1\).*is \(2, 4\), not \(1, 4\)",
    ),
    "condition's rank": (
        lambda: flow.log_prob(conditional, X, C[:, 0]),
        ValueError,
        r"condition \(N, \).*takes \(N, c\).*got",
    ),
    "examples": (
        lambda: flow.log_prob(conditional, X, C[:3]),
        ValueError,
        r"condition: axis 0 .*batch of 8 .*\(3, 2\)",
    ),
    "labels": (
        lambda: jflow.flow(jflow.actnorm(), jflow.class_normal((4,), 3)).init(KEY, X),
        ValueError,
        r"condition: .*got None; pass condition=labels",
    ),
    # dtypes
    "integer parameters": (
        lambda: flow.log_prob(integers, X),
        TypeError,
        r"params\['bijector'\]\[0\]\['bias'\] is int32, .*floating",
    ),
    "integers to train": (lambda: fit(params=integers), TypeError, "is int32, but"),
    "complex": (
        lambda: flow.log_prob(plain, X + 1j),
        TypeError,
        r"x must be .*real.*complex64\(8, 4\); convert",
    ),
    "words": (lambda: flow.init(KEY, "abc"), TypeError, "x must be .*'abc'; convert"),
    "double": (
        lambda: nets.mlp(4, dtype=jnp.float64),
        ValueError,
        "dtype=float64 .*jax_enable_x64",
    ),
    "double's range": (
        lambda: flow.init(KEY, X.astype(np.float64) * 1e300),
        ValueError,
        "x holds 32 values that are not finite as float32, .*rescale",
    ),
    # no data, no numbers
    "empty": (lambda: flow.log_prob(plain, X[:0]), ValueError, r"N >= 1, got .*\(0, 4"),
    "empty fit": (lambda: fit(X[:0]), ValueError, r"N >= 1, got shape \(0, 4\)"),
    "no samples": (lambda: flow.sample(plain, KEY, 0), ValueError, "n must be .*got 0"),
    "NaN": (
        lambda: flow.init(KEY, np.where(X > 1, np.nan, X)),
        ValueError,
        r"x holds \d+ values .*first at \[.*drop or fill",
    ),
    "NaN condition": (
        lambda: flow.init(KEY, X, C * np.nan),
        ValueError,
        "condition holds 16 values",
    ),
    "NaN fit": (
        lambda: fit(np.where(X > 1, np.nan, X)),
        FloatingPointError,
        "x holds values that are not finite",
    ),
    # options
    "half a sample": (
        lambda: flow.sample(plain, KEY, 2.5),
        TypeError,
        "n must be an integer .*got 2.5",
    ),
    "samples in a list": (
        lambda: flow.sample(plain, KEY, [3]),
        TypeError,
        r"n must be .*got \[3\]",
    ),
    "chunk": (
        lambda: flow.sample(plain, KEY, 3, chunk=0),
        ValueError,
        "chunk must be at least 1, got 0",
    ),
    "key": (lambda: flow.sample(plain, 0, 3), TypeError, r"key is 0, .*jax.random.key"),
    "key for fit": (lambda: fit(key=0), TypeError, r"fit: key is 0, .*jax.random.key"),
    "callbacks": (lambda: fit(callbacks=3), TypeError, "callbacks=3 must be a list"),
    "a list of rates": (
        lambda: adam([1e-3]),
        TypeError,
        r"adam: learning_rate=\[0.001\] cannot be hashed.*pass",
    ),
    "a loss in a list": (
        lambda: make_train_step(flow, ADAM, [negative_log_likelihood(flow)]),
        TypeError,
        "make_train_step: loss=.* cannot be hashed",
    ),
    "conditioner": (
        lambda: build(wide).init(KEY, X),
        ValueError,
        r"the network returned \(8, 5\), expected \(8, 4\); build",
    ),
    "amortised": (
        lambda: jflow.planar(net=wide).forward(
            jflow.planar(net=wide).init(KEY, X, C), X, C
        ),
        ValueError,
        r"planar: the network returned .*expected .*give it",
    ),
    "autoregressive": (
        lambda: jflow.autoregressive(scalars.affine(), lambda *_: wide(3)).init(KEY, X),
        TypeError,
        "autoregressive: net built MLP.*not a Made",
    ),
    # devices
    "devices": (
        lambda: jflow.parallel.data_mesh(16),
        ValueError,
        "devices=16, and this job has 8; choose 1 to 8",
    ),
    "batch": (
        lambda: fit(batch_size=7, mesh=jflow.parallel.data_mesh()),
        ValueError,
        "batch_size=7 .* 8 devices; choose 8",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_mistakes_are_named(name):
    call, error, words = ROWS[name]
    with pytest.raises(error, match=f"(?s){words}"):
        call()


def test_integers_are_floats_to_a_flow():
    whole = np.arange(32).reshape(8, 4)
    for call in (flow.log_prob, flow.encode):
        np.testing.assert_array_equal(
            call(plain, whole), call(plain, whole.astype(np.float32))
        )
