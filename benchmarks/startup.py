"""How long `import boundcheck` and `boundcheck --help` take, beside `import numpy` and a bare interpreter.

Every run is a fresh process, and the kinds take turns, so that a change in the machine's load meets all of them. The
least time of a kind is its cost; the median tells how noisy the machine was. The goals are stated beside the figures
and are not asserted: a slow machine is no defect.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time

KINDS = {
    "a bare interpreter": ["-c", "pass"],
    "import numpy": ["-c", "import numpy"],
    "import boundcheck": ["-c", "import boundcheck"],
    "from boundcheck import E, Claim, FiniteModel, check": [
        "-c",
        "from boundcheck import E, Claim, FiniteModel, check",
    ],
    "boundcheck --help": ["-m", "boundcheck", "--help"],
    "boundcheck check NAME --model FILE": ["-c", "MODEL"],
}
GOALS = {
    "import boundcheck": "at most 100 ms above import numpy",
    "boundcheck --help": "at most 250 ms",
}

CHECK = """
import json, os, sys, tempfile
from boundcheck.cli import run
tables = {"prior": ["1/2", "1/2"], "likelihood": [[1], [1]], "encoder": [["1/10", "9/10"]]}
with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    json.dump(tables, file)
    file.flush()
    sys.exit(run(["check", "elbo-below-evidence", "--model", file.name]))
"""


def seconds(arguments: list[str]) -> float:
    command = [sys.executable, *(CHECK if argument == "MODEL" else argument for argument in arguments)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure(rounds: int) -> dict[str, list[float]]:
    for arguments in KINDS.values():  # once unmeasured, for the files to be read and the bytecode to be written
        seconds(arguments)
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind, arguments in KINDS.items():
            times[kind].append(seconds(arguments))
    return times


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks startup", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="processes of each kind [15]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")

    times = measure(options.rounds)
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    rows = {
        kind: {"least_ms": 1000 * min(each), "median_ms": 1000 * statistics.median(each), "goal": GOALS.get(kind, "")}
        for kind, each in times.items()
    }
    if options.json:
        print(json.dumps({"machine": machine, "rounds": options.rounds, "times": rows}, indent=2))
        return 0
    print(f"{machine}, {options.rounds} rounds\n")
    print("| what | least, ms | median, ms | goal |\n|---|---:|---:|---|")
    for kind, row in rows.items():
        print(f"| `{kind}` | {row['least_ms']:.0f} | {row['median_ms']:.0f} | {row['goal']} |")
    return 0
