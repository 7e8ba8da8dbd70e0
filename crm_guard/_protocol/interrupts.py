"""What becomes of a call's results when a Ctrl-C, `sys.exit()` or an error aborts it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crm_guard._protocol import known_locked
from crm_guard._protocol.record_outcomes import error_in, outcomes_in, unanswered_outcomes
from crm_guard._protocol.steps import Ending

if TYPE_CHECKING:
    from crm_guard._protocol.answer import Answer
    from crm_guard._protocol.call_facts import Facts
    from crm_guard._protocol.exchange import Exchange
    from crm_guard._protocol.steps import Broken
    from crm_guard._protocol.waits_and_budgets import Pacing


def settle(exchange: Exchange[Any], pacing: Pacing, broken: Broken[Any]) -> None:
    """Give each record its fate: an answer that has come whole counts, and what may have arrived is uncertain."""
    if exchange.in_flight:
        begun = broken.sends >= exchange.flight
        if begun and broken.answer is not None:
            exchange.absorb(broken.answer)
            pacing.after(broken.answer, pending=bool(exchange.pending))
        elif begun and broken.arrived:
            exchange.lost()
        else:
            exchange.recall(begun=begun)
    if exchange.pending or exchange.uncertain:
        exchange.give_up(broken.reason, broken.error)


def unanswered(facts: Facts, pacing: Pacing, broken: Broken[Any], *, waited_first: bool) -> Ending[Any]:
    """Return the ending of a call without an answer."""
    uncertain = broken.sends > 0 and broken.arrived and not facts.request.endpoint.reads
    if waited_first:
        return known_locked.unanswered(facts, pacing, broken, uncertain=uncertain)
    outcomes = unanswered_outcomes(facts.judge, broken.error) if uncertain else ()
    return Ending(answer=None, outcomes=outcomes, attempts=broken.sends, reason=broken.reason, error=broken.error)


def unguarded(facts: Facts, answer: Answer[Any]) -> Ending[Any]:
    """Return the ending of a call whose first answer refuses nothing."""
    return Ending(answer=answer, outcomes=outcomes_in(answer, facts.judge), error=error_in(answer, facts.request))
