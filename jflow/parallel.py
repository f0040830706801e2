"""Meshes and data parallelism: one program, the batch spread over devices.

`jflow.fit(mesh=...)` is all that most users need, and `sample` and `log_prob` here for
what was fitted. The other functions are what these are made of, for loops of one's
own. Parameters are held whole by every device, unless `shard_params` divides them
too; axis 0 of the batch is divided among them. The numbers are those of one device, up
to the order in which sums over the batch are taken. Data parallelism as in Goyal et
al. 2017, https://arxiv.org/abs/1706.02677.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jflow.arguments import as_count, broadcast_condition, typed_key
from jflow.bijector import Array, Condition, Params

AXIS = "data"

# Parameters of fewer elements are not worth the messages of dividing them.
SMALLEST = 1024


def data_mesh(devices: int | Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with one axis, named `"data"`.

    Args:
        devices: those to use, or how many; all of the job by default, of every process
            under `jax.distributed`.

    Raises:
        ValueError: `devices` is empty, or more than there are.

    Example:
        >>> mesh = data_mesh()
        >>> mesh.shape["data"] == jax.device_count()
        True
    """
    if isinstance(devices, int):
        count = len(jax.devices())
        if not 1 <= devices <= count:
            raise ValueError(
                f"data_mesh: devices={devices}, and this job has {count}; choose 1 to "
                f"{count}. On a CPU, XLA_FLAGS=--xla_force_host_platform_device_count=N"
                " set before JAX starts makes N."
            )
        devices = jax.devices()[:devices]
    devices = jax.devices() if devices is None else list(devices)
    if not devices:
        raise ValueError("data_mesh: devices is empty; leave it out to use all.")
    return Mesh(np.asarray(devices), (AXIS,))


