"""MAF, IAF and NSF: normalised, invertible, conditional, bounded, trainable."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from case import scramble

import jflow
from jflow.models import iaf, maf, nsf

KEY = jax.random.key(0)
MODELS = {
    "maf": lambda d=2, **kw: maf((d,), layers=2, hidden=(12,), **kw),
    "iaf": lambda d=2, **kw: iaf((d,), layers=2, hidden=(12,), **kw),
    "nsf": lambda d=2, **kw: nsf((d,), layers=2, hidden=(12,), bins=4, **kw),
    "nsf-ar": lambda d=2, **kw: nsf(
        (d,), layers=2, hidden=(12,), bins=4, autoregressive_layers=True, **kw
    ),
}
every = pytest.mark.parametrize("name", MODELS)


@every
def test_densities_with_a_condition_integrate_to_one_between_bounds(name):
    lower, upper = np.array([-1.0, 2.0]), np.array([1.0, np.inf])
    f = MODELS[name](bounds=(lower, upper))
    u = jax.random.uniform(KEY, (64, 2), minval=0.1, maxval=0.9)
    x = u * np.array([2.0, 3.0]) + lower
    c = 10.0 + jax.random.normal(jax.random.key(1), (64, 3))
    params = scramble(f.init(KEY, x, c), jax.random.key(2), 0.2)
    # x = tanh(u) and x = 2 + exp(u): dense where the bounds are near
    u = np.linspace(-7.0, 7.0, 401)
    side = [np.tanh(u), 2.0 + np.exp(u)]
    grid = np.stack(np.meshgrid(*side, indexing="ij"), axis=-1).reshape(-1, 2)
    condition = jnp.broadcast_to(c[:1], (len(grid), 3))
    density = np.exp(f.log_prob(params, jnp.asarray(grid, jnp.float32), condition))
    volume = (1 - side[0] ** 2)[:, None] * np.exp(u)
    total = (density.reshape(401, 401) * volume).sum() * (u[1] - u[0]) ** 2
    assert abs(total - 1) < 5e-3

    samples, log_prob = f.sample_and_log_prob(params, KEY, 64, c)
    assert (samples >= lower).all() and (samples <= upper).all()
    # Near a bound float32 has few numbers left.
    clear = ((samples > lower + 1e-2) & (samples < upper - 1e-2)).all(axis=1)
    found = f.log_prob(params, samples, c)
    np.testing.assert_allclose(found[clear], log_prob[clear], rtol=1e-3, atol=1e-2)
    z = f.encode(params, x, c)
    np.testing.assert_allclose(f.decode(params, z, c), x, atol=1e-4)
    moved = f.encode(params, x, c + 1.0) != z
    assert moved.any(axis=0).all(), "a latent coordinate ignores the condition"


@every
def test_one_dimension_and_training(name):
    f = MODELS[name](d=1)
    c = jax.random.normal(KEY, (256, 1))
    x = 5.0 + c + 0.1 * jax.random.normal(jax.random.key(1), (256, 1))
    params = f.init(KEY, x, c)
    before = f.log_prob(params, x, c).mean()
    trained, history = jflow.fit(
        f, params, x, optax.adam(1e-2), condition=c, key=KEY, steps=60, progress=False
    )
    assert f.log_prob(trained, x, c).mean() > before + 0.3
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("maf", {"residual": True}),
        ("maf", {"norm": "batch_norm"}),
        ("maf", {"mixing": "shuffle"}),
        ("maf", {"scale": "tanh"}),
        ("iaf", {"activation": jnp.tanh}),
        ("nsf", {"bound": 2.0}),
        ("nsf", {"parametrisation": "softmax"}),
        ("nsf", {"autoregressive_layers": True}),
    ],
)
def test_options_change_the_output(name, options):
    x = jax.random.normal(KEY, (16, 3))

    def outputs(f):
        params = scramble(f.init(KEY, x), jax.random.key(1), 0.2)
        return f.log_prob(params, x)

    if "residual" in options:
        plain = maf((3,), layers=1, hidden=(8, 8))
        other = maf((3,), layers=1, hidden=(8, 8), **options)
    else:
        plain, other = MODELS[name](d=3), MODELS[name](d=3, **options)
    assert not np.array_equal(outputs(plain), outputs(other))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: maf((2, 2)), "flatten"),
        (lambda: maf((2,), layers=0), "layers"),
        (lambda: maf((2,), mixing="swap"), "mixing"),
        (lambda: maf((2,), hidden=()), "widths"),
        (lambda: iaf((2,), scale="relu"), "scale"),
        (lambda: nsf((2,), bins=0), "bins"),
        (lambda: nsf((2,), bounds=(1.0, 0.0)), "below"),
    ],
)
def test_unusable_arguments_are_refused_when_built(build, words):
    with pytest.raises(ValueError, match=words):
        build()
