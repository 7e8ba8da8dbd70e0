"""What do locks cost a job of many rows? `python tests/benchmarks/bulk.py` (about three minutes).

    python tests/benchmarks/bulk.py [--rows 20000] [--seeds 3] [--speed 5] [--only PLAYER ...] [--json FILE]
    python tests/benchmarks/bulk.py --virtual [--seeds 40]   # the schedule alone, without noise: 3 minutes
    python tests/benchmarks/bulk.py --memory                 # 20,000 to 200,000 rows: 1 minute
    python tests/benchmarks/bulk.py --cpu                    # our own CPU per row: 1 minute
    python tests/benchmarks/bulk.py --instructions           # the same, counted by valgrind: 6 minutes

20,000 updates of eleven fields each, of which 1 % are locked for 5 to 60 s from the start; four workers; a call
takes 0.2 s. Real threads and loopback HTTP, and a clock that runs five times as fast: latency, locks, and the
settings of each player are divided by 5, and what is printed is multiplied again. (At twenty times as fast four
calls at once would end every 2.5 ms, while the client works 3 to 4 ms for each: that would measure the client.)
Every run has a process of its own, and in each round all players meet the same locks, one after the other. The
server is a lean one in another process; `bulk_server.py` tells why.

- *write_records*, and the same *unlocked*: no locks, which is what the others are compared with.
- *guarded batches*: batches of a hundred in a pool of four threads, over a session with a guard; a batch waits.
- *tenacity*: the same without a guard; a loop sends the refused rows of a batch again, as people write it.

Columns: seconds, and their ratio to the later of the unlocked run and the end of the longest lock; calls, and their
ratio to those of the unlocked run; rows written twice, and rows lost; CPU seconds of the client and of the server,
not multiplied. Only exactness is asserted, never time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import bulk_cost
import bulk_virtual
import requests
import tenacity
from bulk_rows import LOCKS, URL, batches, locked, record_id, rows
from bulk_server import BulkServer

import crm_guard

WORKERS, BATCH, LATENCY, SPEED = 4, 100, 0.2, 5
SHARE, DRAW = 0.01, LOCKS["5..60 s"]


def settings(speed: float) -> crm_guard.GuardSettings:
    return crm_guard.GuardSettings(wait_initial=3 / speed, wait_max=5 / speed, timeout=120 / speed)


def write_records(origin: str, count: int, speed: float) -> int:
    session = requests.Session()
    crm_guard.mount_guard(session, origin, settings=settings(speed))
    with crm_guard.write_records(session, "PUT", origin + URL, rows(count), workers=WORKERS) as writer:
        return sum(result.succeeded for result in writer)


def guarded(origin: str, count: int, speed: float) -> int:
    session = requests.Session()
    crm_guard.mount_guard(session, origin, settings=settings(speed))
    return in_a_pool(count, lambda batch: put(session, origin, batch))


def with_tenacity(origin: str, count: int, speed: float) -> int:
    session = requests.Session()

    def write(batch: list[dict]) -> list[dict]:
        left, items = list(batch), []

        @tenacity.retry(
            wait=tenacity.wait_random_exponential(multiplier=1 / speed, max=10 / speed),
            stop=tenacity.stop_after_delay(120 / speed),
            retry=tenacity.retry_if_result(bool),
        )
        def attempt() -> list[dict]:
            answered = put(session, origin, left)
            items.extend(answered)
            left[:] = [row for row, item in zip(left, answered, strict=True) if item["code"] == "RECORD_LOCKED"]
            return left

        attempt()
        return items

    return in_a_pool(count, write)


def put(session: requests.Session, origin: str, batch: list[dict]) -> list[dict]:
    return session.put(origin + URL, json={"data": batch}).json()["data"]


def in_a_pool(count: int, write) -> int:
    with ThreadPoolExecutor(WORKERS) as pool:
        answers = pool.map(write, batches(rows(count), BATCH))
        return sum(item["code"] == "SUCCESS" for items in answers for item in items)


UNLOCKED = "write_records, unlocked"
PLAYERS = {
    UNLOCKED: write_records,
    "write_records": write_records,
    "guarded batches": guarded,
    "tenacity": with_tenacity,
}
EXACT = [name for name in PLAYERS if name != "tenacity"]


@dataclass
class Result:
    """What one run took. Seconds are those of CRM's clock, but for CPU."""

    player: str
    seed: int
    seconds: float
    longest: float
    calls: int
    twice: int
    lost: int
    told: int
    cpu: float
    server_cpu: float


