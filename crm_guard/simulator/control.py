"""The control API of the simulator: its state over HTTP, for tests in any language.

`crm-guard simulate` answers it below /__simulator, on the port of the CRM; in Python,
`Simulator(control=True)` does. It needs no token, costs no credits, meets no fault, latency or
limit, and its calls are not in the call log. Where the simulator listens on loopback alone, it
answers no page of a web site: Host must be an address or localhost, and Origin that host.

    crm-guard simulate --port 8070 --records 0    # on 127.0.0.1 alone, without any record
    curl http://127.0.0.1:8070/__simulator        # this page

Bodies are JSON objects, whatever the content type says; an empty one is {}. Answers are JSON.
Times are seconds. Ids are texts, since JavaScript rounds such numbers. A key is optional unless
it is said to be required.

RECORDS

    curl http://127.0.0.1:8070/__simulator/records -d '{"module": "Leads", "id": "101", "locked_for": 60}'
    curl http://127.0.0.1:8070/__simulator/records -d '{"module": "Leads", "id": "102", "refusals": 2,
        "then": "zia_vision_rejected", "fields": {"Last_Name": "Rowland", "Company": "Zylker"}}'
    curl http://127.0.0.1:8070/__simulator/records/101
    curl 'http://127.0.0.1:8070/__simulator/records?module=Leads&state=approved'
    curl -X DELETE http://127.0.0.1:8070/__simulator/records/102

POST adds a record, and answers 201 with it:
  module       Required. API name of the module.
  id           Digits; made up if not given. A taken one is answered with 409.
  state        approved (the default), zia_vision_validation (locked by Zia's check),
               zia_vision_pending, zia_vision_rejected, approval_process_pending, record_locking,
               merge_pending and more: an unknown one is answered with the list.
  locked_for   Seconds after which the state ends.
  refusals     Refused calls after which the state ends. Given both, the earlier counts; given
               neither, it stays. With one of them, approved means zia_vision_validation.
  then         The state that follows: approved by default.
  fields       Field API names to values.
  image        Record image in base64.
  image_state  zia_image_pending if the image alone waits for a person.
  lock_source  Manual (the default) or Automatic: who locked it, for record_locking.
GET shows records as they stand, with writes and refusals so far; a deleted one only by its id.
seconds_left, refusals_left and then tell how the state ends. DELETE takes a record away as if it
had never been.

    curl http://127.0.0.1:8070/__simulator/records/101/lock -d '{"locked_for": 30}'
    curl http://127.0.0.1:8070/__simulator/records/101/lock -d '{"refusals": 3, "then": "zia_vision_pending"}'
    curl http://127.0.0.1:8070/__simulator/records/101/state -d '{"state": "zia_vision_rejected"}'
    curl -X POST http://127.0.0.1:8070/__simulator/records/101/unlock

lock and state take state (for lock zia_vision_validation by default, for state required),
locked_for, refusals and then, as above; unlock takes then. Each answers with the record.

NEW ROWS

    curl http://127.0.0.1:8070/__simulator/refuse_new -d '{"module": "Leads", "refusals": 1}'
    curl http://127.0.0.1:8070/__simulator/refuse_new
    curl -X DELETE http://127.0.0.1:8070/__simulator/refuse_new

POST lets rows of creates and upserts be refused that would become records: module (required),
where (fields and the values that a row must have), refusals (of each row), locked_for, and state
(the refusal is that of a record in this state). DELETE forgets all such plans.

FAULTS

    curl http://127.0.0.1:8070/__simulator/faults -d '{"kind": 500, "times": 2, "method": "PUT", "path": "/Leads"}'
    curl http://127.0.0.1:8070/__simulator/faults -d '{"kind": "answer", "status": 503, "body": {"code": "BUSY"}}'
    curl http://127.0.0.1:8070/__simulator/faults
    curl -X DELETE http://127.0.0.1:8070/__simulator/faults

POST plans a fault, and answers 201. Of several the first that is due takes a call. DELETE forgets
all of them.
  kind         Required. No answer: reset, drop. Half of it: truncated. Another one: 401, 429, 500,
               502, empty, garbage, answer. The true one, spoiled: slow, too_few_items, extra_item,
               foreign_id, reordered.
  times        How many matching calls to hit: 1 by default, null for every one.
  after        Matching calls that pass before.
  method       Only calls with this HTTP method.
  path         Only calls in whose path this text is found; * in it stands for anything, ^ at its
               beginning and $ at its end for those of the path.
  applied      Whether CRM does what the call asks all the same. By default only where the answer
               is the true one, spoiled.
  seconds      How late a slow answer is, in real time. Required there.
  retry_after  Seconds that a 429 tells the client to wait.
  status       HTTP status of answer.
  body         Its body: a JSON value, or a text to be sent as it is; body_base64 for other bytes.
  headers      Its headers: names to texts.

WHAT HAPPENED

    curl http://127.0.0.1:8070/__simulator/counts
    curl http://127.0.0.1:8070/__simulator/calls
    curl 'http://127.0.0.1:8070/__simulator/calls?since=2&limit=10'

counts shows writes applied and calls refused, both by record id, answered (calls), credits_spent,
credits_remaining and max_concurrent. calls shows what came in and what was answered, in order and
numbered from 1: those behind the number since, at most limit (100 by default, up to 1000). Go on
with since=next while more is true; a number that no call has yet, as after a reset, counts as 0.
Headers and parameters that are named like secrets are hidden, and so is what calls for a token
hold.

ACCESS AND TIME

    curl http://127.0.0.1:8070/__simulator/clock -d '{"advance": 30}'
    curl http://127.0.0.1:8070/__simulator/credits -d '{"remaining": 1000}'
    curl http://127.0.0.1:8070/__simulator/scopes -d '{"module": "Leads", "operation": "DELETE"}'
    curl http://127.0.0.1:8070/__simulator/token -d '{"new": "secret"}'

clock lets seconds pass at once, so that locks end; GET shows it. Delays of answers stay real.
credits sets what is left for the day, null for no limit. scopes lets calls fail with
OAUTH_SCOPE_MISMATCH: operation (required) is READ, CREATE, UPDATE, DELETE, WRITE or ALL; token and
module limit it. token lets every token so far expire, and accepts the new one alone; without one
none is accepted, until a client fetches one from /oauth/v2/token.

RESET

    curl http://127.0.0.1:8070/__simulator/reset -d '{"what": "log"}'
    curl -X POST http://127.0.0.1:8070/__simulator/reset

what is log: calls, counts and spent credits are forgotten. all (the default): everything is as at
the start, with the records and faults of --seed, whose seconds count from now.

ERRORS

Bad input changes nothing. Errors are {"error": {"message", "field", "value", "allowed"}}, of which
message is always there: 400 for bad input, 404 for an unknown path or record, 403 for
pages of web sites, 405 for a wrong method, 409 for a taken id, or a clock that cannot be advanced.

IN A TEST

`crm-guard simulate --port 0 --json` takes a free port, and prints one line of JSON once it answers:
{"url": "http://127.0.0.1:54321", "control": "http://127.0.0.1:54321/__simulator", ...}. Read that
line, and end it with SIGTERM. `--seed FILE` gives a start state, in JSON, or in TOML if the name of
the file ends in .toml:

    {"options": {"token": "secret", "credits": 5000},
     "records": [{"module": "Leads", "id": "101", "locked_for": 60}],
     "faults": [{"kind": 429, "retry_after": 2}],
     "refuse_new": [{"module": "Contacts", "refusals": 1}]}

records, faults and refuse_new take what is posted here, options those of
crm_guard.simulator.Options but for the clock.
"""

