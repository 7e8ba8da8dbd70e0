"""Who is measured by `overhead.py`, on what: adapters and loops, routes, and the process that each of them gets."""

from __future__ import annotations

import gc
import importlib.util
import multiprocessing
import statistics
import time
import tracemalloc
from typing import TYPE_CHECKING, Self

import requests
from canned import MANY_RECORDS, ONE_RECORD
from requests.adapters import HTTPAdapter
from urllib3 import Retry

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = Callable[[], requests.Response]
    Send = Callable[[requests.Session], requests.Response]

JSON = {"Content-Type": "application/json"}
STOCK, AGAIN, GUARD = "stock", "stock again (noise)", "crm_guard"
LOCKS, STREAM = "PUT 100 records, 10 locked", "GET 64 MB, streamed"
WARM_UP = 20


def routes(base: str) -> dict[str, Send]:
    def put(path, body):
        return lambda session: session.put(base + path, data=body, headers=JSON)

    return {
        "PUT one record, success": put("Leads/1", ONE_RECORD),
        "PUT 100 records, success": put("Leads/many", MANY_RECORDS),
        "GET 200 records": lambda session: session.get(base + "Leads"),
        "PUT one record, INVALID_DATA": put("Leads/2", ONE_RECORD),
        STREAM: lambda session: download(session, base + "files"),
        LOCKS: put("Leads/locked", MANY_RECORDS),
    }


def download(session: requests.Session, url: str) -> requests.Response:
    with session.get(url, stream=True) as response:
        for _ in response.iter_content(1 << 20):
            pass
    return response


def guard() -> HTTPAdapter:
    from crm_guard import GuardAdapter, GuardSettings
    from crm_guard.testing import ManualClock

    return GuardAdapter(GuardSettings(), clock=ManualClock())


def retrying() -> HTTPAdapter:
    return HTTPAdapter(max_retries=Retry(3, status_forcelist=[429, 503], allowed_methods=None))


def caching() -> HTTPAdapter:
    from cachecontrol import CacheControlAdapter

    return CacheControlAdapter()


def limiting() -> HTTPAdapter:
    from requests_ratelimiter import LimiterAdapter

    return LimiterAdapter(per_second=1_000_000, burst=1_000_000)


def locked(response: requests.Response) -> bool:
    """Tell what a hand-written loop asks: whether any item is a lock."""
    if "json" not in response.headers.get("Content-Type", ""):
        return False
    return any(item.get("code") == "RECORD_LOCKED" for item in response.json().get("data", ()))


def once(call: Call) -> requests.Response:
    return call()


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


# The adapter, the loop around the call, and the module that has to be installed.
CONTENDERS = {
    STOCK: (HTTPAdapter, once, "requests"),
    AGAIN: (HTTPAdapter, once, "requests"),
    GUARD: (guard, once, "crm_guard"),
    "urllib3.Retry": (retrying, once, "urllib3"),
    "CacheControl": (caching, once, "cachecontrol"),
    "requests-ratelimiter": (limiting, once, "requests_ratelimiter"),
    "tenacity": (HTTPAdapter, with_tenacity, "tenacity"),
    "backoff": (HTTPAdapter, with_backoff, "backoff"),
}
# Where records are locked: those that come through, and by which loop.
RESENDING = {STOCK: by_hand, AGAIN: by_hand, GUARD: once, "tenacity": with_tenacity, "backoff": with_backoff}


def installed() -> list[str]:
    return [name for name, (*_, module) in CONTENDERS.items() if importlib.util.find_spec(module)]


def taking_part(route: str, contender: str) -> bool:
    return route != LOCKS or contender in RESENDING


def timed(call: Callable[[], object]) -> tuple[int, int]:
    """Return wall and CPU nanoseconds of one call."""
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    call()
    cpu = time.process_time_ns() - cpu
    return time.perf_counter_ns() - wall, cpu


def medians(pairs: list[tuple[int, int]]) -> tuple[float, float]:
    """Return the medians of wall and CPU in microseconds."""
    wall, cpu = zip(*pairs, strict=True)
    return statistics.median(wall) / 1e3, statistics.median(cpu) / 1e3


def peak_mb(call: Callable[[], object]) -> float:
    """Return the most that one call had allocated at a time."""
    gc.collect()
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def _work(orders, contender: str, base: str) -> None:
    """Do what is ordered: (route, how many calls), or (route, None) for its memory; None ends."""
    make, usual_loop, _ = CONTENDERS[contender]
    session, sends = requests.Session(), routes(base)
    session.mount("http://127.0.0.1", make())
    gc.collect()
    gc.freeze()
    while order := orders.recv():
        route, times = order
        loop = RESENDING[contender] if route == LOCKS else usual_loop

        def call(send=sends[route], loop=loop):
            return loop(lambda: send(session))

        orders.send(peak_mb(call) if times is None else [timed(call) for _ in range(times)])


class Contender:
    """A process of its own: Python specialises code for the adapter that it meets, and every heap is another."""

    def __init__(self, name: str, base: str):
        context = multiprocessing.get_context("spawn")
        self._orders, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, name, base), daemon=True)
        self._process.start()
        theirs.close()

    def times(self, route: str, calls: int) -> list[tuple[int, int]]:
        return self._ordered(route, calls)

    def peak_mb(self, route: str) -> float:
        return self._ordered(route, None)

    def _ordered(self, *order):
        self._orders.send(order)
        return self._orders.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._orders.send(None)
        self._process.join()
