"""What the guard costs where nothing is locked, against the stock adapter and its peers.

    python tests/benchmarks/overhead.py [--json FILE] [--rounds N] [--quick]

About five minutes; `--quick` takes half a minute and shows no more than whether it works. See README.md beside this
file for how it measures, and why not with pyperf.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from contenders import (
    AGAIN,
    CONTENDERS,
    GUARD,
    LOCKS,
    STOCK,
    STREAM,
    WARM_UP,
    Contender,
    installed,
    medians,
    routes,
    taking_part,
)
from loopback import Loopback

if TYPE_CHECKING:
    from collections.abc import Iterable

SLICE_US = 15_000  # of calls in one go: switching processes empties caches, which is nobody's cost
BY_HAND = {STOCK: "resend everything, by hand", AGAIN: "by hand again (noise)"}
_ORDER = random.Random(1)
# Whether glibc gives 400 kB back to the system after each call depends on what happens to lie behind them on the
# heap, and makes a third of the time of such a call: let it keep them, for all alike.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


@dataclass
class Row:
    """One contender on one route; ratios are to the route's first contender, as quartiles over the rounds."""

    route: str
    contender: str
    wall_us: float
    cpu_us: float
    wall_ratio: tuple[float, float, float]
    cpu_ratio: tuple[float, float, float]
    peak_mb: float | None = None


def race(route: str, contenders: dict[str, Contender], seconds: float) -> dict[str, tuple[float, float]]:
    """Return each contender's median (wall, CPU); its calls lie scattered between those of the others."""
    running = [name for name in contenders if taking_part(route, name)]
    for name in running:
        warm = medians(contenders[name].times(route, 3 if route == STREAM else WARM_UP))
    pairs: dict[str, list] = {name: [] for name in running}
    calls = max(1, round(SLICE_US / warm[0]))
    for _ in range(max(4, round(seconds * 1e6 / SLICE_US))):
        _ORDER.shuffle(running)  # in a fixed order each would always find the caches as the same other left them
        for name in running:
            pairs[name] += contenders[name].times(route, calls)
    return {name: medians(pairs[name]) for name in contenders if name in pairs}


def measure_routes(base: str, options: argparse.Namespace) -> list[Row]:
    """Race on every route, round for round, each with new processes: where memory happens to lie differs too."""
    results: dict[str, dict[str, list]] = {route: {} for route in routes(base)}
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", end="\r", file=sys.stderr, flush=True)
        with contextlib.ExitStack() as stack:
            contenders = {name: stack.enter_context(Contender(name, base)) for name in installed()}
            for route, found in results.items():
                for name, times in race(route, contenders, options.seconds).items():
                    found.setdefault(name, []).append(times)
            peaks = {name: contender.peak_mb(STREAM) for name, contender in contenders.items()}
    rows = [row for route, found in results.items() for row in rows_of(route, found)]
    for row in rows:
        row.peak_mb = peaks[row.contender] if row.route == STREAM else None
        row.contender = BY_HAND.get(row.contender, row.contender) if row.route == LOCKS else row.contender
    return rows


def quartiles(values: Iterable[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def rows_of(route: str, results: dict[str, list]) -> list[Row]:
    base = next(iter(results.values()))
    rows = []
    for name, rounds in results.items():
        wall, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratios = [
            quartiles([mine[index] / theirs[index] for mine, theirs in zip(rounds, base, strict=True)])
            for index in (0, 1)
        ]
        rows.append(Row(route, name, wall, cpu, *ratios))
    return rows


_SESSION = "; requests.Session()"
IMPORTS = {
    "import": {
        name: f"import requests, {'urllib3.util.retry' if module == 'urllib3' else module}"
        for name, (*_, module) in CONTENDERS.items()
    },
    "import, and make a session": {
        STOCK: f"import requests{_SESSION}",
        AGAIN: f"import requests{_SESSION}",
        GUARD: "import requests, crm_guard; crm_guard.mount_guard(requests.Session())",
    },
}
_CHILD = """
import time
wall, cpu = time.perf_counter(), time.process_time()
{}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def import_microseconds(statement: str, cache: str) -> tuple[float, float]:
    """Return wall and CPU time of a statement in a fresh interpreter whose byte code lies in `cache`."""
    child = [sys.executable, "-X", f"pycache_prefix={cache}", "-c", _CHILD.format(statement)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(child, check=True, capture_output=True, text=True, cwd="/", env=environment)
    wall, cpu = done.stdout.split()
    return float(wall) * 1e6, float(cpu) * 1e6


def measure_imports(options: argparse.Namespace, cache: str) -> list[Row]:
    rows = []
    for route, statements in IMPORTS.items():
        chosen = {name: text for name, text in statements.items() if name in installed()}
        results: dict[str, list] = {name: [] for name in chosen}
        for text in chosen.values():  # compiles what is not compiled yet
            import_microseconds(text, cache)
        for _ in range(options.rounds):
            for name, text in chosen.items():
                tries = [import_microseconds(text, cache) for _ in range(3)]
                results[name].append(tuple(map(min, zip(*tries, strict=True))))
        rows += rows_of(route, results)
    return rows


def show(rows: list[Row]) -> None:
    def spread(ratio):
        low, middle, high = ratio
        return f"{middle:6.3f} ({low:.3f}-{high:.3f})"

    ratio, route = f"{'ratio (quartiles)':24}", ""
    print(f"{'route':29} {'contender':27} {'wall us':>10} {ratio}{'CPU us':>10} {ratio}{'peak MB':>8}")
    for row in rows:
        print("" if row.route == route else "\n", end="")
        route = row.route
        peak = f"{row.peak_mb:8.1f}" if row.peak_mb is not None else ""
        print(
            f"{route:29} {row.contender:27} {row.wall_us:10.1f} {spread(row.wall_ratio):24}"
            f"{row.cpu_us:10.1f} {spread(row.cpu_ratio):24}{peak}"
        )


def environment() -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "machine": platform.platform(),
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        **{name: version(name) for name in ("requests", "urllib3", "crm-guard")},
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--rounds", type=int, default=15, help="how many ratios each median is of (default: 15)")
    parser.add_argument("--quick", action="store_true", help="see whether it works: 3 short rounds")
    options = parser.parse_args()
    options.rounds = 3 if options.quick else options.rounds
    options.seconds = 0.02 if options.quick else 0.15
    return options


def main() -> None:
    options = arguments()
    ours, *others = sorted(os.sched_getaffinity(0))
    if others:  # one processor for all contenders, another one for the server
        os.sched_setaffinity(0, {ours})
    os.environ |= _MALLOC
    with Loopback(cpu=others[0] if others else None) as server:
        rows = measure_routes(server.url, options)
    with tempfile.TemporaryDirectory() as cache:
        rows += measure_imports(options, cache)
    show(rows)
    if options.json:
        report = {"environment": environment(), "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
