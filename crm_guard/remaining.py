"""RemainingRequest: a storable request for records that were refused, which a task queue can send later.

What stays blocked can be kept as a request for just those records, without credentials, and sent
once somebody has resolved it. `request_for` takes any refused outcomes; it raises `ValueError` for
a record that was written or may have been::

    import json
    import requests
    import crm_guard

    session = requests.Session()
    crm_guard.mount_guard(session)
    rows = [{"id": "111112000000142001", "Company": "Zylker"}, {"id": "111112000000075009", "Company": "Zylker"}]
    response = session.put("https://www.zohoapis.com/crm/v8/Leads", json={"data": rows})
    report = crm_guard.get_report(response)
    letter = json.dumps(report.request_for(report.blocked).to_dict())

    # later, once the record is approved
    token = {"Authorization": "Zoho-oauthtoken 1000.x"}
    rest = crm_guard.RemainingRequest.from_dict(json.loads(letter), headers=token)
    print(rest.method, rest.url)  # session.send(rest)

`report.remaining_request()`, also of an error, is that of the records that are still locked by a
lock that passes.

What a queue carries (`to_dict()`, pickled requests, reports and errors) contains no
`Authorization`, no cookies, and nothing else that is named like a credential; `keep=` keeps some.
`from_dict(data, headers=..., params=...)` adds them back, and sending fails with the names of those
still missing.

A worker that must not block sets `timeout=0` and puts the rest of the job on its queue. With
Celery::

    import logging
    import os

    import requests
    from celery import Celery

    import crm_guard

    app = Celery("crm", broker=os.environ["BROKER_URL"])
    policy = crm_guard.load_settings(timeout=0, raise_on="never")  # never wait; read the report


    @app.task
    def dead_letter(record, code, hint):
        logging.getLogger("dead_letter").error("%s may not have been written: %s. %s", record, code, hint)


    @app.task(bind=True, max_retries=50)
    def send(self, request):
        with requests.Session() as session:
            crm_guard.mount_guard(session, os.environ.get("CRM_URL", "https://www.zohoapis.com"), settings=policy)
            todo = crm_guard.RemainingRequest.from_dict(request, headers={"Authorization": os.environ["CRM_TOKEN"]})
            report = crm_guard.get_report(session.send(todo))
        last = self.request.retries >= self.max_retries
        if report.error and report.error.status in (401, 429) and not last:  # nothing was written: all of it again
            raise self.retry(countdown=report.retry_after or 60)
        if report.error and not report.outcomes:  # the request names no records: a job by cvid, say
            raise RuntimeError(f"the call failed as a whole: {report.error}")
        rest = None if last else report.remaining_request()  # just the records that are still locked
        for outcome in report.outcomes:
            if not outcome.succeeded and (rest is None or not outcome.retryable):  # it will not be sent again
                record = outcome.record_id or f"row {outcome.position}"
                dead_letter.delay(record, outcome.code or str(report.error), outcome.hint)
        if rest is not None:
            raise self.retry(args=[rest.to_dict()], countdown=report.retry_after)


    def update(url, rows):
        request = requests.Request("PUT", url, json={"data": rows}).prepare()
        send.delay(crm_guard.RemainingRequest.of(request).to_dict())

On SIGTERM see `crm_guard.clock`, or `crm-guard help stopping`.
"""

from __future__ import annotations

import base64
import copy
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from requests import PreparedRequest
from requests.cookies import RequestsCookieJar
from requests.hooks import default_hooks
from requests.structures import CaseInsensitiveDict

from crm_guard._base.credentials import bare_headers, bare_url, lower_names, parameters

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


class _Names(NamedTuple):
    """Names of headers and of query parameters."""

    headers: tuple[str, ...] = ()
    params: tuple[str, ...] = ()


_NO_NAMES: Final = _Names()
_SESSION_HEADERS: Final = frozenset({"cookie", "proxy-authorization"})
"""Headers that are removed but not reported as missing: the sending session adds its own."""


