"""Machine instructions of whole calls, guard against stock: `python tests/benchmarks/instructions.py` (3 minutes).

Needs valgrind. Counts what the client's process executes over a real loopback connection, the system's part not.
Says nothing about caches. A busy machine moves the ratios by some thousandths only: stock alone scatters by 0.003.
"""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import tempfile

import requests
from contenders import CONTENDERS, GUARD, LOCKS, STOCK, STREAM, routes
from loopback import Loopback

FEW, MANY = 20, 320


def count(calls: int, contender: str, route: str, url: str, cache: str, *tool: str) -> int:
    """Return the instructions of a process that makes so many calls, 0 without a tool that counts them."""
    command = [*tool, sys.executable, __file__, contender, route, url, str(calls)]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = {**kept, "PYTHONHASHSEED": "0", "PYTHONPYCACHEPREFIX": cache}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found = re.search(r"Collected : (\d+)", done.stderr)
    return int(found[1]) if found else 0


def per_call(*whom: str) -> float:
    count(FEW, *whom)  # compiles what is not compiled yet
    few, many = (count(calls, *whom, "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
                 for calls in (FEW, MANY))  # fmt: skip
    return (many - few) / (MANY - FEW)


def call(contender: str, route: str, url: str, calls: str) -> None:
    session, send = requests.Session(), routes(url)[route]
    session.mount("http://127.0.0.1", CONTENDERS[contender][0]())
    gc.disable()
    for _ in range(int(calls)):
        send(session)


def main() -> None:
    print(f"{'route':30}{'stock':>12}{'added':>10}{'ratio':>8}")
    with Loopback() as server, tempfile.TemporaryDirectory() as cache:
        for route in routes(server.url):
            if route not in (LOCKS, STREAM):
                stock, guard = (per_call(name, route, server.url, cache) for name in (STOCK, GUARD))
                print(f"{route:30}{stock:12.0f}{guard - stock:10.0f}{guard / stock:8.3f}", flush=True)


if __name__ == "__main__":
    call(*sys.argv[1:]) if sys.argv[1:] else main()
