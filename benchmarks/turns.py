"""Libraries' calls by turns in one process, for ratios that a busy machine keeps.

    python benchmarks/turns.py realnvp-64 jflow distrax --cores 2
    python benchmarks/turns.py glow jflow jflow@../older --calls step

Many a machine's clock moves by a third from one minute to the next, more than what is
to be measured, and `versus.py`'s rounds are minutes apart. Here one call follows the
other, first one first, then the other, and a ratio is the median over such pairs of
the library's wall time over the first one's: above 1 the first is ahead. Each call
finds the caches as the other left them. `jflow@DIR` is the jflow of another checkout.
"""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from peers import CALLS, CASES, Work
from report import HERE, RESULTS, provenance, table, write_json
from versus_run import clock, pin

HEADER = ("call", "library", "shortest ms", "median ms", "CPU ms", "ratio")


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("libraries", nargs="+", help="with jflow:reversible, jflow@DIR")
    parser.add_argument("--calls", nargs="+", choices=CALLS, default=CALLS)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--output", type=Path, default=RESULTS / "turns.json")
    options = parser.parse_args()
    if CASES[options.case].kind == "fit":
        parser.error("fit compiles anew in each process; take versus.py")
    pin(sorted(os.sched_getaffinity(0))[: options.cores])
    sys.path.insert(0, str(HERE.parent))  # This jflow, whatever else is installed.
    origin = provenance("turns.py")
    works = {n: load(n, options.case, options.calls) for n in options.libraries}
    rows = [
        row for call in options.calls for row in by_turns(works, call, options.pairs)
    ]
    print(table(HEADER, rows))
    result = {"case": options.case, "libraries": options.libraries}
    result |= {"cores": options.cores, "pairs": options.pairs}
    store(options.output, result | {"header": HEADER, "rows": rows} | origin)


def load(name: str, case: str, calls: Sequence[str]) -> Work:
    """A library's work, compiled."""
    library, _, checkout = name.partition("@")
    if not checkout:
        return _compiled(library, case, calls)
    before = _forget()
    sys.path[:0] = [checkout, os.path.join(checkout, "benchmarks")]
    try:
        return _compiled(library, case, calls)
    finally:
        del sys.path[:2]
        _forget()
        sys.modules.update(before)


def _compiled(library, case, calls):
    module, _, variant = library.partition(":")
    cases = importlib.import_module("peers").CASES
    work = importlib.import_module(f"peers.with_{module}").build(
        cases[case], variant or None
    )
    for call in calls:
        work.wait(getattr(work, call)())
    return work


def _forget():
    """Modules of jflow and of the cases, which are forgotten."""
    ours = [m for m in sys.modules if m.split(".")[0] in ("jflow", "peers")]
    return {m: sys.modules.pop(m) for m in ours}


def by_turns(works: dict[str, Work], call: str, pairs: int) -> list[tuple]:
    """A row for each library, of calls that follow each other in changing order."""
    names = list(works)
    times = {name: [] for name in names}
    for turn in range(pairs):
        for name in reversed(names) if turn % 2 else names:
            with clock() as passed:
                works[name].wait(getattr(works[name], call)())
            times[name].append(passed())
    wall, cpu = (
        {name: [1e3 * t[k] for t in times[name]] for name in names}
        for k in ("wall", "cpu")
    )
    first = wall[names[0]]
    return [
        (
            call,
            name,
            min(wall[name]),
            median(wall[name]),
            sum(cpu[name]) / pairs,
            median(a / b for a, b in zip(wall[name], first, strict=True)),
        )
        for name in names
    ]


def store(path: Path, result: dict) -> None:
    """Put a run into the file, in the place of the same comparison's last one."""

    def same(run):
        return all(run[k] == result[k] for k in ("case", "libraries", "cores"))

    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    kept = [run for run in runs if not same(run)]
    write_json(path, {"runs": [*kept, result]})


if __name__ == "__main__":
    main()