def _in_process(pipe, player: str, origin: str, count: int, speed: float) -> None:
    play = PLAYERS[player]
    play(origin, 2 * BATCH, 20)  # imports what threads and refusals import: no part of a job of many rows
    pipe.send(None)
    pipe.recv()
    wall, cpu = time.monotonic(), time.process_time()
    told = play(origin, count, speed)
    pipe.send((time.monotonic() - wall, time.process_time() - cpu, told))


def run(server: BulkServer, player: str, count: int, seed: int, speed: float) -> Result:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    job = partial(_in_process, theirs, player, server.origin, count, speed)
    process = multiprocessing.get_context("spawn").Process(target=job)
    server.begin(0.0, {record_id(0): time.monotonic() + 0.05})
    process.start()
    ours.recv()
    server.end()
    ends = {} if player == UNLOCKED else locked(count, SHARE, DRAW, seed)
    now = time.monotonic()
    server.begin(LATENCY / speed, {record: now + seconds / speed for record, seconds in ends.items()})
    ours.send(None)
    seconds, cpu, told = ours.recv()
    process.join()
    seen, server_cpu = server.end()
    return Result(
        player=player,
        seed=seed,
        seconds=seconds * speed,
        longest=max(ends.values(), default=0.0),
        calls=seen.calls,
        twice=sum(times > 1 for times in seen.writes.values()),
        lost=count - len(seen.writes),
        told=told,
        cpu=cpu,
        server_cpu=server_cpu,
    )


def check(result: Result, count: int) -> None:
    """Assert that nothing was written twice or lost, where that is promised."""
    if result.player in EXACT:
        assert (result.twice, result.lost, result.told) == (0, 0, count), result


def compare(count: int, seeds: int, players: list[str], speed: float) -> list[Result]:
    print(
        f"{'medians of ' + str(seeds) + ' rounds':24} {'seconds':>8} {'ratio':>6} {'(most)':>7} {'calls':>6} "
        f"{'ratio':>6} {'twice':>6} {'lost':>5} {'CPU':>6} {'server':>7}"
    )
    results: list[Result] = []
    with BulkServer() as server:
        for seed in range(seeds):
            for player in [UNLOCKED, *(name for name in players if name != UNLOCKED)]:
                results.append(run(server, player, count, seed, speed))
                check(results[-1], count)
    free = [result for result in results if result.player == UNLOCKED]
    for player in dict.fromkeys(result.player for result in results):
        mine = [result for result in results if result.player == player]
        times = [own.seconds / max(base.seconds, own.longest) for own, base in zip(mine, free, strict=True)]
        calls = [own.calls / base.calls for own, base in zip(mine, free, strict=True)]
        names = ("seconds", "calls", "cpu", "server_cpu")
        middle = {name: statistics.median(getattr(one, name) for one in mine) for name in names}
        print(
            f"{player:24} {middle['seconds']:8.1f} {statistics.median(times):6.3f} {max(times):7.3f} "
            f"{middle['calls']:6.0f} {statistics.median(calls):6.3f} {sum(one.twice for one in mine):6} "
            f"{sum(one.lost for one in mine):5} {middle['cpu']:6.2f} {middle['server_cpu']:7.2f}",
            flush=True,
        )
    return results


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, help="rounds: 3, or 40 in virtual time")
    parser.add_argument("--speed", type=float, default=SPEED, help="how many times as fast CRM's clock runs")
    parser.add_argument("--only", nargs="+", choices=PLAYERS, default=list(PLAYERS), metavar="PLAYER")
    parser.add_argument("--json", type=Path, help="also write every run to this file")
    parser.add_argument("--virtual", action="store_true", help="the schedule alone")
    parser.add_argument("--memory", action="store_true", help="the most memory, by the number of rows")
    parser.add_argument("--cpu", action="store_true", help="our own CPU per row")
    parser.add_argument("--instructions", action="store_true", help="our own instructions per row; needs valgrind")
    options = parser.parse_args(argv)
    if options.virtual:
        bulk_virtual.show(options.seeds or 40)
    elif options.memory:
        bulk_cost.show_memory(options.rows)
    elif options.cpu:
        bulk_cost.show_cpu(options.rows)
    elif options.instructions:
        bulk_cost.show_instructions()
    else:
        results = compare(options.rows, options.seeds or 3, options.only, options.speed)
        if options.json:
            options.json.write_text(json.dumps([asdict(result) for result in results], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
