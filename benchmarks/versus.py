"""The same work through jflow and through every peer that is installed, in one run.

    pip install "jflow[peers]"              # or some of them, or none
    python benchmarks/versus.py --quick     # within 15 minutes on two cores
    python benchmarks/versus.py             # every case, five rounds
    python benchmarks/versus.py --cases spline-8 --libraries jflow flowjax
    python benchmarks/versus.py --python ~/torch-env/bin/python

Each library's run of a case is a process of its own, pinned to the same core (or
`--cores 2`), with its import, compilation and steady calls timed; rounds go through all
libraries by turns, so that what else the machine does meets all alike. On one core the
table has CPU time, which other processes disturb least, on several wall time. Ratios
are each library's over jflow's within the round, their median over rounds: above 1
jflow is ahead. Peers are found in the interpreter this runs in and in those named by
`--python`; what is not installed is left out, and named. A case is saved as soon as it
is done, and takes its former place in the file, so cases may be run one by one.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

from peers import CASES, LIBRARIES, PROBE, QUICK, does, operations, package
from report import RESULTS, provenance, table, write_json

HERE = Path(__file__).resolve().parent
RUN = HERE / "versus_run.py"
# Beyond it, a library's model is another model.
SAME_SIZE = 0.02
TIMES = ("import", "build", "first_step", "step", "log_prob", "sample")
FIT = ("fit", "fit_again")
FIND = """
import importlib.metadata as m, importlib.util as u, json, sys
installed = {d.name: d.version for d in m.distributions()}
print(json.dumps({p: installed.get(p) for p in sys.argv[1:] if u.find_spec(p)}))
"""


def main() -> None:
    """Run, print, save: each case when it is done, so that a long run can be cut."""
    options = arguments()
    cpus = sorted(os.sched_getaffinity(0))[: options.cores]
    libraries = locate(options.libraries, [sys.executable, *options.python])
    clock = "cpu" if options.cores == 1 else "wall"
    origin = provenance("versus.py")
    origin["versions"] |= {n: v for n, (_, v) in libraries.items() if v}
    origin |= {"cores": options.cores, "rounds": options.rounds}
    for case in options.cases:
        part = {name: at for name, at in libraries.items() if does(name, CASES[case])}
        runs = {}
        for turn in range(options.rounds):
            # The machine's limit, in the same rounds.
            for name, (python, _) in {PROBE: (sys.executable, ""), **part}.items():
                print(f"{case}, round {turn + 1}: {name}", file=sys.stderr, flush=True)
                result = run(python, name, case, cpus, options.budget)
                runs.setdefault(name, []).append(result)
        result = summary(case, runs, clock)
        print(report(result), flush=True)
        store(options.output, result | origin)


def store(path: Path, result: dict) -> None:
    """Put a case into the file; its other cases, each with its own origin, stay."""
    cases = json.loads(path.read_text())["cases"] if path.exists() else []
    cases = {case["case"]: case for case in [*cases, result]}
    write_json(path, {"cases": [cases[name] for name in CASES if name in cases]})


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few cases, one round")
    parser.add_argument("--cases", nargs="+", choices=CASES)
    parser.add_argument(
        "--libraries", nargs="+", choices=LIBRARIES, default=[*LIBRARIES]
    )
    parser.add_argument("--python", nargs="+", default=[], help="more interpreters")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--budget", type=float, help="seconds of steady calls")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    everything = [name for name in CASES if not name.startswith("tiny")]
    options.cases = options.cases or (list(QUICK) if options.quick else everything)
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.budget = options.budget or (0.5 if options.quick else 2.0)
    name = f"versus_{'quick_' if options.quick else ''}{options.cores}_cores.json"
    options.output = options.output or RESULTS / name
    return options


def locate(names: list[str], pythons: list[str]) -> dict[str, tuple[str, str]]:
    """Each library's interpreter and version; those that are nowhere are named."""
    packages = sorted({package(name) for name in names})
    found = {}
    for python in pythons:
        command = [python, "-c", FIND, *packages]
        out = subprocess.run(
            command, env=environment(), capture_output=True, text=True, check=True
        ).stdout
        for name, version in json.loads(out).items():
            found.setdefault(name, (python, version))
    located = {}
    for name in names:
        if package(name) in found:
            located[name] = found[package(name)]
        else:
            print(f"left out: {name}, not installed")
    return located


