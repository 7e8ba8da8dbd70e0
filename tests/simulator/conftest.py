from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crm_guard.simulator import Engine, Reply, Request, Simulator
from crm_guard.testing import ManualClock

Send = Callable[..., Reply]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start=100.0)


@pytest.fixture
def engine(clock: ManualClock) -> Engine:
    return Engine(clock=clock)


@pytest.fixture
def crm(clock: ManualClock) -> Iterator[Simulator]:
    with Simulator(clock=clock) as simulator:
        yield simulator


@pytest.fixture
def send() -> Send:
    """Return a function that sends one call to an engine, in process."""

    def send_call(
        engine: Engine, method: str, path: str, body: Any = None, *, raw: bytes = b"", **headers: str
    ) -> Reply:
        path, _, query = path.partition("?")
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        content = raw if body is None else json.dumps(body).encode()
        return engine.handle(
            Request(method=method, path=f"/crm/v8/{path}", query=query, headers=names, body=content)
        )

    return send_call
