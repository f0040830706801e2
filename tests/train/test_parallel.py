"""Eight host devices give what one gives; the pieces run inside pmap and shard_map."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from jflow import parallel
from jflow.base import normal
from jflow.bijectors import batch_norm, coupling
from jflow.combinators import chain
from jflow.flow import flow as make_flow
from jflow.nets import mlp
from jflow.scalars import affine
from jflow.train import fit, init_state, make_train_step

KEY = jax.random.key(7)
ADAM = optax.adam(1e-2)
SGD = optax.sgd(0.1)
CLOSE = dict(rtol=2e-4, atol=2e-5)


@pytest.fixture(scope="module")
def mesh():
    mesh = parallel.data_mesh()
    assert dict(mesh.shape) == {"data": 8}
    return mesh


def quiet(*args, **options):
    return fit(*args, key=KEY, progress=False, **options)


def test_training_on_a_mesh_is_training_on_one_device(
    flow, params, x, mesh, same, compiled
):
    options = dict(
        steps=30,
        batch_size=64,
        condition=x[:, :1] + 1,
        validation=0.3,
        evaluate_every=10,
        average=0.9,
    )
    one, history = quiet(flow, params, x, ADAM, **options)
    many, across = quiet(flow, params, x, ADAM, mesh=mesh, **options)
    same(many, one, **CLOSE)
    np.testing.assert_allclose(across["loss"], history["loss"], rtol=1e-4)
    np.testing.assert_allclose(
        across["validation_loss"], history["validation_loss"], rtol=1e-4
    )
    # What comes back can be used beside arrays of any one device.
    assert not any(leaf.committed for leaf in jax.tree.leaves(many))
    compiled.clear()
    quiet(flow, params, x, ADAM, mesh=mesh, **options)
    assert not compiled


def test_batches_from_outside_are_spread_over_the_mesh(flow, params, x, mesh, same):
    batches = [x[:128], x[128:]]
    one, _ = quiet(flow, params, batches, ADAM, steps=5)
    # A mesh of `jax.make_mesh`, whose axes are of another type.
    explicit = (jax.sharding.AxisType.Explicit,)
    other = jax.make_mesh((8,), ("data",), axis_types=explicit)
    for m in (mesh, other):
        many, _ = quiet(flow, params, batches, ADAM, steps=5, mesh=m)
        same(many, one, **CLOSE)


def test_statistics_are_those_of_the_global_batch(x, mesh, same):
    flow = make_flow(batch_norm(), normal((2,)))
    params = flow.init(KEY, x[:32])
    one, _ = quiet(flow, params, x, ADAM, steps=10)
    many, _ = quiet(flow, params, x, ADAM, steps=10, mesh=mesh)
    same(many, one, **CLOSE)


def test_init_on_a_mesh_is_init_on_one_device(flow, params, x, mesh, same):
    many = parallel.init(flow, jax.random.key(0), x, mesh)
    same(many, params, **CLOSE)
    condition = x[:, :1]
    one = flow.init(KEY, x, condition)
    two = parallel.data_mesh(jax.devices()[:2])
    same(parallel.init(flow, KEY, x, two, condition), one, **CLOSE)


def test_batches_that_cannot_be_dealt_out_are_refused(flow, params, x, mesh):
    with pytest.raises(ValueError, match=r"batch_size=100 .* choose 96 or 104"):
        quiet(flow, params, x, ADAM, steps=2, batch_size=100, mesh=mesh)
    with pytest.raises(ValueError, match=r"batch of size=100 .* 8 devices"):
        quiet(flow, params, [x[:100]], ADAM, steps=2, mesh=mesh)
    with pytest.raises(ValueError, match=r"size=5 .* choose 8"):
        parallel.init(flow, KEY, x[:5], mesh)
    with pytest.raises(ValueError, match="none of them 'data'"):
        other = jax.sharding.Mesh(jax.devices(), ("x",))
        quiet(flow, params, x, ADAM, steps=2, mesh=other)
    with pytest.raises(ValueError, match="devices is empty"):
        parallel.data_mesh([])


def test_layer_that_overflows_on_a_mesh_is_named(x, layers, mesh):
    flow = make_flow(chain(layers[0]()), normal((2,)))
    broken = flow.init(KEY, x)
    broken["bijector"][0]["log_scale"] = jnp.array([100.0, 0.0])
    for data in (x, [x]):
        with pytest.raises(FloatingPointError, match="encode > 0:scale"):
            quiet(flow, broken, data, ADAM, steps=2, mesh=mesh)


def test_samples_and_densities_of_a_mesh_are_those_of_one_device(flow, params, x, mesh):
    # A size that does not divide is padded, and the padding left out.
    for n in (16, 19):
        many = parallel.sample(flow, params, KEY, n, mesh, temperature=0.7)
        one = flow.sample(params, KEY, n, temperature=0.7)
        np.testing.assert_allclose(many, one, rtol=1e-5, atol=1e-5)
    condition = x[:, :1]
    for data, c, size in ((x[:100], None, 64), (x[:5], condition[:5], 1024)):
        found = parallel.log_prob(flow, params, data, mesh, c, batch_size=size)
        np.testing.assert_allclose(
            found, flow.log_prob(params, data, c), rtol=1e-5, atol=1e-5
        )
    with pytest.raises(ValueError, match=r"batch_size=100 .* choose 96 or 104"):
        parallel.log_prob(flow, params, x, mesh, batch_size=100)


def test_parameters_may_be_divided_as_well(mesh, same, tmp_path):
    net = mlp(32, 64, activation=jnp.tanh)
    wide = make_flow(coupling(affine(), net), normal((4,)))
    x = np.random.default_rng(0).normal(size=(128, 4)).astype(np.float32)
    params = wide.init(KEY, x)
    options = dict(steps=6, batch_size=64, validation=0.25, average=0.9)
    one, history = quiet(wide, params, x, ADAM, **options)
    sizes = set()

    def see(state, metrics):
        for leaf in jax.tree.leaves((state.params, state.opt_state, state.average)):
            sizes.add(leaf.size / leaf.addressable_shards[0].data.size)
        for leaf in jax.tree.leaves(state):
            largest = leaf.size >= 2048 and leaf.ndim == 2
            assert not largest or leaf.sharding.spec[1] == "data"

    divided = dict(mesh=mesh, shard_params=True, checkpoint=tmp_path) | options
    many, across = quiet(wide, params, x, ADAM, callbacks=[see], **divided)
    assert sizes == {1, 8}
    same(many, one, **CLOSE)
    np.testing.assert_allclose(across["loss"], history["loss"], rtol=1e-4)
    # What eight devices wrote is taken up by two, and by one that holds all.
    longer = options | {"steps": 9}
    expected, _ = quiet(wide, params, x, ADAM, **longer)
    for where in (
        dict(mesh=parallel.data_mesh(2), shard_params=True),
        dict(),
    ):
        copy = tmp_path.parent / f"{tmp_path.name}-{len(where)}"
        shutil.copytree(tmp_path, copy)
        fitted, _ = quiet(wide, params, x, ADAM, checkpoint=copy, **longer, **where)
        same(fitted, expected, **CLOSE)
    with pytest.raises(ValueError, match=r"shard_params needs mesh="):
        quiet(wide, params, x, ADAM, shard_params=True, steps=1)


def test_a_state_is_divided_as_its_parameters_are(mesh):
    params = {"kernel": jnp.ones((16, 256))}
    divided = parallel.shard_params(params, mesh)
    assert not divided["kernel"].sharding.is_fully_replicated
    for many in (divided, parallel.replicate(params, mesh)):
        state = init_state(many, ADAM, KEY, average=True, best=True)
        like = [a for a in jax.tree.leaves(state) if a.shape == (16, 256)]
        assert len(like) == 5
        assert {a.sharding for a in like} == {many["kernel"].sharding}


def everywhere(tree):
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * 8), tree)


def test_flow_runs_inside_pmap(flow, params, x):
    parts = x.reshape(8, -1, 2)
    log_prob = jax.pmap(flow.log_prob)(everywhere(params), parts)
    np.testing.assert_allclose(
        log_prob.reshape(-1), flow.log_prob(params, x), rtol=1e-5, atol=1e-5
    )
    keys = jax.random.split(KEY, 8)
    samples = jax.pmap(lambda p, k: flow.sample(p, k, 3))(everywhere(params), keys)
    for key, sample in zip(keys, samples, strict=True):
        np.testing.assert_allclose(
            sample, flow.sample(params, key, 3), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("how", ["pmap", "shard_map", "unchecked"])
def test_step_runs_inside_pmap_and_shard_map(flow, params, x, how, mesh, same):
    state = init_state(params, SGD, KEY, average=True)
    alone = jax.jit(make_train_step(flow, SGD, average=0.9))
    step = make_train_step(flow, SGD, average=0.9, axis_name="data")
    if how == "pmap":
        run = jax.pmap(step, axis_name="data")
        start, parts = everywhere(state), x.reshape(8, -1, 2)
    else:
        specs = dict(in_specs=(P(), P("data")), out_specs=P())
        checked = how == "shard_map"
        run = jax.jit(jax.shard_map(step, mesh=mesh, check_vma=checked, **specs))
        start, parts = state, x
    expected, metrics = alone(*alone(state, x)[:1], x)
    found, numbers = run(*run(start, parts)[:1], parts)
    if how == "pmap":
        found, numbers = jax.tree.map(lambda leaf: leaf[3], (found, numbers))
    same(found._replace(key=0), expected._replace(key=0), **CLOSE)
    same(numbers, metrics, rtol=1e-4)


def test_noise_differs_between_devices():
    def loss(params, x, condition, key):
        return params["p"] * jax.random.normal(key)

    optimizer = optax.sgd(1.0)
    step = make_train_step(None, optimizer, loss, axis_name="data")
    state = everywhere(init_state({"p": jnp.ones(())}, optimizer, KEY))
    _, metrics = jax.pmap(step, axis_name="data")(state, jnp.ones((8, 1, 1)))
    alone = make_train_step(None, optimizer, loss)
    _, single = alone(init_state({"p": jnp.ones(())}, optimizer, KEY), jnp.ones((1, 1)))
    assert not np.allclose(metrics["loss"][0], single["loss"])
    np.testing.assert_array_equal(metrics["loss"], metrics["loss"][0])