def check_mesh(owner: str, mesh: Mesh) -> Mesh:
    """The mesh with automatic axes, or a ValueError where it has none named `data`."""
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"{owner}: mesh is {mesh!r}, not a jax.sharding.Mesh; "
            "build one with jflow.parallel.data_mesh()."
        )
    if AXIS not in mesh.axis_names:
        raise ValueError(
            f"{owner}: mesh has axes {mesh.axis_names}, none of them {AXIS!r}; "
            "build one with jflow.parallel.data_mesh()."
        )
    # `jax.make_mesh` gives axes whose shardings are part of an array's type, under
    # which layers written for arrays of any sharding would not trace.
    return Mesh(mesh.devices, mesh.axis_names)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding that divides axis 0 among the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def check_divides(owner: str, mesh: Mesh, size: int, what: str = "batch_size") -> None:
    """Raise ValueError where `size` examples cannot be dealt out evenly."""
    count = mesh.shape[AXIS]
    if size % count:
        below, above = size // count * count, -(-size // count) * count
        choices = f"{below} or {above}" if below else f"{above}"
        raise ValueError(
            f"{owner}: {what}={size} does not divide by the mesh's {count} devices; "
            f"choose {choices}, or a mesh of fewer devices "
            "(jflow.parallel.data_mesh(jax.devices()[:n]))."
        )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The tree's arrays, held whole by every device of the mesh.

    Under `jax.distributed` every process passes the same values.

    Example:
        >>> params = replicate({"bias": jnp.zeros(2)}, data_mesh())
    """
    everywhere = replicated(check_mesh("replicate", mesh))

    def place(leaf):
        if jax.process_count() == 1:
            return jax.device_put(leaf, everywhere)
        if _is_key(leaf):
            data = place(np.asarray(jax.random.key_data(leaf)))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.jit(lambda a: a, out_shardings=everywhere)(leaf)
        local = np.asarray(leaf)
        return jax.make_array_from_process_local_data(everywhere, local, local.shape)

    return jax.tree.map(place, tree)


def shard(batch: Any, mesh: Mesh) -> Any:
    """The batch's arrays, axis 0 divided among the devices of the mesh.

    A leading axis of 1 is one value for all examples and held whole. Under
    `jax.distributed` each process passes its own examples, equally many.

    Raises:
        ValueError: the examples cannot be dealt out evenly.

    Example:
        >>> x = shard(jnp.zeros((8 * jax.device_count(), 2)), data_mesh())
    """
    mesh = check_mesh("shard", mesh)

    def place(leaf):
        if np.ndim(leaf) == 0:
            raise ValueError("shard: a batch has its examples along axis 0, not ().")
        if np.shape(leaf)[0] == 1 and mesh.shape[AXIS] > 1:
            return jax.device_put(leaf, replicated(mesh))
        size = np.shape(leaf)[0] * jax.process_count()
        check_divides("shard", mesh, size, "a batch of size")
        if jax.process_count() == 1:
            return jax.device_put(leaf, batch_sharding(mesh))
        local = np.asarray(leaf)
        return jax.make_array_from_process_local_data(batch_sharding(mesh), local)

    return jax.tree.map(place, batch)


def param_sharding(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """How an array of parameters is divided: along its larger matrix axis.

    Biases, small arrays and ones whose last two axes do not divide are held whole. An
    axis of layers, that of `repeat`, stays whole, so that each layer is put together
    when its turn comes.
    """
    count = mesh.shape[AXIS]
    axes = [i for i in range(len(shape))[-2:] if shape[i] % count == 0]
    if len(shape) < 2 or math.prod(shape) < SMALLEST or not axes:
        return replicated(mesh)
    axis = max(axes, key=lambda i: shape[i])
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def shard_params(tree: Any, mesh: Mesh) -> Any:
    """Parameters, or a state, divided among the devices instead of held whole.

    Fully sharded data parallelism (Rajbhandari et al. 2020, section 5,
    https://arxiv.org/abs/1910.02054): a device keeps its part of parameters, averages
    and optimiser state, and the compiler gathers what a layer needs when it runs. For
    models that outgrow one device; `fit(shard_params=True)` does it.

    Example:
        >>> params = shard_params({"kernel": jnp.zeros((64, 64))}, data_mesh())
    """
    mesh = check_mesh("shard_params", mesh)

    def place(leaf):
        sharding = param_sharding(np.shape(leaf), mesh)
        if sharding.is_fully_replicated or _is_key(leaf):
            return replicate(leaf, mesh)
        if jax.process_count() == 1:
            return jax.device_put(leaf, sharding)
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.jit(lambda a: a, out_shardings=sharding)(leaf)
        local = np.asarray(leaf)
        return jax.make_array_from_callback(local.shape, sharding, local.__getitem__)

    return jax.tree.map(place, tree)


def constrain_params(tree: Any, mesh: Mesh) -> Any:
    """Inside `jit`: tell the compiler to divide a tree as `shard_params` does."""
    return jax.tree.map(
        lambda leaf: jax.lax.with_sharding_constraint(
            leaf,
            replicated(mesh) if _is_key(leaf) else param_sharding(leaf.shape, mesh),
        ),
        tree,
    )


def gather(tree: Any) -> Any:
    """Arrays of a mesh, whole, as ordinary ones on the default device.

    What a mesh's devices hold cannot be mixed with what one device holds; what this
    returns can be used with either.
    """

    def leaf(a):
        if _is_key(a):
            data = np.asarray(jax.random.key_data(a))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(a))
        return jnp.array(whole(a))

    return jax.tree.map(leaf, tree)


def whole(leaf: Any) -> np.ndarray:
    """An array's values on this host, also where other processes hold parts of it."""
    if isinstance(leaf, jax.Array) and not (
        leaf.is_fully_addressable or leaf.is_fully_replicated
    ):
        leaf = replicate(leaf, leaf.sharding.mesh)
    return np.asarray(leaf)


def init(
    flow: Any, key: Array, x: Array, mesh: Mesh, condition: Condition = None
) -> Params:
    """`flow.init` on a batch that is spread over the mesh.

    Means and variances are those of the whole batch, so the parameters equal those of
    one device up to rounding; no device needs room for all activations.

    Args:
        flow: the flow.
        key: the same in every process.
        x: `(N, *event)`; under `jax.distributed`, this process's examples.
        mesh: from `data_mesh`.
        condition: as the flow takes it.

    Returns:
        Parameters as ordinary arrays on the default device.

    Raises:
        ValueError: N does not divide by the number of devices.

    Example:
        >>> import jflow
        >>> flow = jflow.flow(jflow.actnorm(), jflow.normal((2,)))
        >>> x = jnp.ones((16, 2))
        >>> params = init(flow, jax.random.key(0), x, data_mesh(jax.devices()[:1]))
    """
    mesh = check_mesh("init", mesh)
    x, condition = shard((x, condition), mesh)
    params = flow.init(replicate(key, mesh), x, condition)
    # What the compiler left divided is put together first.
    return gather(replicate(params, mesh))


def log_prob(
    flow: Any,
    params: Params,
    x: Array,
    mesh: Mesh,
    condition: Condition = None,
    key: Array | None = None,
    batch_size: int = 1024,
) -> Array:
    """`flow.log_prob` over a data set, every batch spread over the mesh.

    Args:
        flow: the flow.
        params: the same in every process.
        x: `(N, *event)`, any N; under `jax.distributed`, this process's examples.
        mesh: from `data_mesh`.
        condition: of these examples.
        key: for stochastic layers; batch i is given the i-th key folded from it.
        batch_size: examples at a time over all devices; the last batch is padded.

    Returns:
        `(N,)` in nats, on the default device; this process's.

    Raises:
        ValueError: `batch_size` does not divide by the devices, or N is 0.

    Example:
        >>> import jflow
        >>> flow, x = jflow.flow(jflow.actnorm(), jflow.normal((2,))), jnp.ones((5, 2))
        >>> params = flow.init(jax.random.key(0), x)
        >>> log_prob(flow, params, x, data_mesh()).shape
        (5,)
    """
    mesh = check_mesh("log_prob", mesh)
    n, processes = len(x), jax.process_count()
    if n == 0:
        raise ValueError("log_prob: x has no examples; pass (N, *event) with N >= 1.")
    check_divides("log_prob", mesh, batch_size)
    most = agree(n, mesh)
    needed = -(-most // (mesh.shape[AXIS] // processes))
    size = min(batch_size, needed * mesh.shape[AXIS]) // processes
    params = replicate(params, mesh)
    parts = []
    for i in range(-(-most // size)):
        # Past its end a process repeats its last example: all take part in each batch.
        rows = np.minimum(np.arange(i * size, (i + 1) * size), n - 1)
        batch = jax.tree.map(
            lambda a, rows=rows: a if a.shape[0] == 1 < n else a[rows], (x, condition)
        )
        noise = None if key is None else replicate(jax.random.fold_in(key, i), mesh)
        values = flow.log_prob(params, *shard(batch, mesh), noise)
        parts.append(_local(values))
    return jnp.concatenate(parts)[:n]


def sample(
    flow: Any,
    params: Params,
    key: Array,
    n: int,
    mesh: Mesh,
    condition: Condition = None,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> Array:
    """`flow.sample`, the samples spread over the mesh: the same ones, up to rounding.

    Args:
        flow, params, key, condition, temperature, chunk: as `flow.sample` takes them,
            the same in every process.
        n: how many; where it does not divide by the devices, a few more are drawn and
            left out.
        mesh: from `data_mesh`.

    Returns:
        `(n, *event)` on the default device, all of them in every process.

    Example:
        >>> import jflow
        >>> flow = jflow.flow(jflow.actnorm(), jflow.normal((2,)))
        >>> params = flow.init(jax.random.key(0), jnp.ones((4, 2)))
        >>> sample(flow, params, jax.random.key(1), 5, data_mesh()).shape
        (5, 2)
    """
    mesh = check_mesh("sample", mesh)
    n = as_count("sample", "n", n)
    total = -(-n // mesh.shape[AXIS]) * mesh.shape[AXIS]

    def padded(c):
        return c if c.shape[0] == 1 else c[np.minimum(np.arange(total), n - 1)]

    condition = jax.tree.map(padded, broadcast_condition("sample", condition, n))
    params, key, condition = replicate((params, typed_key(key), condition), mesh)
    run = _sampler(flow, mesh, total, chunk)
    return gather(run(params, key, condition, temperature))[:n]


@functools.lru_cache(maxsize=64)
def _sampler(flow, mesh, n, chunk):
    def run(params, key, condition, temperature):
        return flow.sample(params, key, n, condition, temperature, chunk)

    return jax.jit(run, out_shardings=batch_sharding(mesh))


def _local(values):
    """This process's part of a batch's values."""
    if jax.process_count() == 1:
        return jnp.asarray(np.asarray(values))
    shards = sorted(values.addressable_shards, key=lambda s: s.index[0].start or 0)
    return jnp.concatenate([np.asarray(s.data) for s in shards])


def _is_key(leaf):
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def agree(value: Any, mesh: Mesh | None) -> Any:
    """The largest of the processes' integers, or of each of an array of them: what
    clocks, signals and the data's ends decide. Without a mesh each decides alone.
    """
    if mesh is None or jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(np.asarray(value, np.int32)).max(axis=0)
