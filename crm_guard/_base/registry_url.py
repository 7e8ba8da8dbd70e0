"""Validate and mask `lock_registry` URLs. Pure; redis-py is not needed.

A mistyped URL can hold the password in an unexpected place: as the host if the host is missing, as the port if the
`@` is missing, and so on. No rule distinguishes such a URL from a correct one, so only the scheme is ever shown.
URLs that redis-py would refuse later, with a message that quotes them, are refused here.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

MAY_BE_URL: Final = re.compile(r"(?i)://|@|\b(rediss?|unix):|password=")
"""Matches text that may hold a password, where no URL is expected."""

_SCHEMES: Final = ("redis", "rediss", "unix")
_HOST_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]+(%25?[\w.-]+)?\]|[\w.-]*)(:[0-9]*)?")
_DATABASE: Final = re.compile(r"(/([0-9]{1,9}/?)?)?")
_ENCODING: Final = "are special characters of the password percent-encoded?"


class _Kind(NamedTuple):
    """The values that an option allows."""

    allowed: str
    pattern: str


_TEXT: Final = _Kind("a text", r"(?s).*")
_INTEGER: Final = _Kind("a whole number", r"[0-9]{0,9}")
_SECONDS: Final = _Kind("a number of seconds", r"([0-9]{1,9}(\.[0-9]{1,9})?)?")
_BOOLEAN: Final = _Kind("true or false", r"(?i)([01tfyn]|true|false|yes|no)?")

# The options of redis-py that apply here.
_OPTIONS: Final = {
    "db": _INTEGER,
    "username": _TEXT,
    "password": _TEXT,
    "client_name": _TEXT,
    "protocol": _Kind("2 or 3", "[23]?"),
    "encoding": _Kind("utf-8", "(?i)(utf-?8)?"),  # redis-py looks it up at once, and its error quotes it
    "decode_responses": _BOOLEAN,
    "socket_timeout": _SECONDS,
    "socket_connect_timeout": _SECONDS,
    "socket_read_size": _INTEGER,
    "health_check_interval": _INTEGER,
    "max_connections": _INTEGER,
    "retry_on_timeout": _BOOLEAN,
}
_TCP: Final = _OPTIONS | {"socket_keepalive": _BOOLEAN}
_TLS: Final = _TCP | {
    "ssl_keyfile": _TEXT,
    "ssl_certfile": _TEXT,
    "ssl_ca_certs": _TEXT,
    "ssl_ca_path": _TEXT,
    "ssl_ca_data": _TEXT,
    "ssl_password": _TEXT,
    "ssl_ciphers": _TEXT,
    "ssl_cert_reqs": _Kind("none, optional or required", "(none|optional|required)?"),
    "ssl_check_hostname": _BOOLEAN,
    "ssl_validate_ocsp": _BOOLEAN,
    "ssl_validate_ocsp_stapled": _BOOLEAN,
    "ssl_min_version": _INTEGER,
}
OPTIONS: Final[Mapping[str, Mapping[str, _Kind]]] = MappingProxyType(
    {"redis": _TCP, "rediss": _TLS, "unix": _OPTIONS}
)
"""Scheme -> the options allowed in the query."""


def masked_url(url: str) -> str:
    """Return a `lock_registry` safe to show: `"memory"`, or the scheme alone; `"***"` for anything else."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme in _SCHEMES:
        return f"{scheme}://***"
    return url if url == "memory" else "***"


def check_url(url: str) -> None:
    """Check that redis-py can use the URL, and would silently ignore no part of it.

    Args:
        url: A URL without white space that begins with a scheme of `OPTIONS`.

    Raises:
        ValueError: It cannot be used. The message quotes nothing of it but known option names, and the error is
            not chained to another.
    """
    try:
        parts = urlsplit(url)
        readable = parts.port != 0
    except ValueError:  # not chained: its message may quote part of the password
        readable = False
    if not readable or not _HOST_PORT.fullmatch(parts.netloc.rpartition("@")[2]):
        error: str | None = f"host or port cannot be read: {_ENCODING}"
    else:
        error = _path_error(parts) or _options_error(parts)
    if error:
        raise ValueError(error)


def _path_error(parts: SplitResult) -> str | None:
    if parts.fragment:
        return f"nothing may follow a '#': {_ENCODING}"
    if parts.scheme == "unix":
        return None if parts.path else "the path of the socket is missing: unix:///path/to/redis.sock"
    # redis-py uses database 0 if it cannot parse the number.
    return None if _DATABASE.fullmatch(parts.path) else f"the path is not a database number, as in /0: {_ENCODING}"


def _options_error(parts: SplitResult) -> str | None:
    known = OPTIONS[parts.scheme]
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            return f"the query holds an option other than {', '.join(known)}"
        if not re.fullmatch(known[name].pattern, value):
            return f"the option {name} must be {known[name].allowed}"
    return None
