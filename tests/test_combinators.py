"""Combinators: what they refuse, what differs between copies, what stays."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jflow
from jflow import nets, scalars

KEY = jax.random.key(0)


@pytest.mark.parametrize("reversible", [False, True])
def test_layers_without_parameters_are_repeated(reversible):
    b, x = jflow.repeat(jflow.reverse(), 3, reversible=reversible), jnp.ones((2, 4))
    x = x * jnp.arange(4)
    z, log_det = b.forward(b.init(KEY, x), x)
    np.testing.assert_array_equal(z, x[:, ::-1])
    np.testing.assert_array_equal(log_det, jnp.zeros(2))


@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_a_scan_written_out_or_in_halves_is_the_same_map(way):
    x, condition = jax.random.normal(KEY, (4, 3)), jnp.arange(4)
    layer = jflow.chain(
        jflow.invertible_linear("dense"),
        jflow.diagonal_scale(),
        jflow.coupling(scalars.affine("tanh"), nets.mlp(4, zero_last=False)),
        jflow.actnorm(),
        jflow.training_noise(-0.1, 0.1),
    )
    choices = [{}, {"unroll": True}, {"halves": True}, {"unroll": True, "halves": True}]
    flows = [
        jflow.models.parts.with_classes(jflow.repeat(layer, 3, **choice), 5)
        for choice in choices
    ]
    params = flows[0].init(KEY, x, condition)

    def numbers(b):
        def loss(params, x):
            z, log_det = getattr(b, way)(params, x, condition, KEY)
            return (z**3).sum() + (log_det * x[:, 0]).sum()

        def slope(params):
            return jax.jvp(loss, (params, x), (params, x))[1]

        both = jax.value_and_grad(loss, argnums=(0, 1))(params, x)
        passed = getattr(b, way)(params, x, condition, KEY)
        return passed, both, jax.value_and_grad(slope)(params)

    scanned, *others = (jax.jit(partial(numbers, b))() for b in flows)
    for other in others:
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), other, scanned
        )


@pytest.mark.parametrize("shape", [(1,), (4,), (5,), (4, 3)])
def test_events_of_any_shape_pass_in_halves(shape):
    x = jax.random.normal(KEY, (2, *shape))
    b, plain = (jflow.repeat(jflow.actnorm(), 4, halves=h) for h in (True, False))
    params = jax.tree.map(lambda a: a + 0.5, plain.init(KEY, x))
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-6),
        b.forward(params, x),
        plain.forward(params, x),
    )


def test_an_unrolled_scan_is_written_out_only_where_it_is_differentiated():
    x = jnp.ones((4, 3))
    b = jflow.repeat(jflow.actnorm(), 3, unroll=True)
    params = b.init(KEY, x)

    def loss(params):
        return b.forward(params, x)[0].sum()

    assert "scan" in str(jax.make_jaxpr(loss)(params))
    assert "scan" not in str(jax.make_jaxpr(jax.grad(loss))(params))


@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_what_a_scan_keeps_changes_no_number(way):
    step = jflow.chain(
        jflow.actnorm(),
        jflow.invertible_linear(),
        jflow.coupling(scalars.affine("sigmoid"), nets.glow_net(6)),
    )
    ways = [jflow.repeat(step, 3, keep=keep) for keep in (None, ("conv",), ())]

    def loss(b, params, x, condition):
        z, log_det = getattr(b, way)(params, x, condition)
        return (z**2).sum() + (log_det**2).sum()

    results, stored = [], []
    with jax.enable_x64(True):
        data = jax.random.normal(KEY, (2, 4, 4, 4)), jnp.ones((2, 3))
        params = jax.tree.map(
            lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size)).reshape(a.shape),
            ways[0].init(KEY, *data),
        )
        for b in ways:
            grad = jax.grad(partial(loss, b), argnums=(0, 1))
            results.append(jax.jit(grad)(params, *data))
            equations = jax.make_jaxpr(grad)(params, *data).eqns
            scan = next(e for e in equations if e.primitive.name == "scan")
            stored.append(sum(v.aval.shape[0] == 3 for v in scan.outvars))
    for result in results[1:]:
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9),
            result,
            results[0],
        )
    # Each copy's input; its convolutions' outputs, too; and all that it needs.
    assert stored[2] == 1 and stored[1] <= 4 < stored[0], stored


def test_copies_of_a_random_permutation_differ_and_survive_weight_decay():
    b = jflow.repeat(jflow.random_permutation(), 6)
    x = jax.random.normal(KEY, (4, 10))
    params = b.init(KEY, x)
    orders = np.argsort(params["fixed"], axis=1)
    assert len({tuple(order) for order in orders}) == 6

    optimizer = optax.adamw(0.1, weight_decay=0.5)
    state, moved = optimizer.init(params), params
    before = b.forward(params, x)[0]
    for _ in range(5):
        grads = jax.grad(lambda p: b.forward(p, x)[0].sum())(moved)
        assert all(not leaf.any() for leaf in jax.tree.leaves(grads))
        updates, state = optimizer.update(grads, state, moved)
        moved = optax.apply_updates(moved, updates)
    assert not np.array_equal(moved["fixed"], params["fixed"])
    np.testing.assert_array_equal(b.forward(moved, x)[0], before)


@pytest.mark.parametrize("kind", ["rotation", "lu"])
def test_what_is_fixed_in_linear_maps_survives_weight_decay(kind):
    b = jflow.invertible_linear(kind)
    x = jax.random.normal(KEY, (4, 5))
    params = b.init(KEY, x)
    scaled = {**params, "fixed": jax.tree.map(lambda a: 0.25 * a, params["fixed"])}
    np.testing.assert_allclose(b.forward(scaled, x)[0], b.forward(params, x)[0], 1e-6)


def test_invert_starts_by_undoing_the_whitening():
    """The stated meaning of data-dependent layers under invert."""
    z = 5.0 + 3.0 * jax.random.normal(KEY, (2000, 2))
    b = jflow.invert(jflow.actnorm())
    x, _ = b.forward(b.init(KEY, z), z)
    # z -> z * std + mean, the inverse of the map that whitens z
    np.testing.assert_allclose(x, z * z.std(0) + z.mean(0), rtol=1e-4)


LINEAR = {
    "orders": (
        jflow.reverse,
        lambda: jflow.roll(1),
        lambda: jflow.permutation([2, 0, 3, 1, 4]),
        jflow.random_permutation,
    ),
    "matrices": (
        jflow.random_permutation,
        jflow.invertible_linear,
        lambda: jflow.invert(jflow.chain(jflow.invertible_linear("svd"), jflow.roll())),
        jflow.reverse,
        lambda: jflow.invertible_linear("householder"),
    ),
}


@pytest.mark.parametrize("event", [(5,), (3, 2, 5)])
@pytest.mark.parametrize("kind", LINEAR)
def test_folded_neighbours_are_their_composition(kind, event):
    """Values, log-dets and gradients against the layers applied one after another."""
    layers = [make() for make in (jflow.actnorm, *LINEAR[kind], jflow.actnorm)]
    b, x = jflow.chain(*layers), jax.random.normal(KEY, (30, *event))
    params = b.init(KEY, x)

    def forward(params, x):
        total = 0.0
        for layer, p in zip(layers, params, strict=True):
            x, log_det = layer.forward(p, x)
            total += log_det
        return x, total

    def inverse(params, z):
        total = 0.0
        for layer, p in zip(layers[::-1], params[::-1], strict=True):
            z, log_det = layer.inverse(p, z)
            total += log_det
        return z, total

    @partial(jax.jit, static_argnums=0)
    def values_and_gradient(apply, params, x):
        def loss(params, x):
            z, log_det = apply(params, x)
            return (z**3).mean() + log_det.mean(), (z, log_det)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    for folded, one_by_one in ((b.forward, forward), (b.inverse, inverse)):
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5),
            values_and_gradient(folded, params, x),
            values_and_gradient(one_by_one, params, x),
        )


def test_embedding_and_chain_hand_the_condition_on():
    x, c = jnp.ones((4, 3)), jnp.ones((4, 2))
    seen = []

    def spy(params, x, condition=None, key=None):
        seen.append(condition)
        return x, jnp.zeros(len(x))

    watcher = jflow.Bijector(lambda key, x, condition=None: (), spy, spy)

    class Double:
        def init(self, key, condition):
            return jnp.asarray(2.0)

        def apply(self, params, condition):
            return params * condition

    b = jflow.embed_condition(jflow.chain(watcher, watcher), Double())
    b.forward(b.init(KEY, x, c), x, c)
    assert all((s == 2.0).all() for s in seen) and len(seen) == 4


def test_frozen_stops_gradients_and_inputs_still_have_theirs():
    b = jflow.frozen(jflow.actnorm())
    x = jax.random.normal(KEY, (8, 2))
    params = b.init(KEY, x)
    grads, dx = jax.grad(lambda p, x: b.forward(p, x)[0].sum(), (0, 1))(params, x)
    assert not any(leaf.any() for leaf in jax.tree.leaves(grads)) and dx.all()


def test_init_passes_the_batch_through_each_layer_once():
    count = []

    def forward(params, x, condition=None, key=None):
        count.append(1)
        return x, jnp.zeros(len(x))

    leaf = jflow.Bijector(lambda key, x, condition=None: (), forward, forward)
    nested = jflow.chain(jflow.chain(jflow.chain(leaf, leaf), leaf), leaf)
    nested.init(KEY, jnp.ones((2, 2)))
    assert len(count) == 4


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: jflow.chain(jflow.actnorm), TypeError, "actnorm()"),
        (lambda: jflow.repeat(jflow.actnorm(), 0), ValueError, "positive"),
        (lambda: jflow.repeat(jflow.actnorm(), 2, unroll=1), TypeError, "unroll"),
        (
            lambda: jflow.repeat(jflow.actnorm(), 2, unroll=True, reversible=True),
            ValueError,
            "unroll",
        ),
        (lambda: jflow.repeat(jflow.actnorm(), 2, halves=1), TypeError, "halves"),
        (
            lambda: jflow.repeat(jflow.actnorm(), 2, halves=True, reversible=True),
            ValueError,
            "halves",
        ),
        (lambda: jflow.repeat(jflow.actnorm(), 2, keep="conv"), TypeError, "keep"),
        (
            lambda: jflow.repeat(jflow.actnorm(), 2, keep=(), reversible=True),
            ValueError,
            "choose one",
        ),
        (lambda: jflow.embed_condition(jflow.actnorm(), 3), TypeError, "apply"),
        (lambda: jflow.elementwise(3), TypeError, "Scalar"),
        (lambda: jflow.coupling(scalars.shift(), 3), TypeError, "out_features"),
        (lambda: jflow.coupling(scalars.shift(), nets.mlp(), "x"), ValueError, "mask"),
        (
            lambda: jflow.coupling(scalars.shift(), nets.mlp(), np.ones(3, bool)),
            ValueError,
            "active",
        ),
        (lambda: jflow.permutation([0, 0, 1]), ValueError, "once"),
        (lambda: jflow.invertible_linear("sdv"), ValueError, "kind"),
        (lambda: jflow.whitening("svd"), ValueError, "kind"),
        (lambda: jflow.squeeze(1), ValueError, "factor"),
        (lambda: jflow.squeeze(3, order="diagonal"), ValueError, "diagonal"),
        (lambda: jflow.reshape((2, 3), (5,)), ValueError, "size"),
        (lambda: jflow.dequantize(0), ValueError, "bits"),
        (lambda: jflow.logit(0.5), ValueError, "alpha"),
        (lambda: jflow.rescale(1, 0), ValueError, "low < high"),
        (lambda: jflow.batch_norm("none"), ValueError, "statistics"),
        (lambda: scalars.affine("relu"), ValueError, "scale"),
        (lambda: nets.mlp(0), ValueError, "positive"),
        (lambda: nets.glow_net(0), ValueError, "width"),
        (lambda: jflow.normal(3), ValueError, "shape"),
        (lambda: jflow.class_normal((2,), 0), ValueError, "classes"),
        (lambda: jflow.flow(jflow.actnorm(), 3), TypeError, "base"),
    ],
)
def test_unusable_arguments_are_refused_when_built(build, error, words):
    with pytest.raises(error, match=words.replace("(", r"\(").replace(")", r"\)")):
        build()


@pytest.mark.parametrize(
    ("b", "shape", "words"),
    [
        (jflow.repeat(jflow.squeeze(), 2), (4, 4, 1), "shape and dtype"),
        (jflow.split(jflow.actnorm(), keep=3), (3,), "keep"),
        (jflow.squeeze(), (3, 4, 1), "divisible"),
        (jflow.unsqueeze(), (3, 4, 1), "divisible"),
        (jflow.permutation([1, 0]), (3,), "entries"),
        (jflow.reshape((4,), (2, 2)), (3,), "expected events"),
        (jflow.coupling(scalars.shift(), nets.mlp(4)), (1,), "elementwise"),
        (
            jflow.coupling(scalars.shift(), nets.mlp(4), "checkerboard"),
            (4,),
            "interleaved",
        ),
        (jflow.embed_condition(jflow.actnorm(), nets.mlp(4)(2)), (3,), "condition"),
    ],
)
def test_events_that_do_not_fit_are_refused_at_init(b, shape, words):
    with pytest.raises(ValueError, match=words):
        b.init(KEY, jnp.ones((2, *shape)))


def test_a_net_with_the_wrong_output_size_is_named():
    def wrong(out_features):
        return nets.mlp(4)(out_features + 1)

    with pytest.raises(ValueError, match="network returned"):
        b = jflow.coupling(scalars.affine(), wrong)
        b.forward(b.init(KEY, jnp.ones((2, 4))), jnp.ones((2, 4)))