def environment() -> dict[str, str]:
    """This checkout's jflow first, whatever else is installed."""
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.getenv("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}


def run(python: str, library: str, case: str, cpus: list[int], budget: float) -> dict:
    """One process; where it fails, the last line of why."""
    done = subprocess.run(
        [
            python,
            RUN,
            library,
            case,
            "--budget",
            str(budget),
            "--cpus",
            *map(str, cpus),
        ],
        env=environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raised = [
            line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)
        ]
        return {"error": [*lines[-1:], *raised][-1]}
    return json.loads(done.stdout.splitlines()[-1])


def summary(case: str, runs: dict, clock: str) -> dict:
    """Medians over the rounds, and ratios within them."""
    limits, ours = runs[PROBE], runs.get("jflow", [])
    keys = FIT if CASES[case].kind == "fit" else TIMES
    rows = {}
    for name, results in runs.items():
        if name == PROBE:
            continue
        good = [r for r in results if "error" not in r]
        if len(good) < len(results):
            rows[name] = {"error": next(r["error"] for r in results if "error" in r)}
        else:
            rows[name] = _row(good, ours, keys, clock)
    peak = median(limit["peak"][clock] for limit in limits)
    body = median(limit["body"][clock] for limit in limits)
    needed = operations(CASES[case])
    for row in rows.values():
        if "step" in row:
            row["limit_fraction"] = needed / peak / row["step"]
    return {
        "case": case,
        "clock": clock,
        "operations": needed,
        "peak_rate": peak,
        "body_rate": body,
        "rows": rows,
    }


def _row(results, ours, keys, clock):
    row = {key: median(r[key][clock] for r in results) for key in ("import", *keys)}
    for key in ("parameters", "peak_MiB", "temporaries_MiB", "loss", "steps"):
        if key in results[0]:
            row[key] = median(r[key] for r in results)
    both = [(r, o) for r, o in zip(results, ours, strict=False) if "error" not in o]
    if both:
        row["ratio"] = {
            key: median(r[key][clock] / o[key][clock] for r, o in both) for key in keys
        }
        size = row["parameters"] / both[0][1]["parameters"]
        row["same_size"] = abs(size - 1) <= SAME_SIZE
    return row


def report(result: dict) -> str:
    """A case's table, the fastest step first."""
    rate = f"{result['peak_rate'] / 1e9:.0f} GFLOP/s at 1,024^3"
    if CASES[result["case"]].kind == "fit":
        columns, key = FIT, "fit"
        extra = ("loss", "steps", "parameters", "peak_MiB")
    else:
        columns, key = TIMES, "step"
        extra = ("limit_fraction", "parameters", "peak_MiB", "temporaries_MiB")
    lines = []
    good = {n: r for n, r in result["rows"].items() if "error" not in r}
    for name, row in sorted(good.items(), key=lambda pair: pair[1][key]):
        shown = [_time(row[c], row.get("ratio", {}).get(c)) for c in columns]
        mark = "" if row.get("same_size", True) else " *"
        lines.append([name + mark, *shown, *(_number(row.get(c)) for c in extra)])
    text = f"\n### {result['case']} ({result['clock']} time; {rate})\n\n"
    text += table(("library", *columns, *extra), lines)
    if any(line[0].endswith("*") for line in lines):
        text += f"\n\n\\* parameters differ from jflow's by more than {SAME_SIZE:.0%}"
    for name, row in result["rows"].items():
        if "error" in row:
            text += f"\n\n{name} failed: {row['error']}"
    return text


def _time(seconds, ratio):
    shown = f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"
    return shown if ratio is None else f"{shown} x{ratio:.2f}"


def _number(value):
    if value is None:
        return "-"
    return f"{value:.3f}" if value < 10 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
