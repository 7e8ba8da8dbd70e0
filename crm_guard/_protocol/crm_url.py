"""CRM URLs taken apart, here alone: whether one is a CRM call, its origin, API version and path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from crm_guard.settings import DEFAULT_PATH_PATTERN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# One segment may stand between `/crm` and the version, a gateway's path before them. No part reaches into a query
# (zoho/crm-oas v8.0, composite requests: `/crm(/.*)?/v[0-9]+([.][0-9]+)?/.*`).
_CRM: Final = r"/crm(?:/[^/?#]+)?/v\d+(?:\.\d+)?/"
_ANYWHERE: Final = re.compile(rf"(?:/[^/?#]+)*?{_CRM}")
_VERSION_ALONE: Final = re.compile(r"(?:/[^/?#]+)*?/v\d+(?:\.\d+)?/")
_ORIGIN: Final = r"[^:/?#]+://[^/?#]*"
_BEFORE_PATH: Final = re.compile(rf"(?:{_ORIGIN})?")
_USUAL: Final = re.compile(_ORIGIN + _CRM)  # what DEFAULT_PATH_PATTERN allows, in one step
_QUERY: Final = re.compile(r"[?#]")

# Where a request of the guard's own may go: what may stand between the scheme and the path is spelled out, so that
# no other parser could see another host in it, and user and password are left out.
_HARMLESS: Final = re.compile(
    r"(?P<scheme>(?i:https?)://)"
    r"(?:[A-Za-z0-9._~!$&'()*+,;=:%-]*@)?"
    r"(?P<authority>(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)"
    r"(?P<prefix>(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*?/crm(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)?"
    r"/v[0-9]+(?:\.[0-9]+)?)/",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class CrmUrl:
    """A URL, or a path, and where its API version ends.

    Attributes:
        url: The URL or path.
        tail: Offset just past the API version, or -1 if it has none.
    """

    url: str
    tail: int

    @classmethod
    def of(cls, url: str) -> CrmUrl:
        """Take a URL or a path apart, whatever settings say about its path."""
        found = _ANYWHERE.match(url, _path_start(url))
        return cls(url, found.end() if found else -1)

    @property
    def origin(self) -> str:
        """Scheme, host and port in lower case, without user and password: calls to one origin share locks."""
        scheme, _, rest = self.url[: _path_start(self.url)].partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}".lower()

    @property
    def version(self) -> str:
        """The API version, such as `v8`; empty if there is none."""
        return self.url[: max(self.tail - 1, 0)].rpartition("/")[2]

    @property
    def rest(self) -> str:
        """What follows the version, query included; without a version all that follows the origin."""
        return self.url[self.tail :] if self.tail >= 0 else self.url[_path_start(self.url) :].lstrip("/")

    @property
    def path(self) -> str:
        """The path after the version, percent-encoded, without query and fragment: module first."""
        return _QUERY.split(self.rest, maxsplit=1)[0]

    @property
    def harmless_base(self) -> str | None:
        """The URL up to its version, without user and password; None if any of it is not plainly harmless."""
        found = _HARMLESS.match(self.url)
        return f"{found['scheme']}{found['authority']}{found['prefix']}" if found else None

    def shown_path(self, segments: Sequence[str], *, external: bool) -> str:
        """Return the path for logs and events.

        Args:
            segments: The path after the version, unquoted.
            external: Whether a record is named by the value of an external field, which may be a person's: such
                values are replaced by `*`.
        """
        if not external:
            return urlsplit(self.url).path
        module, _, *rest = segments
        shown = rest if rest[:1] == ["actions"] else [*rest[:1], *("*" for _ in rest[1:])]
        return "/".join((urlsplit(self.url[: self.tail]).path.rstrip("/"), module, "*", *shown))


def tail_finder(path_pattern: str) -> Callable[[str], int]:
    """Return a function from a URL to the offset just past its API version, or -1 if it is not a CRM call.

    Args:
        path_pattern: A regular expression that the path must begin with. Decides only whether a URL is a CRM call.
    """
    if path_pattern == DEFAULT_PATH_PATTERN:
        return _usual_tail
    allowed = re.compile(path_pattern)

    def find(url: str) -> int:
        path = _path_start(url)
        if not allowed.match(url[path:]):  # cut, so that `^` means the beginning of the path
            return -1
        found = _ANYWHERE.match(url, path) or _VERSION_ALONE.match(url, path)  # a gateway may leave out `/crm`
        return found.end() if found else -1

    return find


def _path_start(url: str) -> int:
    before = _BEFORE_PATH.match(url)
    return before.end() if before else 0


def _usual_tail(url: str) -> int:
    found = _USUAL.match(url)
    return found.end() if found else -1
