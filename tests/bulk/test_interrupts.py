"""Ctrl-C at any line of the thread that takes results: no row is lost, none is told wrongly, no thread stays."""

from __future__ import annotations

import sys
from typing import Any

import requests

import crm_guard
from crm_guard.simulator import Engine
from tests.bulk.world import add, check, nothing_lives, rows_of
from tests.calls.test_interrupts import Interrupting, Line
from tests.calls.world import ORIGIN, EngineTransport

QUICKER = crm_guard.GuardSettings(wait_initial=0.001, wait_max=0.001, timeout=8.0, attempts=10_000)


class Scene:
    """A writer with rows of all kinds, over a CRM in this process, that ends by itself or before time."""

    def __init__(self, at: Line | None = None, times: int = 0, *, breaks: bool) -> None:
        self.tracing = Interrupting(at, times)
        self.breaks = breaks
        self.engine = Engine()
        ids = add(self.engine, 5) + add(self.engine, 2, refusals=1)
        ids += add(self.engine, 1, state="zia_vision_rejected") + add(self.engine, 4)
        self.rows = rows_of([*ids, ids[0], ids[5]])
        self.results: list[Any] = []
        self.session = requests.Session()
        guard = crm_guard.GuardAdapter(QUICKER, inner=EngineTransport(self.engine))
        self.session.mount(ORIGIN, guard)
        self.guard = guard
        self.writer: Any = None

    def play(self) -> BaseException | None:
        """Write the rows, traced; return what interrupted it."""
        before = sys.gettrace()
        self.writer = crm_guard.write_records(
            self.session, "PUT", f"{ORIGIN}/crm/v8/Leads", iter(self.rows), batch_size=3, workers=2, max_pending=9
        )
        try:
            self.tracing.begin()
            with self.writer as writer:
                for result in writer:
                    self.results.append(result)
                    if self.breaks and len(self.results) == 4:
                        break
        except KeyboardInterrupt as exc:
            return exc
        finally:
            sys.settrace(before)
        return None

    def check(self) -> None:
        self.writer.close()  # for the lines before `close` has begun
        check(self.engine, self.rows, self.results, self.writer, at_rest=False)
        assert nothing_lives()
        check(self.engine, self.rows, self.results, self.writer)
        assert not self.guard.locks
        assert not self.guard.context.stops._wakes


def lines_of(*, breaks: bool) -> list[Line]:
    scene = Scene(breaks=breaks)
    scene.play()
    scene.check()
    return scene.tracing.seen


def test_a_ctrl_c_at_any_line_loses_no_row():
    missed = set()
    for breaks in (False, True):
        seen = lines_of(breaks=breaks) + lines_of(breaks=breaks)
        lines = set(seen)
        assert len(lines) > 100
        for line in sorted(lines):
            times = (0, 4) if seen.count(line) > 20 and not breaks else (0,)
            for passes in times:
                scene = Scene(line, passes, breaks=breaks)
                interrupted = scene.play()
                struck = scene.tracing.at is None
                assert struck == (interrupted is not None), line
                if struck and not scene.writer._is_over:
                    missed.add(line)
                scene.check()
    assert len(missed) <= 4, missed  # the first lines of `__exit__` and `close`, before anything could be done
