"""A process of its own with some calls on one record; started by the tests of the Redis registry.

Arguments: Redis URL, prefix, address of the CRM, name, number of threads. It asks the CRM that lives in the test.
"""

import sys
import threading
from multiprocessing.connection import Client

from crm_guard.clock import SystemClock
from crm_guard.locks import WaitContext
from crm_guard.locks.redis import RedisLockRegistry

KEY = "o|1"


def call(registry, crm_port, name):
    clock, pending = SystemClock(), True
    waiter = registry.waiter(WaitContext(clock, threading.Event(), lambda: False))
    with Client(("127.0.0.1", crm_port), authkey=b"test") as crm:
        if registry and registry.knows([KEY]):
            waiter.wait([KEY], 0.1, clock.now() + 15)
        while pending:
            crm.send((name, [KEY]))
            locked = crm.recv()
            pending = bool(locked)
            waiter.verdict(locked=locked, free=set() if locked else {KEY})
            if pending and not waiter.wait([KEY], 0.1, clock.now() + 15):
                break
    waiter.leave()


def main(url, prefix, crm_port, name, threads):
    registry = RedisLockRegistry(url, prefix=prefix, lease=0.3, poll=0.1, retry_after=0.2)
    calls = [
        threading.Thread(target=call, args=(registry, int(crm_port), f"{name}.{number}"))
        for number in range(int(threads))
    ]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for one in calls:
        one.start()
    for one in calls:
        one.join()
    registry.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
