"""Long tests of what must never fail: random compositions, and kills of a training.

    python benchmarks/soak.py --compositions 1000
    python benchmarks/soak.py --kills 20

Compositions of all combinators and layers are held to the contract in double
precision; the seed is printed, and `--seed S --first I --compositions 1` repeats
composition I alone. A killed training is started again until it is done, and must end
with the parameters, bit for bit, of one that was never stopped.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import jax
import numpy as np
from compositions import compose, examine
from flags import compile_cheaply
from report import provenance, write_json

import jflow

STEPS = 200


def soak(seed, first, count, minutes):
    """Examine compositions; those that fail, and how many were examined."""
    failures, began = [], time.monotonic()
    for i in range(first, first + count):
        if time.monotonic() - began > 60 * minutes:
            return failures, i - first
        rng = random.Random(f"{seed}/{i}")
        composition = compose(rng.choice)
        try:
            fault = examine(composition, seed)
        # An exception is a failure as well, and the next composition may be right.
        except Exception as error:
            fault = f"{composition.text}\nraised {type(error).__name__}: {error}"
        if fault is not None:
            failures.append({"index": i, "seed": seed, "fault": fault})
            print(f"FAILED {i} (seed {seed}): {composition}\n{fault}", flush=True)
        if (i + 1) % 20 == 0:
            print(f"{i + 1} examined, {len(failures)} failures", flush=True)
            # What was compiled is never used again.
            jax.clear_caches()
    return failures, count


def train(directory):
    """The training that is killed; it says each step, so that its killer can choose."""
    step = jflow.chain(
        jflow.actnorm(), jflow.coupling(jflow.scalars.affine(), jflow.nets.mlp(8))
    )
    flow = jflow.flow(jflow.repeat(step, 2), jflow.normal((2,)))
    x = np.random.default_rng(0).normal(size=(256, 2)).astype(np.float32)
    x[:, 1] += x[:, 0] ** 2
    params, _ = jflow.fit(
        flow,
        flow.init(jax.random.key(0), x),
        x,
        jflow.train.adam(1e-2),
        key=jax.random.key(1),
        steps=STEPS,
        batch_size=32,
        validation=0.25,
        evaluate_every=7,
        average=0.99,
        checkpoint=directory,
        checkpoint_every=20,
        callbacks=[lambda state, metrics: print(metrics["step"], flush=True)],
        steps_per_dispatch=5,
        progress=False,
    )
    jflow.save(Path(directory) / "final.npz", params)


def kills(seed, count):
    """Kill a training `count` times at random steps: whether it ends as if never."""
    rng, done = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as calm, tempfile.TemporaryDirectory() as folder:
        run(calm)
        while done < count:
            # A run that is done is begun anew.
            if (Path(folder) / "final.npz").exists():
                compare(calm, folder)
                for old in Path(folder).iterdir():
                    subprocess.run(["rm", "-r", str(old)], check=True)
            # After how many lines, and how much later: also within a save.
            done += run(folder, rng.randrange(1, 20), rng.random() * 0.05)
            print(f"killed {done} times", flush=True)
        run(folder)
        compare(calm, folder)


def run(folder, lines=None, delay=0.0):
    """Train, and kill after some lines: whether it came to that."""
    command = [sys.executable, __file__, "--train", folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for i, _ in enumerate(process.stdout):
        if i + 1 == lines:
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
    code = process.wait()
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"the training ended with {code}")
    return code == -signal.SIGKILL


def compare(calm, folder):
    a, b = (jflow.load(Path(f) / "final.npz") for f in (calm, folder))
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(one, other)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--compositions", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after these")
    parser.add_argument("--results", type=Path, help="a JSON file")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.train:
        train(options.train)
        return
    print(f"seed {options.seed}", flush=True)
    compile_cheaply()
    found = provenance("soak.py", argv) | {"seed": options.seed}
    if options.kills:
        kills(options.seed, options.kills)
        found["kills"] = options.kills
        print(f"{options.kills} kills: the parameters are bit for bit the same")
    failures = []
    if options.compositions:
        failures, examined = soak(
            options.seed, options.first, options.compositions, options.minutes
        )
        found |= {"first": options.first, "examined": examined, "failures": failures}
        print(f"seed {options.seed}: {examined} compositions, {len(failures)} failures")
    if options.results:
        write_json(options.results, found)
    if failures:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
