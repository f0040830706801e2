"""Meshes and data parallelism: one program, the batch spread over devices.

`jflow.fit(mesh=...)` is all that most users need. The functions here are what it is
made of, for loops of one's own. Parameters are held whole by every device; axis 0 of
the batch is divided among them. The numbers are those of one device, up to the order
in which sums over the batch are taken. Data parallelism as in Goyal et al. 2017,
https://arxiv.org/abs/1706.02677.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jflow.bijector import Array, Condition, Params

AXIS = "data"


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


def gather(tree: Any) -> Any:
    """Arrays that every device holds whole, as ordinary ones on the default device.

    What a mesh's devices hold cannot be mixed with what one device holds; what this
    returns can be used with either.
    """

    def leaf(a):
        if _is_key(a):
            data = np.asarray(jax.random.key_data(a))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(a))
        return jnp.array(np.asarray(a))

    return jax.tree.map(leaf, tree)


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


def _is_key(leaf):
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def agree(value: int) -> int:
    """Process 0's integer in every process: what clocks and signals decide."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))
