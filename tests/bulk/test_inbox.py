"""What is left for the threads of a writer, on its way to the scheduler."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from crm_guard._bulk.inbox import Inbox


def test_messages_and_rows_come_in_order_and_in_one_go():
    inbox, came = Inbox(), []
    scheduler = SimpleNamespace(add=lambda rows, now: came.append((rows, now)))
    inbox.rows.extend("ab")
    inbox.put(lambda now: came.append(("full", now)))
    inbox.rows.append("c")
    inbox.put(lambda now: came.append(("no more", now)))
    inbox.empty_into(scheduler, 3.0)
    assert came == [("full", 3.0), ("no more", 3.0), (["a", "b", "c"], 3.0)]
    inbox.empty_into(scheduler, 4.0)
    assert len(came) == 3


def test_rows_count_until_the_scheduler_has_them():
    """Whoever reads rows looks at it meanwhile, and would else read more than there is need of."""
    inbox, counts = Inbox(), []

    def add(rows, now):
        counts.append(len(inbox))
        if rows == ["c"]:
            raise LookupError

    inbox.rows.extend("ab")
    inbox.empty_into(SimpleNamespace(add=add), 0.0)
    assert counts[0] >= 2
    assert len(inbox) == 0
    inbox.rows.append("c")
    with pytest.raises(LookupError):
        inbox.empty_into(SimpleNamespace(add=add), 0.0)
    assert (counts[1] >= 1, len(inbox)) == (True, 0)
