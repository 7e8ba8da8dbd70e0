"""The rows that were read, where reading them ends half way."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from crm_guard._bulk.ledger import Ledger
from crm_guard._protocol.scheduling.row import Row


class Interrupted(BaseException):
    """What a signal handler may raise."""


@pytest.mark.parametrize("raised", [KeyError("no key"), ValueError("no key"), RuntimeError("late"), Interrupted()])
@pytest.mark.parametrize("before", [True, False], ids=["instead of a row", "after a row"])
def test_rows_that_were_handed_over_before_another_failed_are_told_once(raised, before):
    """They are of one list, and so read together; whoever writes `unfinished()` next would write them twice."""
    handed = []

    def hand_over(row):
        handed.append(row)
        if row.index == 5 and not before:
            raise raised

    def make(index, value):
        if index == 6:
            raise raised
        return Row(index=index, value=value, encoded=b"", record_id=None, keys=())

    ledger = Ledger([*"abcdefgh"], SimpleNamespace(row=make), hand_over)
    with pytest.raises(type(raised)):
        next(ledger.read_on(8))
    assert (ledger.read, ledger.pending, len(handed)) == (8, 8, 6)
    for row in handed[:4]:
        ledger.hand(SimpleNamespace(index=row.index))
        ledger.forget_handed()
    assert ledger.final_below == 4
    assert [row.index for row in ledger.unfinished(over=True)] == [4, 5, 6, 7]
