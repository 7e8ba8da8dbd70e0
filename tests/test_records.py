"""Which record an item of a batch's answer speaks of."""

import pytest
import requests

import crm_guard
from crm_guard.simulator import Simulator

COUNT = 6
BLOCKED = 2


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_a_nameless_item_of_a_shuffled_answer_gets_the_record_that_the_others_leave(seed, guarded):
    """CRM does not name a record whose delete it refuses with NOT_APPROVED, and does not document the order."""
    with Simulator(shuffle=True, seed=seed) as crm, requests.Session() as session:
        ids = [crm.add_record("Accounts") for _ in range(COUNT)]
        crm.set_state(ids[BLOCKED], "zia_vision_pending")
        if guarded:
            crm_guard.mount_guard(session, crm.url)
        answer = session.delete(f"{crm.url}/crm/v8/Accounts", params={"ids": ",".join(ids)})
        report = crm_guard.get_report(answer)
    (blocked,) = report.blocked
    assert blocked.record_id == ids[BLOCKED]
    assert blocked.position == BLOCKED
    assert sorted(outcome.record_id for outcome in report.outcomes) == sorted(ids)
    assert blocked.approval_state == ("zia_vision_pending" if guarded else None)
