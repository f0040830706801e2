"""One flow trained by several processes, each feeding its own part of every batch.

    python benchmarks/distributed.py --processes 2
    python benchmarks/distributed.py --processes 2 --kill

The processes meet through `jax.distributed` on this machine and talk by gloo, as those
of a job on several hosts do. Every layout of processes and devices must give the loss
curve of one device. Steps per second on simulated devices would say nothing about
speed, so the table has what a step communicates instead: the bytes that its collective
operations return, read from the compiled program, and their share of all bytes that
the step moves (XLA's own estimate).

With `--kill`, one process is killed half-way: the job must stop with an error, and go
on from its last checkpoint on another number of processes and devices.
"""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EVENT, EXAMPLES, SEED = 16, 4096, 0
BOUND = 1e-5
COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
WIDTHS = {"f64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1}


# --- one process of the job -----------------------------------------------------------


def worker(options):
    """Train this process's part, and let the first write what came out."""
    count = options.devices
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count}"
    import jax

    jax.config.update("jax_platforms", "cpu")
    if options.processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            f"localhost:{options.port}", options.processes, options.worker
        )
    import numpy as np

    flow, optimizer, params, history, mesh = train(options)
    result = {
        "loss": history["loss"].tolist(),
        "log_prob": np.asarray(flow.log_prob(params, make_data()[:64])).tolist(),
    } | communication(flow, optimizer, params, mesh, options)
    if options.worker == 0:
        Path(options.out).write_text(json.dumps(result))


