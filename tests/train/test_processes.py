"""Two processes that train together stop together, whatever one's data do."""

import os
import socket
import subprocess
import sys

import pytest

WORKER = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_collectives_implementation", "gloo")
port, rank, kind, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
jax.distributed.initialize(f"localhost:{port}", 2, rank)
import jflow

def batches():
    for i in range(6 if kind != "ends" or rank == 0 else 5):
        if kind == "raises" and (rank, i) == (1, 5):
            raise LookupError("a file is missing")
        rows = 3 if kind == "sizes" and (rank, i) == (1, 5) else 2
        yield np.ones((rows, 1), np.float32)

def square(params, x, condition, key):
    return jnp.mean((params["p"] - x) ** 2)

try:
    _, history = jflow.fit(
        None, {"p": jnp.zeros(())}, batches(), optax.sgd(0.1), loss=square,
        key=jax.random.key(0), steps=9, mesh=jflow.parallel.data_mesh(2),
        checkpoint=folder, progress=False,
    )
    print(history["stopped"], len(history["loss"]))
except Exception as error:
    print(type(error).__name__, error, int(error.state.step))
"""


@pytest.mark.parametrize(
    "kind, first, second",
    [
        ("ends", "data 5", "data 5"),
        (
            "raises",
            "RuntimeError fit: the data of another",
            "LookupError a file is mis",
        ),
        (
            "sizes",
            *2
            * ["ValueError fit: batches of step 5 differ in size: one process has 67%"],
        ),
    ],
)
def test_data_that_end_or_fail_in_one_process(tmp_path, kind, first, second):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, port, str(rank), kind, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "XLA_FLAGS": ""},
        )
        for rank in range(2)
    ]
    said = [job.communicate(timeout=120)[0].splitlines()[-1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    assert said[0].startswith(first) and said[1].startswith(second), said
    # What was trained until then is on the disk, by both.
    assert [name for name in os.listdir(tmp_path) if name.isdigit()] == ["5"]
