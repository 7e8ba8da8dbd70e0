"""What `GuardAdapter.send` adds to one call, with the network taken away: `python tests/benchmarks/hot_path.py`.

The stock `send` below the guard is replaced by one that hands out prepared responses, whose bodies are read as a
session would read them. What is left of the difference between guard and stock is the guard.

    --instructions   count machine instructions with callgrind instead of microseconds: the same on a busy machine
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import re
import statistics
import subprocess
import sys
import time

from canned import INVALID, JSON, LIST, MANY_RECORDS, MANY_SUCCESSES, ONE_RECORD, ONE_SUCCESS
from requests import Request, Response
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from crm_guard import GuardAdapter, GuardSettings

MANY_NAMES_WITH_D = MANY_SUCCESSES.replace(b"Patricia Boyle", b"Eddie DEEDEE D")
CRM, ELSEWHERE = "https://www.zohoapis.com/crm/v8/", "https://www.zohoapis.com/books/v3/"
# Name: method, URL, request body, status, content type, answer.
ROUTES = {
    "PUT one record, success": ("PUT", CRM + "Leads/1", ONE_RECORD, 200, JSON, ONE_SUCCESS),
    "PUT 100 records, success": ("PUT", CRM + "Leads", MANY_RECORDS, 200, JSON, MANY_SUCCESSES),
    "PUT 100 records, a D in each": ("PUT", CRM + "Leads", MANY_RECORDS, 200, JSON, MANY_NAMES_WITH_D),
    "PUT one record, INVALID_DATA": ("PUT", CRM + "Leads/1", ONE_RECORD, 400, JSON, INVALID),
    "GET 200 records": ("GET", CRM + "Leads", None, 200, JSON, LIST),
    "PUT elsewhere": ("PUT", ELSEWHERE + "contacts/1", ONE_RECORD, 200, JSON, ONE_SUCCESS),
}
OPTIONS = {"stream": False, "timeout": None, "verify": True, "cert": None, "proxies": {}}


_PLAIN = {"PYTHONHASHSEED": "0", "PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}


class CannedAdapter(HTTPAdapter):
    """Hands out `responses`, the last first."""

    responses: list[Response]

    def send(self, request, stream=False, timeout=None, verify=True, cert=None, proxies=None):
        return self.responses.pop()


class GuardOverCanned(GuardAdapter, CannedAdapter):
    """A guard whose inherited `send` is the canned one."""


def answer(adapter, request, status, kind, body):
    headers = {
        "Content-Type": kind,
        "Content-Length": str(len(body)),
        "Server": "ZGS",
        "X-API-CREDITS-REMAINING": "4999",
        "Cache-Control": "private, no-cache, no-store",
    }
    raw = HTTPResponse(
        io.BytesIO(body), headers, status=status, preload_content=False, request_method=request.method
    )
    return adapter.build_response(request, raw)


class Play:
    """One route through one adapter."""

    def __init__(self, adapter, method, url, body, *response):
        self.adapter = adapter
        self.request = Request(method, url, data=body).prepare()
        self.response = response

    def prepare(self, calls):
        self.adapter.responses = [answer(self.adapter, self.request, *self.response) for _ in range(calls)]

    def run(self):
        send, request, options = self.adapter.send, self.request, OPTIONS
        for _ in range(len(self.adapter.responses)):
            send(request, **options).content  # noqa: B018 (a session reads it)

    def timed(self, calls):
        self.prepare(calls)
        gc.collect()
        gc.disable()
        begin = time.process_time_ns()
        self.run()
        taken = time.process_time_ns() - begin
        gc.enable()
        return taken / calls / 1000


def adapters():
    return CannedAdapter(), GuardOverCanned(GuardSettings())


def show_microseconds(rounds, calls):
    print(f"{'route':30}{'added us per call (quartiles)':>34}")
    for name, route in ROUTES.items():
        stock, guard = (Play(adapter, *route) for adapter in adapters())
        added = []
        for _ in range(rounds):
            ours = min(guard.timed(calls) for _ in range(3))
            added.append(ours - min(stock.timed(calls) for _ in range(3)))
        low, middle, high = statistics.quantiles(added, n=4, method="inclusive")
        print(f"{name:30}{middle:14.2f} ({low:.2f} to {high:.2f})", flush=True)


def show_instructions():
    print(f"{'route':30}{'added instructions per call':>30}")
    subprocess.run([sys.executable, __file__, "--child", next(iter(ROUTES)), "1", "1"], check=True, env=_PLAIN)
    for name in ROUTES:
        stock, guard = (_instructions(name, which, 400) - _instructions(name, which, 0) for which in (0, 1))
        print(f"{name:30}{(guard - stock) // 400:30d}", flush=True)


def _instructions(name, which, calls):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, __file__]
    child = subprocess.run(
        [*command, "--child", name, str(which), str(calls)],
        check=True, capture_output=True, text=True, env=_PLAIN,
    )  # fmt: skip
    return int(re.search(r"Collected : (\d+)", child.stderr)[1])


def child(name, which, calls):
    """Make 500 responses in any case, and send for some of them: only the sending differs."""
    play = Play(adapters()[int(which)], *ROUTES[name])
    play.prepare(500)
    gc.disable()
    unused = play.adapter.responses[int(calls) :]
    del play.adapter.responses[int(calls) :]
    play.run()
    return unused


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
    elif options.instructions:
        show_instructions()
    else:
        show_microseconds(options.rounds, 1000)


if __name__ == "__main__":
    main()
