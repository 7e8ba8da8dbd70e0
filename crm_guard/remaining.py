"""The rest of a job: a request for the records that are still locked, which a task queue can send later."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

from requests import PreparedRequest
from requests.hooks import default_hooks

if TYPE_CHECKING:
    from collections.abc import Mapping

_CREDENTIALS: Final = frozenset({"authorization", "proxy-authorization", "cookie"})


class RemainingRequest(PreparedRequest):
    """A `requests.PreparedRequest` for just the records that CRM refused for a passing lock.

    Send it with `session.send(request)`. It is the caller's own object: nothing else refers to it.
    """

    @classmethod
    def of(cls, request: PreparedRequest) -> Self:
        """Make an independent copy of `request`."""
        remaining = cls()
        remaining.__dict__.update(own_copy(request).__dict__)
        return remaining

    @property
    def portable(self) -> bool:
        """Whether the body can travel to another process: a stream cannot."""
        return self.body is None or isinstance(self.body, bytes | str)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "hooks": default_hooks()}  # hooks may be lambdas, which no pickle takes

    def to_dict(self) -> dict[str, Any]:
        """Return the request as plain data that `json` can write, without credentials.

        Left out: `Authorization`, `Proxy-Authorization`, `Cookie`, user and password in the URL, and hooks.

        Raises:
            TypeError: The body is a stream.
        """
        headers = {name: _text(value) for name, value in self.headers.items() if name.lower() not in _CREDENTIALS}
        return {"method": self.method, "url": _without_user(self.url or ""), "headers": headers} | _packed(
            self.body
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, headers: Mapping[str, str] | None = None) -> Self:
        """Rebuild a request from :meth:`to_dict`.

        Args:
            data: What `to_dict` returned, also after a trip through JSON.
            headers: Headers to add, above all `Authorization`.
        """
        remaining = cls()
        remaining.prepare(method=data["method"], url=data["url"], headers={**data["headers"], **(headers or {})})
        body = base64.b64decode(data["body_base64"]) if "body_base64" in data else data.get("body")
        remaining.body = body.encode() if isinstance(body, str) else body
        if remaining.body is not None:
            remaining.headers["Content-Length"] = str(len(remaining.body))
        return remaining

    def __repr__(self) -> str:
        return f"<RemainingRequest [{self.method}]>"


def own_copy(request: PreparedRequest) -> PreparedRequest:
    """Copy a request together with its hooks, which `PreparedRequest.copy` would share."""
    copy = request.copy()
    copy.hooks = {event: list(hooks) for event, hooks in request.hooks.items()}
    return copy


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


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
