"""Whether the cost stays in proportion: `python tests/benchmarks/scale.py` (about half a minute).

Records: CPU time of a mass update of which every second record is locked once, per record. Calls: what 10,000 calls
leave behind in memory. Refusals: the most memory that a call has at once, by how often it is refused, and at what
length. Threads: 64 of them on one adapter, against the stock adapter.
"""

from __future__ import annotations

import gc
import statistics
import threading
import time
import tracemalloc

import requests
from canned import JSON, MANY_RECORDS, MANY_SUCCESSES, ONE_RECORD, dumped, lock, record_id, success
from hot_path import CRM, ROUTES, GuardOverCanned, Play, answer
from loopback import Loopback
from requests.adapters import HTTPAdapter

from crm_guard import GuardAdapter, GuardSettings, get_report
from crm_guard.testing import ManualClock

THREADS, CALLS = 64, 40


def mass_update(count):
    """Return CPU seconds of an exchange about `count` records, and check its result."""
    guard = GuardOverCanned(GuardSettings(), clock=ManualClock())
    body = dumped({"data": [{"Lead_Status": "Closed"}], "ids": [record_id(n) for n in range(count)]})
    request = requests.Request("POST", CRM + "Leads/actions/mass_update", data=body).prepare()
    first = [lock(n) if n % 2 else success(n) for n in range(count)]
    second = [success(n) for n in range(1, count, 2)]
    guard.responses = [
        answer(guard, request, 200, JSON, dumped({"data": second})),
        answer(guard, request, 207, JSON, dumped({"data": first})),
    ]
    begin = time.process_time()
    response = guard.send(request)
    taken = time.process_time() - begin
    assert len(get_report(response).outcomes) == count
    assert [item["details"]["id"] for item in response.json()["data"]] == [record_id(n) for n in range(count)]
    return taken


def show_records():
    print("mass update, every second record locked once")
    for count in (10, 125, 250, 500, 1000, 2000):
        seconds = min(mass_update(count) for _ in range(15))
        print(f"{count:8} records {seconds * 1e3:8.2f} ms {seconds / count * 1e6:8.2f} us per record", flush=True)


def show_calls():
    play = Play(GuardOverCanned(GuardSettings()), *ROUTES["PUT 100 records, success"])

    def kept(calls):
        for _ in range(calls // 100):
            play.prepare(100)
            play.run()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    warm = kept(1000)
    print(f"memory kept after 10,000 further calls: {kept(10_000) - warm} bytes", flush=True)
    tracemalloc.stop()


class Refusing(GuardOverCanned):
    """Answers a record's update with refusals of some length, made anew each time, and then with a success."""

    def refuse(self, request, times, size):
        self.request, self.times, self.size = request, times, size

    def transmit(self, request, **options):
        self.times -= 1
        if self.times < 0:
            return answer(self, request, 200, JSON, dumped({"data": [success(1)]}))
        return answer(self, request, 400, JSON, dumped({"data": [lock(1)], "info": "x" * self.size}))


def peak_of(times, size):
    """Return the most bytes that a call has at once which is refused so many times, with so many bytes."""
    guard = Refusing(GuardSettings(attempts=100, timeout=1e6), clock=ManualClock())
    request = requests.Request("PUT", CRM + "Leads/" + record_id(1), data=ONE_RECORD).prepare()
    guard.refuse(request, times, size)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    response = guard.send(request)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert get_report(response).attempts == times + 1
    return peak


def show_refusals(mib=1024 * 1024):
    peak_of(1, 0)
    print("most memory of one call, by the length of a refusal: refused once, 30 times")
    for size in (0, mib // 8, mib, 7 * mib):
        once, often = (peak_of(times, size) / mib for times in (1, 30))
        print(f"{size / mib:8.3f} MiB {once:8.2f} MiB {often:8.2f} MiB", flush=True)


def storm(adapter, base):
    """Return wall and CPU seconds of all calls of all threads."""
    session = requests.Session()
    session.mount("http://127.0.0.1", adapter)
    barrier = threading.Barrier(THREADS + 1)

    def calls():
        barrier.wait()
        for number in range(CALLS):
            path, body, size = (
                ("Leads/many", MANY_RECORDS, len(MANY_SUCCESSES)) if number % 2 else ("Leads/1", ONE_RECORD, None)
            )
            content = session.put(base + path, data=body).content
            assert size in (None, len(content))

    threads = [threading.Thread(target=calls) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    wall, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - wall, time.process_time() - cpu
    session.close()
    return taken


def show_threads(rounds=11):
    print(f"{THREADS} threads, one adapter: ratio to stock, median (quartiles) of {rounds} rounds")
    options = {"pool_maxsize": THREADS}
    made = {
        "stock": lambda: HTTPAdapter(**options),
        "stock again (noise)": lambda: HTTPAdapter(**options),
        "crm_guard": lambda: GuardAdapter(GuardSettings(), **options),
    }
    results = {name: [] for name in made}
    names = list(made)
    with Loopback() as server:
        storm(HTTPAdapter(**options), server.url)
        for _ in range(rounds):
            names = names[1:] + names[:1]
            for name in names:
                results[name].append(storm(made[name](), server.url))
    for name in made:
        wall, cpu = (
            statistics.quantiles(
                (mine[index] / stock[index] for mine, stock in zip(results[name], results["stock"], strict=True)),
                method="inclusive",
            )
            for index in (0, 1)
        )
        shown = [f"{middle:.3f} ({low:.3f}-{high:.3f})" for low, middle, high in (wall, cpu)]
        rate = THREADS * CALLS / statistics.median(wall for wall, _ in results[name])
        print(f"{name:22} wall {shown[0]:24} CPU {shown[1]:24} {rate:8.0f} calls/s", flush=True)


if __name__ == "__main__":
    show_records()
    show_calls()
    show_refusals()
    show_threads()
