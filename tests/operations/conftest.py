"""Processes that run the recipes of the reference until a SIGTERM."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from crm_guard.clock import SystemClock
from crm_guard.simulator import Simulator


def until(condition, seconds=20.0):
    """Wait until a condition holds; return what it is in the end."""
    clock, never = SystemClock(), threading.Event()
    end = clock.now() + seconds
    while not (found := condition()) and clock.now() < end:
        clock.wait(never, 0.02)
    return found


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def process(*command, cwd, log, **env):
    """Run a command of this interpreter; kill it in the end, if it still runs."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("CRM_GUARD_", "COV_"))}
    with log.open("a") as out:
        running = subprocess.Popen(
            [sys.executable, *command],
            cwd=cwd,
            env=bare | {"PYTHONWARNINGS": "ignore"} | env,
            stdout=out,
            stderr=out,
        )
        try:
            yield running
        finally:
            running.kill()
            running.wait(60)


@pytest.fixture
def real_crm():
    """A simulated CRM in real time."""
    with Simulator() as crm:
        yield crm
