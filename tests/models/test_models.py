"""Published architectures: what their papers promise, options, conditions."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import scramble

import jflow
from jflow.models import glow, nice, realnvp

KEY = jax.random.key(0)
IMAGE = (4, 4, 1)

MODELS = {
    "nice": lambda **kw: nice((6,), bits=None, hidden=(8,), **kw),
    "realnvp": lambda **kw: realnvp((6,), couplings=4, hidden=(8,), **kw),
    "glow": lambda **kw: glow((6,), depth=3, hidden=(8,), **kw),
    # one scale: two compile for so long that one test alone has them
    "realnvp-image": lambda **kw: realnvp(
        IMAGE, **{"scales": 1, "width": 4, "blocks": 1, "bits": 3, **kw}
    ),
    "glow-image": lambda **kw: glow(IMAGE, levels=2, depth=2, width=8, bits=3, **kw),
}
every = pytest.mark.parametrize("name", MODELS)


def _data(name, n=32):
    if "image" in name:
        return jax.random.randint(KEY, (n, *IMAGE), 0, 8)
    return jax.random.normal(KEY, (n, 6))


def _ready(f, x, condition=None, scale=0.05):
    return scramble(f.init(KEY, x, condition), jax.random.key(1), scale)


@functools.cache
def _plain(name):
    """The model without options, and its initial params."""
    f = MODELS[name]()
    return f, f.init(KEY, _data(name))


@pytest.mark.parametrize("conditioned", ["no", "classes", "vector"])
@every
def test_models_are_normalised_invertible_and_conditional(name, conditioned):
    x = _data(name)
    options = {"classes": 3} if conditioned == "classes" else {}
    if name == "realnvp-image" and conditioned == "classes":
        options["scales"] = 2
    condition = {
        "no": None,
        "classes": jnp.arange(32) % 3,
        "vector": jax.random.normal(KEY, (32, 2)),
    }[conditioned]
    if conditioned == "no":
        f, params = _plain(name)
        params = scramble(params, jax.random.key(1), 0.05)
    else:
        f = MODELS[name](**options)
        params = _ready(f, x, condition)

    @jax.jit  # density and latents share one pass
    def passes(condition):
        z = f.encode(params, x, condition, key=KEY)
        log_prob = f.log_prob(params, x, condition, key=KEY)
        return log_prob, z, f.decode(params, z, condition)

    log_prob, z, again = passes(condition)
    assert log_prob.shape == (32,) and np.isfinite(log_prob).all()
    atol = 0 if "image" in name else 1e-4
    np.testing.assert_allclose(again, x, atol=atol)
    samples, log_p = f.sample_and_log_prob(params, KEY, 32, condition)
    assert samples.shape == x.shape and np.isfinite(log_p).all()
    if condition is not None:
        other = condition + 1 if conditioned == "vector" else (condition + 1) % 3
        moved = passes(other)[1] != z
        assert moved.any(axis=0).all(), "a latent coordinate ignores the condition"


@every
def test_training_steps_lower_the_loss_and_run_in_pmap(name):
    import optax

    (f, params), x = _plain(name), _data(name)
    optimizer = jflow.train.prepare_optimizer(optax.adam(1e-2))

    def loss(params, x, key):
        log_prob = f.log_prob(params, x, key=key)
        return -log_prob.mean(), log_prob

    def step(params, state, x, key):
        grads, log_prob = jax.grad(loss, has_aux=True)(params, x, key)
        grads = jax.lax.pmean(grads, "devices")
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, log_prob

    axes = {"in_axes": (None, None, 0, None), "out_axes": (None, None, 0)}
    pstep = jax.pmap(step, "devices", **axes)
    state, found = optimizer.init(params), []
    shards = x.reshape(2, 16, *x.shape[1:])
    keys = jax.random.split(KEY, 4)
    for key in keys:
        before = params
        params, state, log_prob = pstep(params, state, shards, key)
        found.append(log_prob)
    assert found[-1].mean() > found[0].mean()
    expected = [f.log_prob(before, shard, key=keys[-1]) for shard in shards]
    np.testing.assert_allclose(found[-1], np.stack(expected), rtol=1e-4, atol=1e-3)
    keys = jax.random.split(KEY, 2)
    samples = jax.pmap(lambda p, k: f.sample(p, k, 3), in_axes=(None, 0))(params, keys)
    assert samples.shape == (2, 3, *x.shape[1:]) and np.isfinite(samples).all()


@pytest.mark.parametrize("n", [3, 16])
def test_alternating_couplings_are_interleaved_ones_by_turns(n):
    """Halves that change places are even and odd places that do; 16 are recomputed."""
    law, net = jflow.scalars.affine(), jflow.nets.mlp(8)
    flow = realnvp((6,), couplings=n, hidden=(8,), norm=None)
    x = jax.random.normal(KEY, (5, 6))
    _, (stacked, _) = _ready(flow, x, scale=0.5)["bijector"]
    by_turns = jflow.chain(
        *(jflow.coupling(law, net, "interleaved", swap=i % 2 == 1) for i in range(n))
    )
    # After each coupling those places are first that it has changed.
    places = jnp.array([1, 3, 5, 0, 2, 4] if n % 2 else [0, 2, 4, 1, 3, 5])

    def actual(stacked):
        z, log_det = flow.bijector.forward(((), (stacked, ())), x)
        return z.sum() + log_det.sum(), (z, log_det)

    def expected(stacked):
        each = tuple(jax.tree.map(operator.itemgetter(i), stacked) for i in range(n))
        z, log_det = by_turns.forward(each, x)
        return z.sum() + log_det.sum(), (z[:, places], log_det)

    one, other = (
        jax.jit(jax.grad(f, has_aux=True))(stacked) for f in (actual, expected)
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(jnp.abs(b).max()))


@pytest.mark.parametrize(
    ("mask", "exchange", "axis"),
    [
        ("checkerboard", jflow.reverse(-2), 1),
        ("checkerboard", jflow.reverse(-3), 0),
        ("half", jflow.roll(), None),
    ],
)
def test_one_coupling_and_an_exchange_are_couplings_that_alternate(
    mask, exchange, axis
):
    """Mirrored images with mirrored kernels: RealNVP's images take them by turns."""
    law, net = jflow.scalars.affine("tanh"), jflow.nets.residual_net(4, 1)
    x, n = jax.random.normal(KEY, (3, 4, 6, 2)), 3
    layer = jflow.chain(jflow.coupling(law, net, mask), exchange)
    b = jflow.chain(jflow.repeat(layer, n), exchange)
    params = scramble(jax.jit(b.init)(KEY, x), jax.random.key(1), 0.3)
    (stacked, _), _ = params

    def turned(i):
        mirrored = i % 2 == 1 and axis is not None
        one = jax.tree.map(operator.itemgetter(i), stacked)
        return jax.tree.map(
            lambda a: np.flip(a, axis) if mirrored and a.ndim == 4 else a, one
        )

    by_turns = jflow.chain(
        *(jflow.coupling(law, net, mask, swap=i % 2 == 1) for i in range(n))
    )
    got = jax.jit(b.forward)(params, x)
    expected = jax.jit(by_turns.forward)(tuple(turned(i) for i in range(n)), x)
    for a, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-4)


