"""The rest of a job: a request for the records that are still locked, which a task queue can send later."""

from __future__ import annotations

import base64
import copy
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from requests import PreparedRequest
from requests.cookies import RequestsCookieJar
from requests.hooks import default_hooks
from requests.structures import CaseInsensitiveDict

from crm_guard._base.credentials import bare_headers, bare_url, named, parameters

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


class _Names(NamedTuple):
    """Names of headers and of query parameters."""

    headers: tuple[str, ...] = ()
    params: tuple[str, ...] = ()


_NONE: Final = _Names()
_OF_THE_SENDER: Final = frozenset({"cookie", "proxy-authorization"})
"""Headers that are left out, and not asked for: the session that sends has cookies and proxies of its own."""


class RemainingRequest(PreparedRequest):
    """A `requests.PreparedRequest` for just the records that CRM refused for a passing lock.

    Send it with `session.send(request)`. It is the caller's own object: nothing else refers to it.

    What is kept of it, a pickle or :meth:`to_dict`, holds no credentials: no user and password of the URL, and no
    header or query parameter that has in its name `auth`, `token`, `secret`, `passw`, `passphrase`, `passcode`,
    `pwd`, `cookie`, `credential`, `session`, `signature`, `jwt`, `hmac`, `bearer`, `csrf` or `assertion`, or ends
    in `key` or `ticket`, or is called `sig`, `sid`, `otp` or `pin`; but for `Idempotency-Key`, and CRM's
    `page_token`. Hooks are left out, too; the body is kept as it is. Copies made with the module `copy` lose
    nothing but hooks.

    Whoever sends it adds back what is :attr:`missing`. Until then sending it raises a `ValueError` that names this,
    by whatever adapter it is to be sent, and nothing is sent.
    """

    _keep: frozenset[str] = frozenset()
    _withheld: _Names = _NONE

    @classmethod
    def of(cls, request: PreparedRequest, *, keep: str | Iterable[str] = ()) -> Self:
        """Make an independent copy of `request`.

        Args:
            request: The request.
            keep: Headers and query parameters that are kept although they are credentials, such as
                `"Authorization"`: of this request, of copies of it, and of what remains of it when it was sent.
        """
        remaining = cls()
        own = vars(request) if isinstance(request, RemainingRequest) else {}
        vars(remaining).update(own, **vars(_copied(request)))
        remaining._keep |= named(keep)
        return remaining

    @property
    def portable(self) -> bool:
        """Whether the body can travel to another process: a stream cannot."""
        return self.body is None or isinstance(self.body, bytes | str)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the headers and query parameters that were left out on the way, and are not back yet.

        Cookies and `Proxy-Authorization` are never among them: the session that sends has its own.
        """
        headers, params = self._missing()
        return headers + params

    @property
    def path_url(self) -> str:
        """Path and query, as an adapter puts them on the wire.

        Raises:
            ValueError: Credentials are missing.
        """
        missing = self._missing()
        if missing != _NONE:
            raise ValueError(_wanted(missing))
        return super().path_url

    def copy(self) -> Self:
        """Return an independent copy."""
        return self.of(self)

    def prepare_auth(self, auth: Any, url: str = "") -> None:
        """Add credentials as `requests` does; an `auth` that signs may read :attr:`path_url` meanwhile."""
        withheld, self._withheld = self._withheld, _NONE
        try:
            super().prepare_auth(auth, url)
        finally:
            self._withheld = withheld

    def to_dict(self, *, keep: str | Iterable[str] = ()) -> dict[str, Any]:
        """Return the request as plain data that `json` can write, without credentials and hooks.

        Args:
            keep: Headers and query parameters that are kept although they are credentials, such as
                `"Authorization"`.

        Raises:
            TypeError: The body is a stream.
        """
        headers, url, withheld = self._bare(self._keep | named(keep))
        names = {kind: list(left) for kind, left in withheld._asdict().items() if left}
        data = {"method": self.method, "url": url, "headers": headers, **_packed(self.body)}
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
            data: What `to_dict` returned, also after a trip through JSON.
            headers: Headers to add, above all `Authorization`. One whose value is None is not sent, and not missed.
            params: Query parameters to add, where credentials are such; None as above.
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
            _without(withheld.get("headers", ()), given), _without(withheld.get("params", ()), params or ())
        )
        return remaining

    def __getstate__(self) -> dict[str, Any]:
        headers, url, withheld = self._bare(self._keep)
        return {
            **self.__dict__,
            "url": url or None,
            "headers": CaseInsensitiveDict(headers),
            "hooks": default_hooks(),  # which may be lambdas, and no pickle takes these
            "_cookies": RequestsCookieJar(),
            "_withheld": withheld,
        }

    def __copy__(self) -> Self:
        return self._twin(self.__dict__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._twin(copy.deepcopy({**self.__dict__, "hooks": None}, memo))

    def __repr__(self) -> str:
        return f"<RemainingRequest [{self.method}]>"

    def _twin(self, state: Mapping[str, Any]) -> Self:
        twin = type(self)()
        twin.__dict__.update(state, hooks=default_hooks())
        return twin

    def _bare(self, keep: Collection[str]) -> tuple[dict[str, str], str, _Names]:
        """Return headers and URL without credentials, and the names that are missing in these."""
        headers, left = bare_headers(self.headers or {}, keep)
        url, params = bare_url(self.url or "", keep)
        missing = self._missing()
        asked = [name for name in left if name.lower() not in _OF_THE_SENDER]
        return headers, url, _Names((*missing.headers, *asked), (*missing.params, *dict.fromkeys(params)))

    def _missing(self) -> _Names:
        if self._withheld == _NONE:
            return _NONE
        return _Names(
            _without(self._withheld.headers, self.headers or ()),
            _without(self._withheld.params, parameters(self.url or "")),
        )


def own_copy(request: PreparedRequest) -> PreparedRequest:
    """Copy a request together with its hooks; one that says what is kept of it, with that."""
    return request.of(request) if isinstance(request, RemainingRequest) else _copied(request)


def _copied(request: PreparedRequest) -> PreparedRequest:
    """Copy a request with hooks of its own, which `PreparedRequest.copy` would share."""
    copied = PreparedRequest.copy(request)
    copied.hooks = {event: list(hooks) for event, hooks in request.hooks.items()}
    return copied


def _without(names: Iterable[str], present: Iterable[str]) -> tuple[str, ...]:
    there = named(present)
    return tuple(name for name in names if name.lower() not in there)


def _wanted(missing: _Names) -> str:
    """Say what to add to a request before it can be sent."""
    headers = [f"request.headers[{name!r}] = ..." for name in missing.headers]
    params = [f"request.prepare_url(request.url, {{{name!r}: ...}})" for name in missing.params]
    return (
        "nothing was sent: this request was kept without its credentials. Add them back, all with "
        f"RemainingRequest.from_dict(data, headers=..., params=...), or each: {'; '.join(headers + params)}"
    )


def _packed(body: object) -> dict[str, str]:
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
