"""What the guard costs where nothing is locked, against the stock adapter and its peers.

    python tests/benchmarks/overhead.py [--json FILE] [--rounds N] [--quick]

About four minutes; `--quick` takes 20 seconds and shows no more than whether it works. See README.md beside this
file for how it measures, and why not with pyperf.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from canned import MANY_RECORDS, ONE_RECORD, InstantClock
from loopback import Loopback
from requests.adapters import HTTPAdapter
from urllib3 import Retry

import crm_guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

JSON = {"Content-Type": "application/json"}
SLICE = 5
STOCK, AGAIN, GUARD = "stock", "stock again (noise)", "crm_guard"
# Peers that are installed take part; the module tells.
PEERS = {
    "urllib3.Retry": "urllib3",
    "CacheControl": "cachecontrol",
    "requests-ratelimiter": "requests_ratelimiter",
    "tenacity": "tenacity",
    "backoff": "backoff",
}

Call = "Callable[[], requests.Response]"
Send = "Callable[[requests.Session], requests.Response]"


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


def routes(base: str) -> dict[str, Send]:
    def put(path, body):
        return lambda session: session.put(base + path, data=body, headers=JSON)

    return {
        "PUT one record, success": put("Leads/1", ONE_RECORD),
        "PUT 100 records, success": put("Leads/many", MANY_RECORDS),
        "GET 200 records": lambda session: session.get(base + "Leads"),
        "PUT one record, INVALID_DATA": put("Leads/2", ONE_RECORD),
        "GET 64 MB, streamed": lambda session: download(session, base + "files"),
        "PUT 100 records, 10 locked": put("Leads/locked", MANY_RECORDS),
    }


def download(session: requests.Session, url: str) -> requests.Response:
    with session.get(url, stream=True) as response:
        for _ in response.iter_content(1 << 20):
            pass
    return response


def locked(response: requests.Response) -> bool:
    """Tell what a hand-written loop asks: whether any item is a lock."""
    if "json" not in response.headers.get("Content-Type", ""):
        return False
    return any(item.get("code") == "RECORD_LOCKED" for item in response.json().get("data", ()))


def by_hand(call: Call) -> requests.Response:
    while locked(response := call()):
        pass
    return response


def with_tenacity(call: Call) -> requests.Response:
    import tenacity

    return tenacity.Retrying(
        retry=tenacity.retry_if_result(locked), wait=tenacity.wait_none(), stop=tenacity.stop_after_attempt(30)
    )(call)


def with_backoff(call: Call) -> requests.Response:
    import backoff

    return backoff.on_predicate(backoff.constant, locked, interval=0, jitter=None, max_tries=30)(call)()


def adapters() -> dict[str, Callable[[], HTTPAdapter]]:
    """Return how to make each contender that is an adapter."""

    def cache():
        from cachecontrol import CacheControlAdapter

        return CacheControlAdapter()

    def limiter():
        from requests_ratelimiter import LimiterAdapter

        return LimiterAdapter(per_second=1_000_000, burst=1_000_000)

    return {
        STOCK: HTTPAdapter,
        AGAIN: HTTPAdapter,
        GUARD: lambda: crm_guard.GuardAdapter(crm_guard.GuardSettings(), clock=InstantClock()),
        "urllib3.Retry": lambda: HTTPAdapter(
            max_retries=Retry(3, status_forcelist=[429, 503], allowed_methods=None)
        ),
        "CacheControl": cache,
        "requests-ratelimiter": limiter,
    }


def session_with(adapter: HTTPAdapter) -> requests.Session:
    session = requests.Session()
    session.mount("http://127.0.0.1", adapter)
    return session


def installed(contender: str) -> bool:
    return contender not in PEERS or importlib.util.find_spec(PEERS[contender]) is not None


def contenders(send: Send, *, resends: bool) -> dict[str, Call]:
    """Return what to time on a route, first what the others are compared with."""
    loops = {"tenacity": with_tenacity, "backoff": with_backoff}
    if resends:
        loops = {"resend everything, by hand": by_hand, "by hand again (noise)": by_hand} | loops
    made = {} if resends else adapters()
    calls = {name: bound(send, make()) for name, make in made.items() if installed(name)}
    for name, loop in loops.items():
        if installed(name):
            calls[name] = looped(loop, bound(send, HTTPAdapter()))
    return calls | ({GUARD: bound(send, adapters()[GUARD]())} if resends else {})


def bound(send: Send, adapter: HTTPAdapter) -> Call:
    session = session_with(adapter)
    return lambda: send(session)


def looped(loop: Callable[[Call], requests.Response], call: Call) -> Call:
    return lambda: loop(call)


def timed(call: Callable[[], object]) -> tuple[int, int]:
    """Return wall and CPU nanoseconds of one call."""
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    call()
    cpu = time.process_time_ns() - cpu
    return time.perf_counter_ns() - wall, cpu


def medians(pairs: list[tuple[int, int]]) -> tuple[float, float]:
    wall, cpu = zip(*pairs, strict=True)
    return statistics.median(wall) / 1e3, statistics.median(cpu) / 1e3


def race(calls: dict[str, Call], *, rounds: int, round_seconds: float) -> dict[str, list]:
    """Return the median (wall, CPU) of every round in microseconds; a contender's calls lie between the others'."""
    for call in calls.values():
        warm = medians([timed(call) for _ in range(5)])
    turns = max(2, round(round_seconds * 1e6 / warm[0] / SLICE))
    results: dict[str, list] = {name: [] for name in calls}
    names, order = list(calls), random.Random(1)
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        pairs: dict[str, list] = {name: [] for name in names}
        for _ in range(turns):
            order.shuffle(
                names
            )  # in a fixed order each would always be timed on the caches that the same other left
            for name in names:
                pairs[name] += [timed(calls[name]) for _ in range(SLICE)]
        for name in names:
            results[name].append(medians(pairs[name]))
    return results


def quartiles(values: Iterable[float]) -> tuple[float, float, float]:
    values = list(values)
    if len(values) < 2:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def rows_of(route: str, results: dict[str, list]) -> list[Row]:
    base = next(iter(results.values()))
    rows = []
    for name, rounds in results.items():
        wall, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratios = [
            quartiles(mine[index] / theirs[index] for mine, theirs in zip(rounds, base, strict=True))
            for index in (0, 1)
        ]
        rows.append(Row(route, name, wall, cpu, *ratios))
    return rows


def peak_mb(call: Call) -> float:
    """Return the most that one call had allocated at a time."""
    gc.collect()
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def measure_routes(base: str, options: argparse.Namespace) -> list[Row]:
    rows = []
    for route, send in routes(base).items():
        calls = contenders(send, resends="locked" in route)
        results = race(calls, rounds=options.rounds, round_seconds=options.seconds)
        rows += rows_of(route, results)
        if "streamed" in route:
            for row in rows[-len(calls) :]:
                row.peak_mb = peak_mb(calls[row.contender])
        show(rows[-len(calls) :])
    return rows


IMPORTS = {
    "import": {
        "requests": "import requests",
        "requests again (noise)": "import requests",
        GUARD: "import requests, crm_guard",
        "urllib3.Retry": "import requests, urllib3.util.retry",
        "CacheControl": "import requests, cachecontrol",
        "requests-ratelimiter": "import requests, requests_ratelimiter",
        "tenacity": "import requests, tenacity",
        "backoff": "import requests, backoff",
    },
    "import, and make a session": {
        "requests": "import requests; requests.Session()",
        "requests again (noise)": "import requests; requests.Session()",
        GUARD: "import requests, crm_guard; crm_guard.mount_guard(requests.Session())",
    },
}
_CHILD = """
import time
wall, cpu = time.perf_counter(), time.process_time()
{}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def import_seconds(statement: str, cache: str) -> tuple[float, float]:
    """Return wall and CPU microseconds of a statement in a fresh interpreter whose byte code lies in `cache`."""
    child = [sys.executable, "-X", f"pycache_prefix={cache}", "-c", _CHILD.format(statement)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(child, check=True, capture_output=True, text=True, cwd="/", env=environment)
    wall, cpu = done.stdout.split()
    return float(wall) * 1e6, float(cpu) * 1e6


def measure_imports(options: argparse.Namespace, cache: str) -> list[Row]:
    rows = []
    for route, statements in IMPORTS.items():
        chosen = {name: text for name, text in statements.items() if installed(name)}
        results: dict[str, list] = {name: [] for name in chosen}
        for text in chosen.values():  # compiles what is not compiled yet
            import_seconds(text, cache)
        for _ in range(options.rounds):
            for name, text in chosen.items():
                tries = [import_seconds(text, cache) for _ in range(3)]
                results[name].append(tuple(map(min, zip(*tries, strict=True))))
        rows += rows_of(route, results)
        show(rows[-len(chosen) :])
    return rows


def show(rows: list[Row]) -> None:
    def spread(ratio):
        low, middle, high = ratio
        return f"{middle:6.3f} ({low:.3f}-{high:.3f})"

    for row in rows:
        peak = f"{row.peak_mb:8.1f}" if row.peak_mb is not None else ""
        print(
            f"{row.route:29} {row.contender:27} {row.wall_us:10.1f} {spread(row.wall_ratio):24}"
            f"{row.cpu_us:10.1f} {spread(row.cpu_ratio):24}{peak}",
            flush=True,
        )
    print(flush=True)


def environment() -> dict[str, object]:
    from importlib.metadata import version

    packages = ("requests", "urllib3", "crm-guard")
    return {
        "python": platform.python_version(),
        "machine": platform.platform(),
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        **{name: version(name) for name in packages},
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
    if others:
        os.sched_setaffinity(0, {ours})
    ratio = f"{'ratio (quartiles)':24}"
    print(f"{'route':29} {'contender':27} {'wall us':>10} {ratio}{'CPU us':>10} {ratio}{'peak MB':>8}")
    with Loopback(cpu=others[0] if others else None) as server:
        rows = measure_routes(server.url, options)
    with tempfile.TemporaryDirectory() as cache:
        rows += measure_imports(options, cache)
    if options.json:
        report = {"environment": environment(), "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
