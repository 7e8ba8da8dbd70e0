"""Loggers, hooks, registries, bodies and callbacks that fail while a call has results: these reach the caller."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest
from requests.adapters import HTTPAdapter

from crm_guard import GiveUpReason, GuardAdapter, RecordLockedError, get_report
from crm_guard.locks import MemoryLockRegistry

from .world import CALLS, ORIGIN, add_leads, guarded, prepared

ROW = b'{"data":[{"Company":"Zylker"}]}'


def fail(*_: Any, **__: Any) -> Any:
    raise LookupError


def test_p5_a_log_filter_that_raises_costs_no_result() -> None:
    world = guarded({"attempts": 2, "raise_on": "never"})
    ids = add_leads(world.engine, [0, 9])
    logger = logging.getLogger("crm_guard")
    before, level = list(logger.filters), logger.level
    logger.setLevel(logging.INFO)
    logger.addFilter(fail)
    try:
        response = world.send(CALLS["update"].of(ids))
    finally:
        logger.filters[:] = before
        logger.setLevel(level)
    assert [found.succeeded for found in get_report(response).outcomes] == [True, False]


@pytest.mark.parametrize("method", ["verdict", "leave"])
def test_p5_a_lock_registry_that_raises_costs_no_result(
    method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registry = MemoryLockRegistry()
    world = guarded({"share_locks": True}, adapter={"lock_registry": registry})
    ids = add_leads(world.engine, [0, 1])
    monkeypatch.setattr(f"crm_guard.locks.memory.SharedWaiter.{method}", fail)
    assert world.send(CALLS["update"].of(ids)).status_code == 200
    assert [world.engine.writes(name) for name in ids] == [1, 1]
    assert "the lock registry failed: LookupError" in caplog.text


class Forward(io.RawIOBase):
    """A body that knows where it stands and cannot go back."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._content = io.BytesIO(content)

    def read(self, size: int = -1) -> bytes:
        return self._content.read(size)

    def tell(self) -> int:
        return self._content.tell()

    def seekable(self) -> bool:
        return False


def test_a_body_that_cannot_go_back_is_not_sent_again() -> None:
    world = guarded()
    (record_id,) = add_leads(world.engine, [1])
    with pytest.raises(RecordLockedError) as caught:
        world.send(prepared("PUT", f"{ORIGIN}/crm/v8/Leads/{record_id}", Forward(ROW)))
    assert caught.value.reason is GiveUpReason.NOT_REPLAYABLE
    assert caught.value.remaining_request() is None


def test_p5_a_file_that_is_closed_during_the_wait_costs_no_report() -> None:
    world = guarded()
    (record_id,) = add_leads(world.engine, [1])
    body = io.BytesIO(ROW)
    world.clock.during_wait = body.close
    with pytest.raises(Exception, match=r".+") as caught:
        world.send(prepared("PUT", f"{ORIGIN}/crm/v8/Leads/{record_id}", body))
    report = get_report(caught.value)
    assert [(found.record_id, found.retryable) for found in report.outcomes] == [(record_id, True)]
    assert (report.reason, report.attempts) == (GiveUpReason.FOLLOW_UP, 1)


def test_p5_an_interrupt_keeps_the_answer_of_a_stream_that_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    world = guarded()
    ids = add_leads(world.engine, [0, 1])
    with monkeypatch.context() as patch:
        patch.setattr("crm_guard._transport.driver.Driver.run", interrupt)
        patch.setattr("crm_guard._transport.driver.Driver.take", interrupt)
        with pytest.raises(KeyboardInterrupt) as caught:
            world.adapter.send(CALLS["update"].of(ids), stream=True)
    told = get_report(caught.value).outcomes
    assert [(found.succeeded, found.uncertain) for found in told] == [(True, False), (False, False)]


def interrupt(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_an_interrupt_before_the_first_send_tells_of_no_send(monkeypatch: pytest.MonkeyPatch) -> None:
    world = guarded({"share_locks": True}, adapter={"lock_registry": MemoryLockRegistry()})
    ids = add_leads(world.engine, [0])
    monkeypatch.setattr(MemoryLockRegistry, "__bool__", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        world.send(CALLS["update"].of(ids))
    report = get_report(caught.value)
    assert (report.attempts, report.credits_spent, report.outcomes) == (0, 0, ())


def test_p4_a_slow_hook_counts_before_the_next_wait_is_allowed() -> None:
    def slow(event: Any) -> None:
        if event.kind.value == "locked":
            world.clock.advance(1.0)

    policy = {"timeout": 3.5, "wait_initial": 3.0, "wait_jitter": 0.0}
    world = guarded(policy, adapter={"hooks": [slow]})
    (record_id,) = add_leads(world.engine, [9])
    with pytest.raises(RecordLockedError) as caught:
        world.send(prepared("PUT", f"{ORIGIN}/crm/v8/Leads/{record_id}", ROW))
    assert (caught.value.reason, world.clock.waits) == (GiveUpReason.TIMEOUT, [])


class Tenant(GuardAdapter):
    """A guard with state of its own, which it needs early."""

    def __init__(self, *positional: Any, tenant: str = "", **options: Any) -> None:
        self.tenant = tenant
        super().__init__(*positional, **options)

    def init_poolmanager(self, *positional: Any, **options: Any) -> None:
        self.seen = self.tenant
        super().init_poolmanager(*positional, **options)


def test_a_guard_around_another_adapter_keeps_the_state_of_its_class() -> None:
    guard = Tenant(tenant="north", pool_maxsize=33)
    twin = guard.around(HTTPAdapter())
    assert (twin.tenant, twin.seen, twin.context) == ("north", "north", guard.context)
    assert twin.inner is not guard.inner


@pytest.mark.parametrize("name", ["settings", "hooks", "refresh", "locks"])
def test_what_a_guard_was_made_with_can_be_read_and_not_replaced(name: str) -> None:
    guard = GuardAdapter()
    assert getattr(guard, name) == getattr(guard.context, name)
    with pytest.raises(AttributeError):
        setattr(guard, name, None)
