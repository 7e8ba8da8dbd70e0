"""What hooks cost: a call that meets a lock, with each of ours, and a call that meets none.

    python tests/benchmarks/hooks.py [--json FILE] [--rounds N] [--quick]

Three minutes; `--quick` takes a quarter of one and shows no more than whether it works. See README.md beside this
file.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import json
import multiprocessing
import os
import statistics
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import loopback
import requests
from canned import JSON, ONE_RECORD, ONE_SUCCESS, dumped, lock, record_id
from contenders import JSON as HEADERS
from contenders import Contender, timed
from overhead import _MALLOC, Row, environment, race, rows_of, show
from requests.adapters import HTTPAdapter

if TYPE_CHECKING:
    from collections.abc import Callable

ONE_REFUSAL, FREE = "PUT one record, locked once", "PUT one record, success"
PATHS = {ONE_REFUSAL: "Leads/locked", FREE: "Leads/1"}
ALONE = "the events of one lock, and nothing else"
STOCK, BARE, AGAIN = "stock", "guard, no hook", "no hook again (noise)"
SPANS = "OpenTelemetryHook, SDK"


class _OneRecord(loopback._Connection):
    """Refuses the record of every other `PUT .../Leads/locked` of a connection."""

    @staticmethod
    def _locked(refused: bool, _: int) -> tuple[bytes, bytes]:
        return _REFUSED if refused else _WRITTEN


_REFUSED = loopback._framed(400, JSON, dumped({"data": [lock(0)]}))
_WRITTEN = loopback._framed(200, JSON, ONE_SUCCESS)


def _serve(port, cpu: int | None) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    with loopback._Server(("127.0.0.1", 0), _OneRecord) as server:
        port.send(server.server_address[1])
        server.serve_forever()


@contextlib.contextmanager
def serving(cpu: int | None):
    """Yield where a server in a process of its own listens; it ends where the module's name begins."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, cpu), daemon=True)
    process.start()
    theirs.close()
    yield f"http://127.0.0.1:{ours.recv()}{loopback.PREFIX.decode()}"
    process.terminate()
    process.join()


class Around:
    """Makes a hook for a contender, and what surrounds each of its calls, the time of which is not taken."""

    def hooks(self) -> list[Any]:
        return []

    def call(self, times: Callable[[], tuple[int, int]]) -> tuple[int, int]:
        return times()


class Nothing(Around):
    def hooks(self) -> list[Any]:
        return [lambda _: None]


class Counting(Around):
    def hooks(self) -> list[Any]:
        from crm_guard.instrumentation import PrometheusHook

        return [PrometheusHook()]


class Silent(Around):
    """The API of OpenTelemetry alone."""

    def hooks(self) -> list[Any]:
        from crm_guard.instrumentation import OpenTelemetryHook

        return [OpenTelemetryHook()]


class Tracing(Around):
    """Spans are exported to memory at once; a span of the caller's is current."""

    def hooks(self) -> list[Any]:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        from crm_guard.instrumentation import OpenTelemetryHook

        provider, self.exporter = TracerProvider(), InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("the caller")
        return [OpenTelemetryHook(tracer_provider=provider)]

    def call(self, times: Callable[[], tuple[int, int]]) -> tuple[int, int]:
        with self.tracer.start_as_current_span("job"):
            taken = times()
        self.exporter.clear()
        return taken


class Both(Tracing):
    def hooks(self) -> list[Any]:
        return [*super().hooks(), *Counting().hooks()]


# What surrounds its calls, and the modules that have to be installed.
CONTENDERS: dict[str, tuple[type[Around], tuple[str, ...]]] = {
    STOCK: (Around, ()),
    BARE: (Around, ()),
    AGAIN: (Around, ()),
    "a hook that does nothing": (Nothing, ()),
    "OpenTelemetryHook, no SDK": (Silent, ("opentelemetry",)),
    SPANS: (Tracing, ("opentelemetry", "opentelemetry.sdk")),
    "PrometheusHook": (Counting, ("prometheus_client",)),
    "both, SDK": (Both, ("opentelemetry", "opentelemetry.sdk", "prometheus_client")),
}


def installed() -> list[str]:
    return [name for name, (_, modules) in CONTENDERS.items() if all(map(_is_there, modules))]


def _is_there(module: str) -> bool:
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.util.find_spec(module) is not None
    return False