def test_nices_determinant_is_exactly_one_before_its_scale():
    f, x = MODELS["nice"](), _data("nice")
    params = _ready(f, x, scale=0.3)
    layers = params["bijector"]
    *_, scale = layers
    _, log_det = f.bijector.forward(layers, x)
    np.testing.assert_array_equal(log_det, jnp.full(32, scale["raw"].sum()))
    without = (*layers[:-1], {"raw": jnp.zeros_like(scale["raw"])})
    _, log_det = f.bijector.forward(without, x)
    np.testing.assert_array_equal(log_det, 0.0)
    one = jax.jacrev(lambda v: f.bijector.forward(without, v[None])[0][0])(x[0])
    np.testing.assert_allclose(jnp.linalg.slogdet(one)[1], 0.0, atol=1e-5)


def test_nice_starts_with_its_priors_variance():
    x = jax.random.randint(KEY, (512, 4, 4), 0, 256).at[:, 0, 0].set(0)
    for prior, variance in (("logistic", np.pi**2 / 3), ("normal", 1.0)):
        f = nice((4, 4), hidden=(8,), prior=prior)
        z = f.encode(f.init(KEY, x), x, key=KEY)
        np.testing.assert_allclose(z.var(axis=0), variance, rtol=0.15)


def test_nice_starts_as_the_identity_under_its_prior():
    x = jax.random.randint(KEY, (8, 4, 4), 0, 256)
    f = nice((4, 4), hidden=(8,), scale_init="one")
    params = f.init(KEY, x)
    u = (x + jax.random.uniform(jax.random.split(KEY)[0], x.shape)) / 256
    log_prob = f.log_prob(params, x, key=KEY)
    near = (-jax.nn.softplus(u) - jax.nn.softplus(-u)).sum((1, 2)) - 16 * np.log(256)
    np.testing.assert_allclose(log_prob, near, rtol=1e-2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nice", {"couplings": 3}),
        ("nice", {"prior": "normal"}),
        ("nice", {"mixing": "reverse"}),
        ("nice", {"subtract": True}),
        ("nice", {"scale_init": "one"}),
        ("nice", {"relu_output": True}),
        ("nice", {"preprocess": "logit", "alpha": 0.2}),
        ("nice", {"dtype": jnp.bfloat16}),
        ("realnvp", {"scale": "tanh"}),
        ("realnvp", {"norm": "actnorm"}),
        ("realnvp", {"norm": None}),
        ("realnvp", {"alpha": 0.2}),
        ("realnvp", {"dtype": jnp.bfloat16}),
        ("realnvp-image", {"scale": "exp"}),
        ("realnvp-image", {"norm": "actnorm"}),
        ("realnvp-image", {"alpha": 0.2}),
        ("glow", {"law": "additive"}),
        ("glow", {"mixing": "shuffle"}),
        ("glow", {"mixing": "reverse"}),
        ("glow", {"linear": "dense"}),
        ("glow-image", {"prior": "unit"}),
        ("glow-image", {"mark_edges": True}),
        ("glow-image", {"law": "additive"}),
        ("glow-image", {"dtype": jnp.bfloat16}),
    ],
)
def test_options_change_the_output(name, options):
    x = _data(name)
    if "alpha" in options and "image" not in name:
        x = jax.nn.sigmoid(x)

    def outputs(f, params):
        params = scramble(params, jax.random.key(1), 0.2)
        return f.log_prob(params, x, key=KEY)

    f = MODELS[name](**options)
    assert not np.array_equal(outputs(f, f.init(KEY, x)), outputs(*_plain(name)))