from __future__ import annotations

import ipaddress
import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from .inputs import InputError
from .messages import Reply
from .resources import RESOURCES, TAKES_QUERY, Ask, ControlError, as_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from .engine import Engine
    from .messages import Request

PREFIX = "/__simulator"
_BASE = "http://127.0.0.1:8070"
_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")
_SHOWN = 100


class Control:
    """Answers the control API of one engine. Thread-safe, as the engine is.

    Args:
        engine: The CRM.
        plant: Fills a new engine at a reset, as the first one was filled; `None` for an empty CRM.
        guarded: Whether requests that a page of a web site may have made are refused.
    """

    def __init__(
        self, engine: Engine, plant: Callable[[Engine], object] | None = None, *, guarded: bool = True
    ) -> None:
        self._engine = engine
        self._guarded = guarded
        self._plant = plant
        self._born = engine.now()

    def owns(self, path: str) -> bool:
        """Return whether a path belongs to the control API."""
        return path == PREFIX or path.startswith(f"{PREFIX}/")

    def handle(self, request: Request) -> Reply:
        """Answer one request whose path it owns. Bad input is answered, never raised."""
        if self._guarded and is_foreign(request):
            message = "this comes from a page of a web site, or under a name that is not localhost"
            return as_json(HTTPStatus.FORBIDDEN, {"error": {"message": message}})
        try:
            return self._answer("GET" if request.method == "HEAD" else request.method, request)
        except InputError as error:
            about = {"field": error.field, "value": error.value, "allowed": error.allowed}
            return as_json(400, {"error": {"message": str(error), **about}})
        except ControlError as error:
            return error.reply

    def _answer(self, method: str, request: Request) -> Reply:
        steps = request.path.removeprefix(PREFIX).strip("/").split("/")
        path = "/".join([*steps[:1], *("{id}" for _ in steps[1:2]), *steps[2:]])
        if not path:
            return self._show_page(method, request)
        methods = RESOURCES.get(path)
        if methods is None:
            message = f"there is no control path {json.dumps(request.path[:_SHOWN])}"
            paths = [f"{', '.join(methods)} {PREFIX}/{path}" for path, methods in RESOURCES.items()]
            raise ControlError(404, message, allowed=[f"GET {PREFIX}", *paths])
        if method not in methods:
            raise _wrong_method(method, f"{PREFIX}/{path}", list(methods))
        record_id = unquote(steps[1]) if len(steps) > 1 else ""
        ask = Ask(engine=self._engine, plant=self._plant, born=self._born, request=request, id=record_id)
        if (method, path) not in TAKES_QUERY:
            ask.query({})
        try:
            return methods[method](ask)
        except KeyError:
            if "{id}" not in path:
                raise
            shown, allowed = record_id[:_SHOWN], f"an id that GET {PREFIX}/records lists"
            message = f"there is no record {json.dumps(shown)}"
            raise ControlError(404, message, field="id", value=shown, allowed=allowed) from None

    def _show_page(self, method: str, request: Request) -> Reply:
        if method != "GET":
            raise _wrong_method(method, PREFIX, ["GET"])
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        return Reply(status=HTTPStatus.OK, headers=headers, body=page(request.header("Host")).encode())


def is_foreign(request: Request) -> bool:
    """Return whether a page of a web site may have made a request: browsers send its `Origin`, or its `Host`.

    Such a page can reach the loopback interface, also under a name of its own (DNS rebinding).
    """
    host = request.header("Host") or "localhost"
    origin = request.header("Origin")
    return not is_local_name(urlsplit(f"//{host}").hostname or "") or origin not in (None, f"http://{host}")


def is_local_name(name: str) -> bool:
    """Return whether a host is an address, or `localhost`: no name that somebody else may give to this machine."""
    try:
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def page(host: str | None = None) -> str:
    """Return the reference of the control API, its examples for a simulator that is reached as `host`."""
    text = __doc__ or ""
    return text.replace(_BASE, f"http://{host}") if host and _HOST.fullmatch(host) else text


def _wrong_method(method: str, path: str, allowed: list[str]) -> ControlError:
    allow = ", ".join(allowed)
    message = f"{path} takes {allow}, not {json.dumps(method[:_SHOWN])}"
    return ControlError(405, message, headers={"Allow": allow}, allowed=allowed)
