"""`check_bijector` passes what is right, and names what is wrong in broken ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import nets, scalars
from jflow.bijector import Bijector

X = 0.5 + 1.5 * jax.random.normal(jax.random.key(0), (6, 3))
CONDITION = jax.random.normal(jax.random.key(1), (6, 2))


def shear(**changed):
    """z = (a, b exp(s) + w a + v . c), written by hand as a user would."""

    def init(key, x, condition=None):
        return {"s": jnp.zeros(()), "w": jnp.zeros(()), "v": jnp.zeros(2)}

    def shift(params, x, condition):
        moved = params["w"] * x[:, :1]
        return (
            moved if condition is None else moved + (condition @ params["v"])[:, None]
        )

    def log_det(params, x):
        return jnp.broadcast_to(params["s"] * 2, x.shape[:1])

    def forward(params, x, condition=None, key=None):
        z = x[:, 1:] * jnp.exp(params["s"]) + shift(params, x, condition)
        return jnp.concatenate([x[:, :1], z], axis=1), log_det(params, x)

    def inverse(params, z, condition=None, key=None):
        x = (z[:, 1:] - shift(params, z, condition)) * jnp.exp(-params["s"])
        return jnp.concatenate([z[:, :1], x], axis=1), -log_det(params, z)

    return Bijector(init, forward, inverse)._replace(**changed)


def altered(which, change):
    """The shear with one pass's result changed."""
    right = shear()

    def apply(params, x, condition=None, key=None):
        return change(params, x, *getattr(right, which)(params, x, condition))

    return shear(**{which: apply})


def report_on(b, condition=CONDITION, **options):
    params = b.init(jax.random.key(2), X, condition)
    return jflow.check_bijector(b, params, X, condition, **options)


def failures(report):
    assert report.ok == (not [line for line in report.lines if line[:4] == "FAIL"])
    return "\n".join(line for line in report.lines if line[:4] == "FAIL")


@pytest.mark.parametrize(
    ("b", "condition"),
    [
        (shear(), CONDITION),
        (
            jflow.chain(
                jflow.actnorm(),
                jflow.coupling(scalars.affine(), nets.mlp(8)),
                jflow.reverse(),
                reversible=True,
            ),
            CONDITION,
        ),
        (jflow.frozen(jflow.invertible_linear()), None),
    ],
    ids=["shear", "chain", "frozen"],
)
def test_right_ones_pass(b, condition):
    report = report_on(b, condition)
    assert report.ok, str(report)
    said = str(report)
    assert "cancel" in said and "autodiff" in said and "finite for params" in said
    assert ("reaches" in said) == (condition is not None)


def test_stochastic_layers_on_integers_pass():
    pixels = jnp.asarray([[0, 1, 7], [3, 4, 2]])
    report = jflow.check_bijector(
        jflow.dequantize(3), (), pixels, key=jax.random.key(0)
    )
    assert report.ok, str(report)


SAYS = {
    "sign": (
        altered("forward", lambda p, x, z, d: (z, -d)),
        ["log-dets cancel", "the sign is the other"],
    ),
    "inverse": (
        altered("inverse", lambda p, z, x, d: (x + 0.1, d)),
        ["inverse(forward(x)) is x", "forward(inverse(z)) is z"],
    ),
    "shape": (
        altered("forward", lambda p, x, z, d: (z, d[:, None])),
        ["forward's log_det is (6, 1)", "expected (6,) of float32"],
    ),
    "half": (
        altered("forward", lambda p, x, z, d: (z, d.astype(jnp.bfloat16))),
        ["forward's log_det is (6,) of bfloat16"],
    ),
    "gradient": (
        altered(
            "forward",
            lambda p, x, z, d: (z, d + jnp.sqrt(p["s"] * 0)),
        ),
        ["gradients: not finite", "params['s']"],
    ),
    "batch": (
        altered("forward", lambda p, x, z, d: (z - x.mean(0) * 0.1, d)),
        ["an example alone and in its batch"],
    ),
    "branch": (
        altered("forward", lambda p, x, z, d: (z, d) if x.sum() > 0 else (-z, d)),
        ["shapes: raised TracerBoolConversionError"],
    ),
    "integers": (
        shear(init=lambda key, x, condition=None: {"s": jnp.zeros((), jnp.int32)}),
        ["params['s'] is int32", "close over what is static"],
    ),
    "deaf": (
        shear(forward=lambda p, x, condition=None, key=None: shear().forward(p, x)),
        ["condition: reaches 0% of the outputs"],
    ),
}


@pytest.mark.parametrize("name", SAYS)
def test_broken_ones_are_told_what_is_wrong(name):
    b, sayings = SAYS[name]
    said = failures(report_on(b))
    for saying in sayings:
        assert saying in said, said


def test_init_that_differs_each_time_is_found():
    count = iter(range(100))
    b = shear()

    def init(key, x, condition=None):
        drift = jax.pure_callback(
            lambda: np.float32(next(count)), jax.ShapeDtypeStruct((), jnp.float32)
        )
        return b.init(key, x) | {"w": drift}

    assert "the same key and batch give the same" in failures(
        report_on(b._replace(init=init))
    )


def test_what_cannot_be_checked_is_refused():
    with pytest.raises(TypeError, match="not a Bijector"):
        jflow.check_bijector(jflow.actnorm, (), X)
    with pytest.raises(ValueError, match=r"expected x \(N, \*event\)"):
        jflow.check_bijector(jflow.actnorm(), (), X[0])
    with pytest.raises(ValueError, match="must not be negative"):
        jflow.check_bijector(jflow.identity(), (), X, scramble=-1.0)