class RemainingRequest(PreparedRequest):
    """A `requests.PreparedRequest` for just some records of a call that CRM refused.

    `remaining_request()` makes one for those with a temporary lock, `request_for` one for those that it is given.
    Send it with `session.send(request)`. The caller owns it: nothing else refers to it.

    Its stored forms, a pickle or :meth:`to_dict`, hold no credentials: no user and password of the URL, and no
    header or query parameter that has in its name `auth`, `token`, `secret`, `passw`, `passphrase`, `passcode`,
    `pwd`, `cookie`, `credential`, `session`, `signature`, `jwt`, `hmac`, `bearer`, `csrf` or `assertion`, or ends
    in `key` or `ticket`, or is `sig`, `sid`, `otp` or `pin`; except `Idempotency-Key` and CRM's `page_token`. Hooks
    are removed, too; the body is stored unchanged. Copies made with the `copy` module lose only the hooks.

    Add back what is :attr:`missing` before sending it. Until then, any adapter raises a `ValueError` that names the
    missing parts, and nothing is sent.
    """

    _keep: frozenset[str] = frozenset()
    _withheld: _Names = _NO_NAMES

    @classmethod
    def of(cls, request: PreparedRequest, *, keep: str | Iterable[str] = ()) -> Self:
        """Make an independent copy of `request`.

        Args:
            request: The request.
            keep: Headers and query parameters to keep although they are credentials, such as `"Authorization"`; in
                copies of this request, too, and in what remains of it after it was sent.
        """
        remaining = cls()
        own = vars(request) if isinstance(request, RemainingRequest) else {}
        vars(remaining).update(own, **vars(_copy_with_hooks(request)))
        remaining._keep |= lower_names(keep)
        return remaining

    @property
    def portable(self) -> bool:
        """Whether the body can be sent to another process: not if it is a stream."""
        return self.body is None or isinstance(self.body, bytes | str)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the headers and query parameters that were removed and not added back yet.

        Never cookies or `Proxy-Authorization`: the sending session has its own.
        """
        headers, params = self._missing()
        return headers + params

    @property
    def path_url(self) -> str:
        """Path and query, as an adapter sends them.

        Raises:
            ValueError: Credentials are missing.
        """
        missing = self._missing()
        if missing != _NO_NAMES:
            raise ValueError(_missing_message(missing))
        return super().path_url

    def copy(self) -> Self:
        """Return an independent copy."""
        return self.of(self)

    def prepare_auth(self, auth: Any, url: str = "") -> None:
        """Add credentials as `requests` does; an `auth` that signs may read :attr:`path_url`."""
        withheld, self._withheld = self._withheld, _NO_NAMES
        try:
            super().prepare_auth(auth, url)
        finally:
            self._withheld = withheld

    def to_dict(self, *, keep: str | Iterable[str] = ()) -> dict[str, Any]:
        """Return the request as JSON-serializable data, without credentials and hooks.

        Args:
            keep: Headers and query parameters to keep although they are credentials, such as `"Authorization"`.

        Raises:
            TypeError: The body is a stream.
        """
        headers, url, withheld = self._stripped(self._keep | lower_names(keep))
        names = {kind: list(left) for kind, left in withheld._asdict().items() if left}
        data = {"method": self.method, "url": url, "headers": headers, **_body_fields(self.body)}
        return {**data, "withheld": names} if names else data

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        *,
        headers: Mapping[str, str | None] | None = None,
        params: Mapping[str, str | None] | None = None,
    ) -> Self:
        """Rebuild a request from :meth:`to_dict`.

        Args:
            data: What `to_dict` returned, also after a JSON round trip.
            headers: Headers to add, such as `Authorization`. None as a value: not sent, nor reported as missing.
            params: Query parameters to add, if credentials are among them; None as above.
        """
        given = CaseInsensitiveDict[Any]({**data["headers"]})
        given.update(headers or {})
        sent = {name: value for name, value in given.items() if value is not None}
        remaining = cls()
        remaining.prepare(method=data["method"], url=data["url"], headers=sent, params=params)
        body = base64.b64decode(data["body_base64"]) if "body_base64" in data else data.get("body")
        remaining.body = body.encode() if isinstance(body, str) else body
        if remaining.body is not None:
            remaining.headers["Content-Length"] = str(len(remaining.body))
        withheld = data.get("withheld", {})
        remaining._withheld = _Names(
            _absent(withheld.get("headers", ()), given), _absent(withheld.get("params", ()), params or ())
        )
        return remaining

    def __getstate__(self) -> dict[str, Any]:
        headers, url, withheld = self._stripped(self._keep)
        return {
            **self.__dict__,
            "url": url or None,
            "headers": CaseInsensitiveDict(headers),
            "hooks": default_hooks(),  # hooks may be lambdas, which cannot be pickled
            "_cookies": RequestsCookieJar(),
            "_withheld": withheld,
        }

    def __copy__(self) -> Self:
        return self._clone(self.__dict__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._clone(copy.deepcopy({**self.__dict__, "hooks": None}, memo))

    def __repr__(self) -> str:
        return f"<RemainingRequest [{self.method}]>"

    def _clone(self, state: Mapping[str, Any]) -> Self:
        clone = type(self)()
        clone.__dict__.update(state, hooks=default_hooks())
        return clone

    def _stripped(self, keep: Collection[str]) -> tuple[dict[str, str], str, _Names]:
        """Return headers and URL without credentials, and the names missing from them."""
        headers, left = bare_headers(self.headers or {}, keep)
        url, params = bare_url(self.url or "", keep)
        missing = self._missing()
        asked = [name for name in left if name.lower() not in _SESSION_HEADERS]
        return headers, url, _Names((*missing.headers, *asked), (*missing.params, *dict.fromkeys(params)))

    def _missing(self) -> _Names:
        if self._withheld == _NO_NAMES:
            return _NO_NAMES
        return _Names(
            _absent(self._withheld.headers, self.headers or ()),
            _absent(self._withheld.params, parameters(self.url or "")),
        )


def own_copy(request: PreparedRequest) -> PreparedRequest:
    """Copy a request with its hooks; a `RemainingRequest` also with its `keep` and missing names."""
    return request.of(request) if isinstance(request, RemainingRequest) else _copy_with_hooks(request)


def changed_copy(request: RemainingRequest, url: str | None, body: bytes | None) -> RemainingRequest:
    """Copy a request that is portable, with another URL or body where given, and the length of that body."""
    copied = RemainingRequest.of(request)
    copied.url = url or copied.url
    if body is not None:
        copied.body = body
        copied.headers["Content-Length"] = str(len(body))
        copied.headers.pop("Transfer-Encoding", None)
    return copied


def _copy_with_hooks(request: PreparedRequest) -> PreparedRequest:
    """Copy a request and its lists of hooks, which `PreparedRequest.copy` would share."""
    copied = PreparedRequest.copy(request)
    copied.hooks = {event: list(hooks) for event, hooks in request.hooks.items()}
    return copied


def _absent(names: Iterable[str], present: Iterable[str]) -> tuple[str, ...]:
    lowered = lower_names(present)
    return tuple(name for name in names if name.lower() not in lowered)


def _missing_message(missing: _Names) -> str:
    """Return the message that says what to add before the request can be sent."""
    headers = [f"request.headers[{name!r}] = ..." for name in missing.headers]
    params = [f"request.prepare_url(request.url, {{{name!r}: ...}})" for name in missing.params]
    return (
        "nothing was sent: this request was kept without its credentials. Add them back, all with "
        f"RemainingRequest.from_dict(data, headers=..., params=...), or each: {'; '.join(headers + params)}"
    )


def _body_fields(body: object) -> dict[str, str]:
    if body is None:
        return {}
    if isinstance(body, str):
        return {"body": body}
    if not isinstance(body, bytes):
        message = "a streamed body cannot be turned into plain data"
        raise TypeError(message)
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode("ascii")}