def train(options):
    """Fit a flow, this process feeding its part of every batch."""
    import jax
    import numpy as np

    import jflow

    flow, optimizer = make_flow(), jflow.train.adam(1e-3)
    mesh = jflow.parallel.data_mesh(options.processes * options.devices)
    rows, local = make_data(), options.batch // options.processes
    mine = slice(options.worker * local, (options.worker + 1) * local)

    def batches(step):
        while True:
            chosen = np.random.default_rng([SEED, step]).integers(EXAMPLES, size=512)
            yield rows[chosen[: options.batch]][mine]
            step += 1

    def die(state, metrics):
        if options.worker == options.processes - 1 and metrics["step"] >= options.die:
            os.kill(os.getpid(), signal.SIGKILL)

    key = jax.random.key(SEED)
    params = jflow.parallel.init(flow, key, rows[: options.batch][mine], mesh)
    params, history = jflow.fit(
        flow,
        params,
        batches,
        optimizer,
        key=key,
        steps=options.steps,
        mesh=mesh,
        shard_params=options.fsdp,
        checkpoint=options.checkpoint,
        checkpoint_every=max(options.steps // 10, 1),
        callbacks=[die] if options.die else [],
        steps_per_dispatch=max(options.steps // 20, 1),
        progress=False,
    )
    return flow, optimizer, params, history, mesh


def make_flow():
    """Couplings wide enough that parameters outweigh their bookkeeping."""
    import jflow

    step = jflow.chain(
        jflow.actnorm(),
        jflow.random_permutation(),
        jflow.coupling(jflow.scalars.affine(), jflow.nets.mlp(64, 64)),
    )
    return jflow.flow(jflow.repeat(step, 4), jflow.normal((EVENT,)))


def make_data():
    """Correlated, skewed rows: the same in every process."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    rows = rng.normal(size=(EXAMPLES, EVENT)) @ rng.normal(size=(EVENT, EVENT))
    return np.sinh(0.3 * rows).astype(np.float32)


def communication(flow, optimizer, params, mesh, options):
    """What one compiled step sends, and XLA's estimate of what it moves in all."""
    import jax

    from jflow import parallel
    from jflow.train import init_state, make_train_step
    from jflow.train.dispatch import Target, one_step

    state = init_state(params, optimizer, jax.random.key(SEED))
    place = parallel.shard_params if options.fsdp else parallel.replicate
    local = options.batch // options.processes
    batch = parallel.shard(make_data()[:local], mesh), None
    run = one_step(make_train_step(flow, optimizer), Target(mesh, options.fsdp))
    program = run.lower(place(state, mesh), batch, 0).compile()
    moved = program.cost_analysis()
    moved = moved[0] if isinstance(moved, list) else moved
    found = collectives(program.as_text())
    # XLA's estimate has the body of a loop once, so this must as well.
    once = sum(collectives(program.as_text(), loops=False))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    return {
        "parameter_bytes": size,
        "collectives": len(found),
        "communicated_bytes": sum(found),
        "share": once / moved["bytes accessed"],
    }


def collectives(program: str, loops: bool = True) -> list[int]:
    """Bytes that each collective operation of a compiled program returns when it runs.

    Those in the body of a loop are listed as often as the loop goes round, or once
    where `loops` is False.
    """
    bodies, name, entry = {}, None, None
    for line in program.splitlines():
        if header := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            name = header[2]
            entry = name if header[1] else entry
            bodies[name] = []
        elif name is not None:
            bodies[name].append(line)

    def within(computation):
        found = []
        for line in bodies.get(computation, []):
            if match := re.search(rf"= (.+?) (?:{COLLECTIVES})(?:-start)?\(", line):
                found.append(size_of(match[1]))
                continue
            trips = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', line)
            inner = re.findall(r"(?:body|calls|to_apply)=%?([\w.\-]+)", line)
            for branches in re.findall(r"branch_computations=\{(.*?)\}", line):
                inner += [name.strip(" %") for name in branches.split(",")]
            for called in inner:
                found += within(called) * (int(trips[1]) if trips and loops else 1)
        return found

    return within(entry)


def size_of(shapes: str) -> int:
    """Bytes of the arrays in an instruction's type."""
    size = 0
    for dtype, dims in re.findall(r"([a-z]+\d*)\[([\d,]*)\]", shapes):
        elements = 1
        for dim in filter(None, dims.split(",")):
            elements *= int(dim)
        size += elements * WIDTHS.get(dtype, 4)
    return size


# --- the job --------------------------------------------------------------------------


def job(options, processes, devices, **extra):
    """Start the processes and wait: their result, or a RuntimeError that says why not.

    The first that fails ends all: the others would wait for it.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        shared = {
            "processes": processes,
            "devices": devices,
            "port": free_port(),
            "out": out,
            "steps": options.steps,
            "batch": options.batch,
        } | extra
        flags = [f"--{name}={value}" for name, value in shared.items()]
        flags += ["--fsdp"] if options.fsdp else []
        logs = [Path(folder) / f"log.{i}" for i in range(processes)]
        running = []
        for i, log in enumerate(logs):
            command = [sys.executable, __file__, *flags, f"--worker={i}"]
            with log.open("w") as file:
                running.append(subprocess.Popen(command, stdout=file, stderr=file))
        try:
            failed = wait(running)
        finally:
            for process in running:
                process.kill()
                process.wait()
        if failed is not None:
            raise RuntimeError(why(failed, running[failed].returncode, logs[failed]))
        return json.loads(out.read_text())


def wait(running):
    """The index of the first process that failed, or None once all are done."""
    while True:
        codes = [process.poll() for process in running]
        failed = [i for i, code in enumerate(codes) if code]
        if failed:
            # Of several, the one that was killed is the cause.
            return min(failed, key=lambda i: codes[i])
        if all(code == 0 for code in codes):
            return None
        time.sleep(0.2)


def why(index, code, log):
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended {code}"
    tail = "\n  ".join(log.read_text().strip().split("\n")[-5:])
    return (
        f"process {index} {how}; the job is stopped. Started again, on any number of "
        f"processes, it goes on from its last checkpoint.\n  {tail}"
    )


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def gap(result, reference):
    """The largest relative difference between two loss curves."""
    pairs = zip(result["loss"], reference["loss"], strict=True)
    return max(abs(a - b) / abs(b) for a, b in pairs)


def compare(options):
    """Every layout against one device: rows of the table."""
    layouts = [(1, int(d)) for d in options.layouts.split(",") if d]
    layouts += [(options.processes, 1)] if options.processes > 1 else []
    reference = job(options, 1, 1)
    rows = []
    for processes, devices in [(1, 1), *layouts]:
        first = (processes, devices) == (1, 1)
        result = reference if first else job(options, processes, devices)
        rows.append(
            {
                "processes": processes,
                "devices": processes * devices,
                "final loss (nats)": result["loss"][-1],
                "loss differs by": gap(result, reference),
                "collectives": result["collectives"],
                "KiB per step": result["communicated_bytes"] / 1024,
                "share": result["share"],
                "parameters (KiB)": result["parameter_bytes"] / 1024,
            }
        )
    return rows


def kill_and_resume(options):
    """Kill a process half-way, and go on elsewhere: the error, and the difference."""
    reference = job(options, 1, 1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            half = options.steps // 2
            job(options, options.processes, 1, checkpoint=folder, die=half)
            raise SystemExit("a process was killed and the job went on")
        except RuntimeError as error:
            message = str(error)
        left = sorted(int(name) for name in os.listdir(folder) if name.isdigit())
        resumed = job(options, 1, 2 * options.processes, checkpoint=folder)
    return {"error": message, "from": left, "differs": gap(resumed, reference)}


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--layouts", default="2,4,8", help="devices of one process")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--fsdp", action="store_true", help="divide parameters too")
    parser.add_argument("--kill", action="store_true", help="kill one, then resume")
    parser.add_argument("--results", type=Path, help="a JSON file for the table")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    for name in ("devices", "port", "die"):
        parser.add_argument(f"--{name}", type=int, default=0, help=argparse.SUPPRESS)
    for name in ("out", "checkpoint"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv=None):
    options = arguments(argv)
    if options.worker is not None:
        worker(options)
        return
    from report import provenance, table, write_json

    content = provenance("distributed.py", argv)
    content |= {"steps": options.steps, "batch": options.batch, "fsdp": options.fsdp}
    if options.kill:
        content |= kill_and_resume(options)
        print(content["error"])
        print(
            f"checkpoints left: {content['from']}; resumed on {2 * options.processes}"
        )
        print(f"devices, the loss differs by {content['differs']:.2g}")
        worst = content["differs"]
    else:
        rows = compare(options)
        content["rows"] = rows
        print(table(rows[0], [[cell(v) for v in row.values()] for row in rows]))
        worst = max(row["loss differs by"] for row in rows)
    if options.results:
        write_json(options.results, content)
    if worst > BOUND:
        raise SystemExit(f"losses differ by {worst:.2g}, more than {BOUND:g}")


def cell(value):
    return f"{value:.4g}" if isinstance(value, float) else value


if __name__ == "__main__":
    main()
