"""Training memory and compile time against depth: stored, and rebuilt by inversion.

    python benchmarks/memory.py            # prints a table, saves it as JSON
    python benchmarks/memory.py --depths 8 32

For a dense step (actnorm, linear map, affine coupling; D = 64, batch 1024) and for one
level of Glow on 32 x 32 x 3 images (batch 16): the temporary bytes of the compiled
gradient, the processor time to trace and compile it, and the scan under which the
filter gradient of a convolution must not be slow (see `jflow/nets/conv.py`): the time
of one step of the level relative to the same level unrolled.
"""

import argparse
import time

import jax
import jax.numpy as jnp
from report import RESULTS, provenance, table, write_json

import jflow

HEADER = ("case", "depth", "reversible", "temporaries MiB", "trace + compile CPU-s")


def step(net):
    """One step of flow."""
    return jflow.chain(
        jflow.actnorm(),
        jflow.invertible_linear(),
        jflow.coupling(jflow.scalars.affine(), net),
    )


def dense(depth, **options):
    """`depth` steps over vectors."""
    return jflow.repeat(step(jflow.nets.mlp(128, 128)), depth, **options)


def glow_level(depth, **options):
    """One level of Glow."""
    steps = jflow.repeat(step(jflow.nets.glow_net(64)), depth, **options)
    return jflow.chain(jflow.squeeze(), steps, jflow.unsqueeze())


def gradient(bijector):
    """The jitted gradient of a flow's loss, with respect to params and data."""

    def loss(params, x):
        z, log_det = bijector.forward(params, x)
        return (z**2).sum() / 2 - log_det.sum()

    return jax.jit(jax.grad(loss, argnums=(0, 1)))


def compiled(bijector, shape):
    """The compiled gradient, and what it took."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    params = jax.eval_shape(bijector.init, jax.random.key(0), x)
    before = time.process_time()
    program = gradient(bijector).lower(params, x).compile()
    return program, time.process_time() - before


def measure(name, build, shape, depths):
    """A row for each depth, stored and reversible."""
    for reversible in (True, False):
        for depth in depths:
            program, seconds = compiled(build(depth, reversible=reversible), shape)
            size = program.memory_analysis().temp_size_in_bytes
            yield name, depth, reversible, size / 2**20, seconds


def scan_guard(depth=4, rounds=5):
    """The time of a scanned level relative to an unrolled one, in the same run."""
    net = jflow.nets.glow_net(64)
    x = jax.random.normal(jax.random.key(0), (16, 16, 16, 12))
    fastest = []
    for b in (
        jflow.repeat(step(net), depth),
        jflow.chain(*[step(net) for _ in range(depth)]),
    ):
        params = jax.jit(b.init)(jax.random.key(1), x)
        grad = gradient(b)
        times = []
        for _ in range(rounds + 1):
            before = time.process_time()
            jax.block_until_ready(grad(params, x))
            times.append(time.process_time() - before)
        fastest.append(min(times[1:]))
    return fastest[0] / fastest[1]


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 32, 128])
    depths = parser.parse_args().depths
    results = provenance("memory.py")
    rows = [
        *measure("dense, D = 64", dense, (1024, 64), depths),
        *measure("Glow level, 32 x 32 x 3", glow_level, (16, 32, 32, 3), depths),
    ]
    print(table(HEADER, rows))
    ratio = scan_guard()
    print(f"\nGlow level, gradient, scanned over unrolled: {ratio:.2f}")
    results |= {
        "rows": [dict(zip(HEADER, row, strict=True)) for row in rows],
        "scanned_over_unrolled": ratio,
    }
    write_json(RESULTS / "memory.json", results)


if __name__ == "__main__":
    main()
