"""Several calls in one. OAS: `composite_requests`; ZOHO docs: composite-api."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .actions import not_supported
from .messages import JSON_TYPE, Json, Reply, RequestError, answer, bare, invalid_field, item, too_long
from .references import Answers, BrokenReferenceError
from .sub_reads import cut, paged
from .subs import Sub, checked_subs, refused, route_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .visit import Visit

MAX_SUBS = 5
_ERRORS_FROM = 400


def composite(visit: Visit) -> Reply:
    """POST /__composite_requests.

    Subs run one after the other, `parallel_execution` or not: in their order, but for those that refer to the
    answer of a later one. Where a sub's own answer is an error, the whole answers 200 (a guess: OAS calls that
    executed). It answers 207 where a sub could not be sent at all (OAS), and after a rollback (a guess).
    """
    if visit.route.version < 3:
        raise RequestError(not_supported("The API is not supported in this version"))
    subs = visit.rows("__composite_requests")
    if len(subs) > MAX_SUBS:
        raise RequestError(too_long("__composite_requests", MAX_SUBS))
    undoes = _flag(visit, "rollback_on_fail")
    if _flag(visit, "parallel_execution") and undoes:
        raise RequestError(_ambiguous())
    run = _Run(visit, checked_subs(subs, visit.route.version))
    return run.undoable() if undoes else run.independent()


def _flag(visit: Visit, name: str) -> bool:
    """Return a flag of the body; absent and null are taken as false.

    Raises:
        RequestError: It is no boolean.
    """
    value = visit.body.get(name)
    if not isinstance(value, (bool, type(None))):
        raise RequestError(invalid_field(name, "boolean"))
    return value is True


def _ambiguous() -> Reply:
    keys = [{"api_name": key, "json_path": f"$.{key}"} for key in ("rollback_on_fail", "parallel_execution")]
    message = "Ambiguity while processing the request"
    return bare(400, "AMBIGUITY_DURING_PROCESSING", message, {"ambiguity_due_to": keys})


class _Run:
    """One composite at work: its subs, in the order of execution, and the items of those that ran, by index."""

    def __init__(self, visit: Visit, subs: Sequence[Sub]) -> None:
        self._visit = visit
        self._subs = subs
        self._items: dict[int, Json] = {}
        self._answers = Answers(visit.options.max_body)

    def independent(self) -> Reply:
        """Run all, whatever fails."""
        for sub in self._subs:
            self._execute(sub)
        self._visit.notes.credits = 1
        sent = all(entry["status"] == "success" for entry in self._items.values())
        return self._answer(200 if sent else 207, self._items)

    def undoable(self) -> Reply:
        """Run until one fails; then take back what went before."""
        checkpoint = self._visit.store.checkpoint()
        for sub in self._subs:
            if not self._execute(sub):
                self._take_back(checkpoint)
                return self._answer(207, self._undone(sub.index))
        self._visit.notes.credits = 2
        return self._answer(200, self._items)

    def _execute(self, sub: Sub) -> bool:
        """Send a sub; return whether it succeeded."""
        visit = self._visit
        try:
            sub = _followed(sub, self._answers)
        except BrokenReferenceError as problem:
            self._items[sub.index] = problem.item()
            return False
        # What a reference put into the address or the body is no way around the restrictions.
        forbidden = refused(sub, visit.route.version)
        if forbidden is not None:
            self._items[sub.index] = forbidden
            return False
        reply = self._send(sub)
        if sub.id:
            self._answers.keep(sub.id, reply.json())
        self._items[sub.index] = _executed(reply)
        return reply.status < _ERRORS_FROM

    def _send(self, sub: Sub) -> Reply:
        """Send a sub, for no more records than one may read."""
        request, route = sub.request(self._visit.request.connection), route_of(sub)
        if route is None:
            return self._visit.dispatch(request)
        return cut(self._visit.dispatch(paged(request, route.kind)), route.kind)

    def _take_back(self, checkpoint: Mapping[str, Any]) -> None:
        store, notes = self._visit.store, self._visit.notes
        store.rollback(checkpoint)
        for record_id in notes.refused:
            if record_id in store.records:  # else the composite itself had made it
                store.records[record_id].refuse()
        notes.applied.clear()
        notes.credits = 1

    def _undone(self, failed: int) -> dict[int, Json]:
        """Return the items of a rolled back composite: done and undone, failed, and never begun."""
        details = {"rollbacked_by_sub_request_index": failed}
        done: Json = item("ROLLBACK_PERFORMED", "rollback performed", details)
        items = {index: entry if index == failed else done for index, entry in self._items.items()}
        stopped: Json = item("PROCESSING_STOPPED", "processing stopped")
        return {sub.index: items.get(sub.index, stopped) for sub in self._subs}

    @staticmethod
    def _answer(status: int, items: Mapping[int, Json]) -> Reply:
        return answer(status, {"__composite_requests": [items[index] for index in sorted(items)]})


def _executed(reply: Reply) -> Json:
    response = {
        "headers": {"content-type": reply.headers.get("Content-Type", JSON_TYPE)},
        "body": reply.json(),
        "status_code": reply.status,
    }
    return item("SUCCESS", "composite sub request executed successfully", {"response": response})


def _followed(sub: Sub, answers: Answers) -> Sub:
    """Return a sub with the values of its references.

    Raises:
        BrokenReferenceError: One leads nowhere.
    """
    if not sub.references:
        return sub
    return replace(
        sub,
        uri=answers.text(sub.uri, f"{sub.where}.uri"),
        params=answers.filled(sub.params, f"{sub.where}.params"),
        headers=answers.filled(sub.headers, f"{sub.where}.headers"),
        body=answers.filled(sub.body, f"{sub.where}.body"),
    )
