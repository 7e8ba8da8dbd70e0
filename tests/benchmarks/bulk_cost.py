"""What `write_records` itself costs: memory, CPU and instructions. No network: answers are made in `send`.

Memory: the most resident memory of a process that streams rows from a generator and takes each result, and the most
that Python had allocated, from another such process; 1 % of the rows are refused twice.

CPU: that of the process while `write_records` runs, its threads included, less that of a plain loop in one thread
that makes the same calls with the same bodies, `session.put(url, data=body).content`. Per row, beside
`json.dumps(row)` of the same rows. The three take turns in one process; medians of the rounds. Threads of one
interpreter contend for it, and a busy machine disturbs all of it: these numbers are larger and less certain than
those of instructions.

Instructions: those of whole processes, as valgrind counts them, the system's part not. Each process makes the rows
and the bodies of their calls, then does one thing, or nothing; the difference of two numbers of rows is free of
start-up, and that to nothing is free of the making. The plain loop makes the calls that are needed if nothing is
refused: more calls are a part of ours. Threads take turns as they like, so the writer's numbers scatter.
"""

from __future__ import annotations

import gc
import io
import json
import multiprocessing
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from pathlib import Path

import msgspec
import requests
from bulk_rows import KIND, URL, answer, batches, ids_of, locked, rows
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

import crm_guard

ORIGIN = "https://www.zohoapis.com"
BATCH = 100
ROUNDS = 9
FEW, MANY, REPEATS = 2_000, 6_000, 3
WRITERS = {"all written": 0.0, "1 % refused twice": 0.01}
"""What share of the rows is refused twice."""
SOON = crm_guard.GuardSettings(wait_initial=0.02, wait_max=0.02)


class Canned(HTTPAdapter):
    """Answers without a network, and refuses some records some times.

    Attributes:
        refusals: How often each locked record is yet to be refused.
        bodies: What was sent, if it is kept.
        written: How many rows were written.
        calls: How many calls came.
    """

    def __init__(self, refusals: dict[str, int], *, keeps: bool = False) -> None:
        super().__init__()
        self.refusals, self.keeps, self.bodies = refusals, keeps, []
        self.written = self.calls = 0
        self._mutex = threading.Lock()

    def send(self, request, stream=False, timeout=None, verify=True, cert=None, proxies=None):
        ids = ids_of(request.body)
        refused = [self._refuses(name) for name in ids] if self.refusals else [False] * len(ids)
        status, text = answer(ids, refused)
        with self._mutex:
            self.written += refused.count(False)
            self.calls += 1
        if self.keeps:
            self.bodies.append(request.body)
        headers = {"Content-Type": KIND, "Content-Length": str(len(text))}
        raw = HTTPResponse(io.BytesIO(text), headers, status=status, preload_content=False)
        return self.build_response(request, raw)

    def _refuses(self, name: str) -> bool:
        left = self.refusals.pop(name, 0)
        if left > 1:
            self.refusals[name] = left - 1
        return left > 0


def refusals(count: int, share: float) -> dict[str, int]:
    return dict.fromkeys(locked(count, share, lambda _: 0.0, seed=1), 2)


def session_over(adapter: HTTPAdapter) -> requests.Session:
    session = requests.Session()
    session.mount(ORIGIN, adapter)
    return session


def write(adapter: Canned, source, count: int, **options) -> None:
    with crm_guard.write_records(
        session_over(adapter), "PUT", ORIGIN + URL, source, settings=SOON, **options
    ) as writer:
        assert sum(result.succeeded for result in writer) == count
    assert adapter.written == count


# -- memory


def _peak(pipe, count: int, share: float, traced: bool) -> None:
    adapter = Canned(refusals(count, share))
    write(Canned({}), rows(1000), 1000)  # imports
    gc.collect()
    if traced:
        tracemalloc.start()
    write(adapter, rows(count), count)
    pipe.send(tracemalloc.get_traced_memory()[1] if traced else most_resident())


