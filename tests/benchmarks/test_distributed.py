"""`benchmarks/distributed.py`: two processes, one killed, the job taken up by one."""

import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import distributed

from jflow.parallel import data_mesh


def test_killed_job_stops_and_is_taken_up_by_another(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    options = distributed.arguments(["--steps", "10", "--devices", "1"])
    whole = distributed.arguments(["--steps", "10", "--processes=1", "--devices=1"])
    whole.worker = 0
    _, _, _, expected, _ = distributed.train(whole)
    with pytest.raises(RuntimeError, match=r"process 1 was killed by SIGKILL; the job"):
        distributed.job(options, 2, 1, checkpoint=tmp_path, die=5)
    steps = [int(name) for name in os.listdir(tmp_path) if name.isdigit()]
    assert steps and max(steps) <= 5
    result = distributed.job(options, 1, 4, checkpoint=tmp_path)
    np.testing.assert_allclose(result["loss"], expected["loss"], rtol=1e-5)
    # The gradient is summed, and hardly anything else sent; what is not learned is not.
    assert 0.9 < result["communicated_bytes"] / result["parameter_bytes"] < 1.1


def test_collectives_are_counted_in_bytes():
    mesh = data_mesh()

    def local(x, y):
        def body(x, _):
            return jax.lax.psum(x, "data") / 8, None

        return jax.lax.scan(body, x, length=3)[0], jax.lax.all_gather(y, "data")

    specs = dict(in_specs=(P("data"), P("data")), out_specs=P(), check_vma=False)
    run = jax.jit(jax.shard_map(local, mesh=mesh, **specs))
    program = run.lower(jnp.ones((8, 3)), jnp.ones((16, 5))).compile().as_text()
    found = sorted(distributed.collectives(program))
    assert found == [*3 * [3 * 4], 8 * 2 * 5 * 4]
