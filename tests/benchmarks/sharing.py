"""How many calls do many callers on locked records cost? Real threads, real loopback HTTP, real seconds.

    python tests/benchmarks/sharing.py [--lock 5] [--json FILE]

Two scenes, each played by the guard as it is, by the guard with `share_locks=False`, and by loops as they are
written by hand with tenacity (waits random up to an exponential ceiling of 10 s):

- *one record*: 50 threads, each with its own write to one locked record, arriving over the first second; and once
  more all at the same instant, when nobody can know of the lock yet.
- *batches*: 20 threads, each with one 100-record update out of 500 records, of which 50 are locked.

Columns: calls made; calls above the unavoidable ones; records written more often than asked for; seconds from the
unlock to the end of a call, median and 95th percentile. The unavoidable calls are one per caller, and in *batches*
two, since ninety records want to be written at once and ten later.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import requests
import tenacity

import crm_guard
from crm_guard.locks import MemoryLockRegistry
from crm_guard.simulator import Simulator

THREADS, BATCHES, POOL, LOCKED, BATCH = 50, 20, 500, 50, 100


@dataclass
class Row:
    scene: str
    player: str
    calls: int
    above_ideal: int
    double_writes: int
    after_unlock_p50: float
    after_unlock_p95: float


def locked(item):
    return item["code"] == "RECORD_LOCKED"


def items_of(response):
    body = response.json()
    return body.get("data", [body])


class Tenacity:
    """A loop as people write it. `narrows`: it sends only the refused records again."""

    def __init__(self, name, *, narrows):
        self.name, self.narrows = name, narrows

    def session(self):
        return requests.Session()

    def put(self, session, url, rows):
        left = list(rows)

        @tenacity.retry(
            wait=tenacity.wait_random_exponential(max=10),
            stop=tenacity.stop_after_delay(120),
            retry=tenacity.retry_if_result(bool),
        )
        def attempt():
            items = items_of(session.put(url, json={"data": left}))
            refused = [row for row, item in zip(left, items, strict=True) if locked(item)]
            left[:] = refused if self.narrows and refused else left
            return refused

        attempt()


class Guard:
    def __init__(self, name, **settings):
        self.name = name
        self.settings = crm_guard.GuardSettings(**settings)
        self.registry = MemoryLockRegistry() if self.settings.share_locks else None

    def session(self):
        session = requests.Session()
        session.mount("http://", crm_guard.GuardAdapter(self.settings, lock_registry=self.registry))
        return session

    def put(self, session, url, rows):
        session.put(url, json={"data": rows})


def players():
    return [
        Guard("guard"),
        Guard("guard, share_locks=False", share_locks=False),
        Tenacity("tenacity, refused only", narrows=True),
        Tenacity("tenacity, resend all", narrows=False),
    ]


def play(player, jobs, started):
    """Run each job (delay, url, rows) in a thread of its own; return the instants at which they ended."""
    barrier = threading.Barrier(len(jobs) + 1)
    ends = []

    def work(delay, url, rows):
        session = player.session()
        barrier.wait()
        time.sleep(delay)
        player.put(session, url, rows)
        ends.append(time.monotonic())
        session.close()

    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    barrier.wait()
    started()
    for thread in threads:
        thread.join()
    return ends


def one_record(player, seconds, *, spread):
    with Simulator() as crm:
        lead = crm.add_record("Leads", state="zia_vision_validation")
        url = f"{crm.url}/crm/v8/Leads/{lead}"
        jobs = [(spread * index / THREADS, url, [{"Company": f"Zylker {index}"}]) for index in range(THREADS)]
        ends, unlocked = timed(player, crm, [lead], jobs, seconds)
        doubles = crm.writes(lead) - THREADS
        scene = "one record" if spread else "one record, all at once"
        return row(scene, player, len(crm.calls), THREADS, doubles, ends, unlocked)


def batches(player, seconds):
    chance = random.Random(7)
    with Simulator() as crm:
        ids = [crm.add_record("Leads") for _ in range(POOL)]
        for lead in ids[:LOCKED]:
            crm.set_state(lead, "zia_vision_validation")
        chosen = [chance.sample(ids, BATCH) for _ in range(BATCHES)]
        url = f"{crm.url}/crm/v8/Leads"
        jobs = [(index / BATCHES, url, [{"id": lead} for lead in part]) for index, part in enumerate(chosen)]
        ends, unlocked = timed(player, crm, ids[:LOCKED], jobs, seconds)
        asked = sum(len(part) for part in chosen)
        doubles = sum(crm.write_counts.values()) - asked
        return row("batches", player, len(crm.calls), 2 * BATCHES, doubles, ends, unlocked)


def timed(player, crm, held, jobs, seconds):
    unlocked = []

    def unlock():
        for lead in held:
            crm.unlock(lead)
        unlocked.append(time.monotonic())

    timer = threading.Timer(seconds, unlock)
    ends = play(player, jobs, timer.start)
    timer.join()
    return ends, unlocked[0]


def row(scene, player, calls, ideal, doubles, ends, unlocked):
    late = sorted(end - unlocked for end in ends)
    p95 = late[int(0.95 * (len(late) - 1))]
    return Row(scene, player.name, calls, calls - ideal, doubles, statistics.median(late), p95)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lock", type=float, default=5.0, help="seconds for which the records are locked")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args(argv)
    rows = []
    print(f"{'scene':24} {'player':26} {'calls':>6} {'above':>6} {'double':>7} {'p50 s':>6} {'p95 s':>6}")
    for scene in (
        lambda player: one_record(player, options.lock, spread=1.0),
        lambda player: one_record(player, options.lock, spread=0.0),
        lambda player: batches(player, options.lock),
    ):
        for player in players():
            made = scene(player)
            rows.append(made)
            print(
                f"{made.scene:24} {made.player:26} {made.calls:6} {made.above_ideal:6} {made.double_writes:7} "
                f"{made.after_unlock_p50:6.2f} {made.after_unlock_p95:6.2f}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps([asdict(made) for made in rows], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
