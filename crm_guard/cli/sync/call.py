"""The call of a sync: from the options of the command to method, URL, common body and credentials, all checked."""

from __future__ import annotations

import enum
import os
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

from requests.auth import AuthBase

from crm_guard.cli.plain import CommandError, harmless

if TYPE_CHECKING:
    from requests import PreparedRequest

DEFAULT_VARIABLE: Final = "CRM_TOKEN"
"""Name of the environment variable that holds the access token."""

_USAGE_ERROR: Final = 2
_SCHEME: Final = "Zoho-oauthtoken"
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_MODULE: Final = re.compile(r"[A-Za-z]\w*", re.ASCII)
_VERSION: Final = re.compile(r"v\d+(\.\d+)?")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NONE: Final = "none"
_TRIGGERS: Final = ("workflow", "approval", "blueprint", "pathfinder", "orchestration")


class Method(enum.StrEnum):
    """What to do with the rows."""

    UPDATE = "update"
    INSERT = "insert"
    UPSERT = "upsert"
    DELETE = "delete"

    @property
    def needs_id(self) -> bool:
        """Whether each row must name its record."""
        return self in {Method.UPDATE, Method.DELETE}


_HTTP: Final = {
    Method.UPDATE: ("PUT", ""),
    Method.INSERT: ("POST", ""),
    Method.UPSERT: ("POST", "/upsert"),
    Method.DELETE: ("DELETE", ""),
}


class Target(NamedTuple):
    """What to do with the rows, and where, as the options say."""

    url: str
    module: str
    method: Method
    version: str
    duplicate_check: tuple[str, ...]
    trigger: tuple[str, ...]


class Token(AuthBase):
    """Puts the access token of an environment variable into requests, whatever `.netrc` says."""

    def __init__(self, token: str) -> None:
        self._header = f"{_SCHEME} {token}"

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Add the header."""
        request.headers["Authorization"] = self._header
        return request

    @classmethod
    def of_variable(cls, name: str) -> Self:
        """Return the token of an environment variable.

        Raises:
            CommandError: The variable is not set, or holds no token. The text does not show its value.
        """
        if not _VARIABLE.fullmatch(name):  # perhaps the token itself: do not show it
            message = "--token-env must be the name of the environment variable that holds the access token"
            raise CommandError(message, _USAGE_ERROR)
        token = os.environ.get(name, "").strip().removeprefix(_SCHEME).strip()
        if not token:
            shown = name if name in os.environ or name.isupper() else "of --token-env"
            message = f"the environment variable {shown} must hold the access token, and is not set"
            raise CommandError(message, _USAGE_ERROR)
        if not (token.isascii() and token.isprintable()) or " " in token:
            message = f"the environment variable {name} holds no access token: it has blanks or odd characters"
            raise CommandError(message, _USAGE_ERROR)
        return cls(token)


class Call(NamedTuple):
    """Where the rows go."""

    method: str
    base: str
    url: str
    body: dict[str, Any] | None


def call_of(target: Target) -> Call:
    """Return the call of a target.

    Raises:
        CommandError: An option has a value that is not allowed, or does not fit the method.
    """
    base = _base(target.url)
    _require(_MODULE.fullmatch(target.module), f"--module {target.module!r} is no API name of a module, like Leads")
    _require(_VERSION.fullmatch(target.version), f"--version {target.version!r} is no version of the API, like v8")
    body: dict[str, Any] = {}
    if target.duplicate_check:
        _require(target.method is Method.UPSERT, "--duplicate-check is for --method upsert")
        body["duplicate_check_fields"] = list(target.duplicate_check)
    query = ""
    if target.trigger:
        triggers = _triggers(target.trigger)
        if target.method is Method.DELETE:  # it has no body; API v8, "Delete Records": `wf_trigger`
            _require(not triggers, "--method delete takes no --trigger but none")
            query = "?wf_trigger=false"
        else:
            body["trigger"] = triggers
    method, path = _HTTP[target.method]
    return Call(method, base, f"{base}/crm/{target.version}/{target.module}{path}{query}", body or None)


def _base(url: str) -> str:
    """Return the URL without a slash at the end. A refusal does not show it: it may hold a password."""
    wrong = "--url must be the address of CRM alone, like https://www.zohoapis.com"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise CommandError(wrong, _USAGE_ERROR) from None
    is_bare = parts.path in ("", "/") and not (parts.query or parts.fragment or "@" in parts.netloc)
    _require(is_bare and parts.hostname and parts.scheme in ("https", "http"), wrong)
    if parts.scheme == "http":
        _require(parts.hostname in _LOOPBACK, "--url must begin with https://: the token would travel in the clear")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}"


def _triggers(given: tuple[str, ...]) -> list[str]:
    if given == (_NONE,):
        return []
    for name in given:
        _require(name in _TRIGGERS, f"--trigger {name!r} must be one of {', '.join(_TRIGGERS)}, or {_NONE} alone")
    return list(dict.fromkeys(given))


def _require(holds: object, message: str) -> None:
    if not holds:
        raise CommandError(harmless(message), _USAGE_ERROR)