@every
def test_reversible_models_have_plain_models_gradients(name):
    x = _data(name)
    params = scramble(_plain(name)[1], jax.random.key(1), 0.05)

    def gradient(reversible):
        f = MODELS[name](reversible=reversible)
        return jax.jit(jax.grad(lambda p: -f.log_prob(p, x, key=KEY).mean()))(params)

    pairs = zip(*map(jax.tree.leaves, map(gradient, (True, False))), strict=True)
    for a, e in pairs:
        scale = float(jnp.abs(e).max()) + 1e-3
        np.testing.assert_allclose(a, e, atol=2e-3 * scale, rtol=0)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: glow((28, 28, 1), levels=3), "levels=3"),
        (lambda: glow((6, 4, 1), levels=2), "divisible by 4"),
        (lambda: glow((4, 4)), "shape"),
        (lambda: glow((1,)), "one dimension"),
        (lambda: glow((4,), mixing="swap"), "mixing"),
        (lambda: glow((4,), law="cubic"), "law"),
        (lambda: glow((4,), depth=0), "depth"),
        (lambda: realnvp((5, 4, 1), scales=2), "scales=2"),
        (lambda: realnvp((4, 4)), "shape"),
        (lambda: realnvp((1,)), "one dimension"),
        (lambda: realnvp((4,), norm="layer"), "norm"),
        (lambda: realnvp((4,), scale="relu"), "scale"),
        (lambda: nice((1,)), "one dimension"),
        (lambda: nice((4,), prior="cauchy"), "prior"),
        (lambda: nice((4,), mixing="swap"), "mixing"),
        (lambda: nice((4,), scale_init="zero"), "scale_init"),
        (lambda: nice((4,), preprocess="zca"), "preprocess"),
        (lambda: nice((4,), bits=None, preprocess="negative_noise"), "bits"),
    ],
)
def test_unusable_arguments_are_refused_when_built(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_odd_and_oblong_images_work_where_they_can():
    for f, shape in [
        (realnvp((5, 3, 2), width=4, blocks=1, bits=4), (5, 3, 2)),
        (glow((2, 6, 3), levels=1, depth=2, width=4, bits=4), (2, 6, 3)),
        (nice((3, 5), bits=4, hidden=(8,)), (3, 5)),
    ]:
        x = jax.random.randint(KEY, (8, *shape), 0, 16)
        params = f.init(KEY, x)
        z = f.encode(params, x, key=KEY)
        np.testing.assert_array_equal(f.decode(params, z), x)


def test_the_articles_nice_trains_on_noise_and_evaluates_without():
    x = jax.random.randint(KEY, (8, 4, 4), 0, 256)
    f = nice(
        (4, 4),
        prior="normal",
        preprocess="negative_noise",
        mixing="reverse",
        subtract=True,
        relu_output=True,
        hidden=(8,),
    )
    params = f.init(KEY, x)
    still = f.log_prob(params, x)
    np.testing.assert_array_equal(still, f.log_prob(params, x))
    assert not np.array_equal(still, f.log_prob(params, x, key=KEY))
    # decoding adds m >= 0: the article's bias towards bright pixels
    assert (f.decode(params, jnp.zeros((4, 16))) >= 0).all()