def most_resident() -> int:
    """Return the most resident bytes of this process. `ru_maxrss` would begin with those of its parent."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    return 1024 * (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def peak(count: int, share: float = 0.01, *, traced: bool = False) -> int:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_peak, args=(theirs, count, share, traced))
    process.start()
    theirs.close()
    found = ours.recv()
    process.join()
    return found


def show_memory(count: int) -> None:
    print(f"{'rows':>9} {'resident, MB':>13} {'allocated, MB':>14}")
    for times in (1, 2, 5, 10):
        number = times * count
        print(f"{number:9,} {peak(number) / 1e6:13.1f} {peak(number, traced=True) / 1e6:14.2f}", flush=True)


# -- CPU


def cpu_of(call) -> float:
    gc.collect()
    before = time.process_time()
    call()
    return time.process_time() - before


def plain(adapter: Canned, bodies: list[bytes]) -> None:
    session = session_over(adapter)
    for body in bodies:
        assert session.put(ORIGIN + URL, data=body, timeout=(10, 120), allow_redirects=False).content


def round_of(count: int, share: float, source: list[dict]) -> tuple[float, float, float]:
    """Return the CPU seconds of a writer, of the plain loop with the same calls, and of `json.dumps`."""
    recorded, replayed = Canned(refusals(count, share), keeps=True), Canned(refusals(count, share))
    writer = cpu_of(lambda: write(recorded, source, count))
    loop = cpu_of(lambda: plain(replayed, recorded.bodies))
    assert replayed.written == count
    return writer, loop, cpu_of(lambda: [json.dumps(row) for row in source])


def show_cpu(count: int, rounds: int = ROUNDS) -> None:
    source = list(rows(count))
    gc.freeze()
    print(f"{'us of CPU per row':20} {'writer':>8} {'plain loop':>11} {'ours':>8} {'json.dumps':>11} {'ratio':>7}")
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in WRITERS}
    for number in range(rounds + 1):
        for name, share in WRITERS.items():
            taken = round_of(count, share, source)
            if number:  # the first one warms up
                found[name].append(taken)
    for name, taken in found.items():
        writer, loop, dumps = (statistics.median(one) / count * 1e6 for one in zip(*taken, strict=True))
        ours = statistics.median(one - two for one, two, _ in taken) / count * 1e6
        ratio = statistics.median((one - two) / three for one, two, three in taken)
        print(f"{name:20} {writer:8.2f} {loop:11.2f} {ours:8.2f} {dumps:11.2f} {ratio:7.2f}", flush=True)


# -- instructions


def bodies_of(source: list[dict]) -> list[bytes]:
    """Return the bodies that a writer sends if nothing is refused."""
    return [b'{"data":[%b]}' % b",".join(map(msgspec.json.encode, batch)) for batch in batches(source, BATCH)]


NOTHING, PLAIN, DUMPS = "nothing", "plain", "dumps"
JOBS = (*WRITERS, NOTHING, PLAIN, DUMPS)


def perform(job: str, count: int) -> None:
    """Do one thing with so many rows; print how many calls it took."""
    source = list(rows(count))
    bodies = bodies_of(source)
    adapter = Canned(refusals(count, WRITERS.get(job, 0.0)))
    gc.collect()
    gc.freeze()
    if job in WRITERS:
        write(adapter, source, count)
    elif job == PLAIN:
        plain(adapter, bodies)
    elif job == DUMPS:
        for row in source:
            json.dumps(row)
    print(adapter.calls)


def counted(job: str, count: int, cache: str, *tool: str) -> tuple[int, int]:
    """Return the instructions of a process that does this, 0 without a tool that counts them, and its calls."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [*tool, sys.executable, __file__, job, str(count)],
        check=True,
        capture_output=True,
        text=True,
        env={**kept, "PYTHONHASHSEED": "0", "PYTHONPYCACHEPREFIX": cache},
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    return int(found[1]) if found else 0, int(done.stdout)


def per_row(job: str, cache: str) -> tuple[float, float]:
    """Return instructions for a row, and calls for a hundred, of the rows by which many are more than few."""
    tool = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
    (few, few_calls), (many, many_calls) = (counted(job, count, cache, *tool) for count in (FEW, MANY))
    return (many - few) / (MANY - FEW), BATCH * (many_calls - few_calls) / (MANY - FEW)


def show_instructions(repeats: int = REPEATS) -> None:
    if shutil.which("valgrind") is None:
        sys.exit("--instructions needs valgrind, which is not installed here: nothing was measured.")
    source, recorded = list(rows(FEW)), Canned({}, keeps=True)
    write(recorded, source, FEW)
    assert sorted(recorded.bodies) == sorted(bodies_of(source)), "the plain loop would send other bodies"
    with tempfile.TemporaryDirectory() as cache:
        for job in JOBS:
            counted(job, FEW, cache)  # compiles what is not compiled yet
        nothing, loop, dumps = (per_row(job, cache)[0] for job in (NOTHING, PLAIN, DUMPS))
        loop, dumps = loop - nothing, dumps - nothing
        print(f"instructions per row: plain loop {loop:,.0f}, json.dumps {dumps:,.0f}, making it {nothing:,.0f}")
        print(f"{'':20} {'writer':>8} {'ours':>8} {'ratio':>6} {'(least, most)':>14} {'calls per 100':>14}")
        for job in WRITERS:
            runs = [per_row(job, cache) for _ in range(repeats)]
            writer, calls = (statistics.median(one) for one in zip(*runs, strict=True))
            ours = writer - nothing - loop
            ratios = sorted((one - nothing - loop) / dumps for one, _ in runs)
            print(
                f"{job:20} {writer - nothing:8,.0f} {ours:8,.0f} {ours / dumps:6.2f} "
                f"{f'({ratios[0]:.2f}, {ratios[-1]:.2f})':>14} {calls:14.2f}",
                flush=True,
            )


if __name__ == "__main__":
    perform(sys.argv[1], int(sys.argv[2]))