def _work(orders, contender: str, base: str) -> None:
    """Do what is ordered: (route, how many calls); None ends."""
    around = CONTENDERS[contender][0]()
    session, hooks = requests.Session(), around.hooks()
    session.mount("http://127.0.0.1", _adapter(contender, hooks))
    gc.collect()
    gc.freeze()
    while order := orders.recv():
        route, times = order

        if route == ALONE:
            call = partial(_tell, hooks, _events())
        else:
            call = partial(session.put, base + PATHS[route], data=ONE_RECORD, headers=HEADERS)
        orders.send([around.call(lambda call=call: timed(call)) for _ in range(times)])


def _events() -> list[Any]:
    """Return what hooks hear of a record that was locked once."""
    from crm_guard import EventKind, GuardEvent

    kinds = (EventKind.LOCKED, EventKind.WAITING, EventKind.RESENDING, EventKind.UNLOCKED)
    about = {"method": "PUT", "path": "/crm/v8/Leads/1", "module": "Leads", "records": 1, "pending": 1}
    about |= {"code": "RECORD_LOCKED", "action": "zia_vision_processing", "record_ids": (record_id(0),)}
    return [GuardEvent(kind=kind, attempt=1 + number // 2, **about) for number, kind in enumerate(kinds)]


def _tell(hooks: list[Any], events: list[Any]) -> None:
    for event in events:
        for hook in hooks:
            around = hook(event)
            if hasattr(around, "__enter__"):
                with around:
                    pass


def _adapter(contender: str, hooks: list[Any]) -> HTTPAdapter:
    from crm_guard import GuardAdapter, GuardSettings
    from crm_guard.testing import ManualClock

    if contender == STOCK:
        return HTTPAdapter()
    return GuardAdapter(GuardSettings(), clock=ManualClock(), hooks=hooks)


class Hooked(Contender):
    """A contender of this table."""

    def __init__(self, name: str, base: str):
        context = multiprocessing.get_context("spawn")
        self._orders, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, name, base), daemon=True)
        self._process.start()
        theirs.close()


def measure(base: str, options: argparse.Namespace) -> tuple[list[Row], dict[str, tuple[float, float]]]:
    """Race, round for round, each with new processes.

    Returns:
        The table; and for each contender the CPU microseconds that a locked call takes more than without a hook,
        and those of its hooks if nothing else is done.
    """
    results: dict[str, dict[str, list]] = {route: {} for route in (*PATHS, ALONE)}
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", end="\r", file=sys.stderr, flush=True)
        with contextlib.ExitStack() as stack:
            hooked = {name: stack.enter_context(Hooked(name, base)) for name in installed()}
            for route, found in results.items():
                running = {name: one for name, one in hooked.items() if _takes_part(name, route)}
                for name, times in race(route, running, options.seconds).items():
                    found.setdefault(name, []).append(times)
    rows = [row for route in PATHS for row in rows_of(route, results[route])]
    bare = results[ONE_REFUSAL][BARE]
    return rows, {
        name: (
            statistics.median(mine[1] - theirs[1] for mine, theirs in zip(rounds, bare, strict=True)),
            statistics.median(cpu for _, cpu in results[ALONE].get(name, [(0.0, 0.0)])),
        )
        for name, rounds in results[ONE_REFUSAL].items()
    }


def _takes_part(name: str, route: str) -> bool:
    if route == ALONE:
        return name not in {STOCK, BARE, AGAIN}
    return name != STOCK or route == FREE


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--rounds", type=int, default=15, help="how many ratios each median is of (default: 15)")
    parser.add_argument("--quick", action="store_true", help="see whether it works: 3 short rounds")
    options = parser.parse_args()
    options.rounds = 3 if options.quick else options.rounds
    options.seconds = 0.02 if options.quick else 0.3
    return options


def main() -> None:
    options = arguments()
    ours, *others = sorted(os.sched_getaffinity(0))
    if others:  # one processor for all contenders, another one for the server
        os.sched_setaffinity(0, {ours})
    os.environ |= _MALLOC
    with serving(others[0] if others else None) as base:
        rows, more = measure(base, options)
    show(rows)
    print(f"\n{f'CPU us, {ONE_REFUSAL}':57} {'more than no hook':>20} {'its events alone':>20}")
    for name, (microseconds, alone) in more.items():
        print(f"{name:57} {microseconds:20.1f} {alone:20.1f}")
    if options.json:
        report = {"environment": environment(), "rows": [asdict(row) for row in rows], "more_us": more}
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
