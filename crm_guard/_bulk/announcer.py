"""Tells the log and the hooks what happens to the rows of one writer, in its order."""

from __future__ import annotations

import contextvars
import threading
from typing import TYPE_CHECKING

from crm_guard._transport.telling import Around

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_guard._protocol.scheduling.news import News, Newsroom
    from crm_guard._protocol.scheduling.row import Group
    from crm_guard._transport.telling import Telling


class Announcer:
    """Tells the news of one writer, one after the other. Thread-safe.

    Waits of rows overlap, and may end in another thread than they began in: what hooks put around one is entered
    and left in a `contextvars` context of its own.

    Args:
        telling: Tells the log and the hooks.
        newsroom: What is to be told; other threads append to it.
    """

    def __init__(self, telling: Telling, newsroom: Newsroom) -> None:
        self._telling, self._newsroom, self._outbox = telling, newsroom, newsroom.outbox
        self._mutex = threading.Lock()
        self._told = 0
        self._around: dict[Group, Around] = {}

    @property
    def count(self) -> int:
        """How many news there were so far. For who holds the mutex of the scheduler."""
        return self._newsroom.count

    @property
    def has_news(self) -> bool:
        """Whether something is to be told, and no other thread is at it."""
        return bool(self._outbox) and not self._mutex.locked()

    def tell(self, failed: Callable[[BaseException], object]) -> None:
        """Tell all that is new, unless another thread is at it: that one tells it, however long a hook takes.

        Args:
            failed: Called with what a hook raised that is no `Exception`; the rest is told all the same.
        """
        while self._outbox and self._mutex.acquire(blocking=False):  # again: what came as it was being released
            try:
                while self._outbox:
                    self._tell_next(failed)
            finally:
                self._mutex.release()

    def tell_up_to(self, count: int, failed: Callable[[BaseException], object]) -> None:
        """Tell the first so many news before anything is sent; what another thread is telling is awaited."""
        if self._told < count:
            with self._mutex:
                while self._outbox and self._told < count:
                    self._tell_next(failed)

    def close(self) -> None:
        """Take in that the writer is over, as far as the log is concerned. Idempotent; never blocks."""
        self._telling.close()

    def _tell_next(self, failed: Callable[[BaseException], object]) -> None:
        try:
            self._tell(self._outbox.popleft())
        except BaseException as exc:  # noqa: BLE001 (it ends the writer, in the thread that takes the results)
            failed(exc)
        finally:
            self._told += 1

    def _tell(self, news: News) -> None:
        group, around = news.group, None
        if news.event is None:
            if group is not None:
                self._around.pop(group).leave()
            return
        if group is not None:
            around = self._around[group] = Around(contextvars.copy_context().run)
        self._telling.tell(news.event, around)
