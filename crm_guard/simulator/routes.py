"""From method and path to the call that is meant: one table.

What the table does not hold is not served, and says so: no path is taken for a record or a module that CRM means
otherwise. OAS: the paths of all groups of version 8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import unquote

from .messages import RequestError, invalid_url, wrong_method

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Kind(StrEnum):
    """The calls that the simulator knows; the value names the documentation page or its nearest."""

    LIST = "get-records"
    READ = "get-record"
    CREATE = "insert-records"
    UPDATE = "update-records"
    UPDATE_ONE = "update-record"
    UPSERT = "upsert-records"
    DELETE = "delete-records"
    DELETE_ONE = "delete-record"
    ADD_TAGS = "add-tags"
    REMOVE_TAGS = "remove-tags"
    ADD_TAGS_ONE = "add-tags-to-record"
    REMOVE_TAGS_ONE = "remove-tags-from-record"
    SHARE = "share-record"
    SHARE_CHANGE = "update-share"
    SHARE_LIST = "get-shared-record"
    SHARE_REVOKE = "revoke-shared-record"
    MASS_UPDATE = "mass-update-records"
    MASS_DELETE = "mass-delete-records"
    CHANGE_OWNER = "change-owner-of-records"
    CHANGE_OWNER_ONE = "change-owner-of-record"
    CONVERT = "convert-lead"
    INVENTORY_CONVERT = "convert-inventory"
    MASS_CONVERT = "mass-convert-lead"
    CONVERSION_OPTIONS = "lead-conversion-options"
    PHOTO_GET = "download-image"
    PHOTO_POST = "upload-image"
    PHOTO_DELETE = "delete-image"
    PORTAL_INVITE = "portal-invite"
    ASSIGN_TERRITORIES = "assign-territories-to-records"
    REMOVE_TERRITORIES = "remove-territories-of-records"
    ASSIGN_TERRITORIES_ONE = "assign-territories-to-record"
    REMOVE_TERRITORIES_ONE = "remove-territories-of-record"
    BLUEPRINT = "update-blueprint"
    SEND_MAIL = "send-mail"
    CLONE = "clone-record"
    LOCKS = "get-locking-information"
    LOCK_READ = "get-locking-information-by-id"
    LOCK = "lock-record"
    LOCK_CHANGE = "update-lock-reason"
    UNLOCK = "unlock-record"
    COMPOSITE = "composite-api"
    TOKEN = "refresh-token"  # noqa: S105
    MODULES = "get-modules"
    FIELDS = "get-fields"
    USERS = "get-users"
    ORG = "get-org"
    SEARCH = "search-records"
    COUNT = "get-record-count"
    COQL = "get-records-through-coql-query"
    RELATED = "get-related-records"
    RELATED_ONE = "get-related-record"
    MODULE = "get-module"
    FIELD = "get-field"
    RELATED_LISTS = "get-related-lists"
    USER = "get-user"


@dataclass(frozen=True, slots=True)
class Route:
    """What a request addresses.

    Attributes:
        kind: The call.
        version: API version, for instance `8.0` or `2.1`.
        module: API name of the module; empty where a call is about none.
        reference: Record id, or external value, of the path; empty where the path has none.
        lock_id: Id of the lock in the path of an unlock call, else empty.
        related: API name of the related list; empty where a call is about none.
        entry: The module, field or user of a settings call, or the record of a related list; else empty.
    """

    kind: Kind
    version: float
    module: str = ""
    reference: str = ""
    lock_id: str = ""
    related: str = ""
    entry: str = ""


@dataclass(frozen=True, slots=True)
class ServedCall:
    """One call that the simulator serves.

    Attributes:
        method: HTTP method.
        path: Path with its variable parts in braces. `{version}` is v2 to v9, decimals included; `{module}` is any
            API name of a module, `{record}` an id or, with the header `X-EXTERNAL`, a value.
    """

    method: str
    path: str

    def __str__(self) -> str:
        """Return both, the paths of several calls in one column."""
        return f"{self.method:<6} {self.path}"


# Anything may stand before the version (ZOHO docs: composite-api), but for what makes it another service.
_ADDRESS = re.compile(r"/crm((?:/[^/]+)*?)/v(\d+(?:\.\d+)?)(/.+)")
_OTHER_SERVICES = frozenset({"bulk", "email"})
# From the first up to but not including the second. Version 9 is in use but undocumented: served like version 8.
_VERSIONS = (2.0, 10.0)
TOKEN_PATH = "/oauth/v2/token"  # noqa: S105

# First segments that are no modules.
_RESERVED = (
    *("actions", "bulk", "coql", "files", "functions", "org", "read", "settings", "signals", "upload", "users"),
    *("workflow_configurations", "write", "Entity_Scores__s"),
)
# What follows a module and is no record, and what follows a record and is no related list.
_NO_RECORDS = ("actions", "bulk", "deleted", "search", "upsert")
_NO_LISTS = ("actions", "photo", "Attachments", "Contact_Roles", "Emails", "Locking_Information__s")
# What the general paths of the table would take for a record or a related list of a contact.
_UNSERVED = re.compile("/Contacts/roles(/.*)?")


def _none_of(names: Iterable[str]) -> str:
    return f"(?!(?:{'|'.join(names)})(?:/|$))"


_NAME = "[A-Za-z][A-Za-z0-9_]{0,99}"
# API names of modules begin with a capital; what does not is a path of CRM itself, known or not.
_MODULE = "[A-Z][A-Za-z0-9_]{0,99}"
_PARTS: Mapping[str, str] = {
    "module": f"(?P<module>{_none_of(_RESERVED)}{_MODULE})",
    "record": f"(?P<reference>{_none_of(_NO_RECORDS)}[^/]+)",
    "related_list": f"(?P<related>{_none_of(_NO_LISTS)}{_NAME})",
    "lock": "(?P<lock_id>[^/]+)",
    **dict.fromkeys(("name", "field", "user", "related_record"), "(?P<entry>[^/]+)"),
}
# Each path with the calls that are served there, and with the methods that Zoho documents beside them.
_TABLE: tuple[tuple[str, Mapping[str, Kind], str], ...] = (
    ("/__composite_requests", {"POST": Kind.COMPOSITE}, ""),
    ("/coql", {"POST": Kind.COQL}, ""),
    ("/settings/modules", {"GET": Kind.MODULES}, "POST PUT"),
    ("/settings/modules/{name}", {"GET": Kind.MODULE}, "PUT"),
    ("/settings/fields", {"GET": Kind.FIELDS}, "POST PATCH"),
    ("/settings/fields/{field}", {"GET": Kind.FIELD}, "PUT PATCH DELETE"),
    ("/settings/related_lists", {"GET": Kind.RELATED_LISTS}, ""),
    ("/users", {"GET": Kind.USERS}, "POST PUT"),
    ("/users/{user}", {"GET": Kind.USER}, "PUT DELETE"),
    ("/org", {"GET": Kind.ORG}, ""),
    ("/{module}", {"GET": Kind.LIST, "POST": Kind.CREATE, "PUT": Kind.UPDATE, "DELETE": Kind.DELETE}, ""),
    ("/{module}/upsert", {"POST": Kind.UPSERT}, ""),
    ("/{module}/search", {"GET": Kind.SEARCH}, ""),
    ("/{module}/actions/count", {"GET": Kind.COUNT}, ""),
    ("/{module}/actions/add_tags", {"POST": Kind.ADD_TAGS}, ""),
    ("/{module}/actions/remove_tags", {"POST": Kind.REMOVE_TAGS}, ""),
    ("/{module}/actions/mass_update", {"POST": Kind.MASS_UPDATE}, "GET"),
    ("/{module}/actions/mass_delete", {"POST": Kind.MASS_DELETE}, "GET"),
    ("/{module}/actions/change_owner", {"POST": Kind.CHANGE_OWNER}, ""),
    ("/{module}/actions/assign_territories", {"POST": Kind.ASSIGN_TERRITORIES}, ""),
    ("/{module}/actions/remove_territories", {"POST": Kind.REMOVE_TERRITORIES}, ""),
    ("/Leads/actions/mass_convert", {"POST": Kind.MASS_CONVERT}, "GET"),
    ("/{module}/{record}", {"GET": Kind.READ, "PUT": Kind.UPDATE_ONE, "DELETE": Kind.DELETE_ONE}, ""),
    ("/{module}/{record}/actions/add_tags", {"POST": Kind.ADD_TAGS_ONE}, ""),
    ("/{module}/{record}/actions/remove_tags", {"POST": Kind.REMOVE_TAGS_ONE}, ""),
    (
        "/{module}/{record}/actions/share",
        {
            "GET": Kind.SHARE_LIST,
            "POST": Kind.SHARE,
            "PUT": Kind.SHARE_CHANGE,
            "DELETE": Kind.SHARE_REVOKE,
        },
        "",
    ),
    ("/{module}/{record}/actions/change_owner", {"POST": Kind.CHANGE_OWNER_ONE}, ""),
    ("/Leads/{record}/actions/convert", {"POST": Kind.CONVERT}, ""),
    ("/Quotes/{record}/actions/convert", {"POST": Kind.INVENTORY_CONVERT}, ""),
    ("/Sales_Orders/{record}/actions/convert", {"POST": Kind.INVENTORY_CONVERT}, ""),
    ("/Leads/{record}/__conversion_options", {"GET": Kind.CONVERSION_OPTIONS}, ""),
    (
        "/{module}/{record}/photo",
        {"GET": Kind.PHOTO_GET, "POST": Kind.PHOTO_POST, "DELETE": Kind.PHOTO_DELETE},
        "",
    ),
    ("/{module}/{record}/actions/portal_invite", {"POST": Kind.PORTAL_INVITE}, ""),
    ("/{module}/{record}/actions/assign_territories", {"POST": Kind.ASSIGN_TERRITORIES_ONE}, ""),
    ("/{module}/{record}/actions/remove_territories", {"POST": Kind.REMOVE_TERRITORIES_ONE}, ""),
    ("/{module}/{record}/actions/blueprint", {"PUT": Kind.BLUEPRINT}, "GET"),
    ("/{module}/{record}/actions/send_mail", {"POST": Kind.SEND_MAIL}, "PUT"),
    ("/{module}/{record}/actions/clone", {"POST": Kind.CLONE}, ""),
    ("/{module}/{record}/Locking_Information__s", {"GET": Kind.LOCKS, "POST": Kind.LOCK}, ""),
    (
        "/{module}/{record}/Locking_Information__s/{lock}",
        {"GET": Kind.LOCK_READ, "PUT": Kind.LOCK_CHANGE, "DELETE": Kind.UNLOCK},
        "",
    ),
    ("/{module}/{record}/{related_list}", {"GET": Kind.RELATED}, "POST PUT DELETE"),
    ("/{module}/{record}/{related_list}/{related_record}", {"GET": Kind.RELATED_ONE}, "PUT DELETE"),
)


def _compiled(path: str) -> re.Pattern[str]:
    """Return a path of the table as a pattern; one that begins with the name of a module is about that."""
    text = re.sub(r"^/([A-Z]\w*)", r"/(?P<module>\1)", path)
    return re.compile(re.sub(r"\{(\w+)\}", lambda part: _PARTS[part[1]], text))


_ROUTES = tuple((_compiled(path), kinds, unserved.split()) for path, kinds, unserved in _TABLE)
# CRM knows no others; what it does with HEAD, OPTIONS and the like is undocumented.
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def served_calls() -> tuple[ServedCall, ...]:
    """Return every call that the simulator serves. All others are answered as "not simulated"."""
    calls = (ServedCall(method, f"/crm/{{version}}{path}") for path, kinds, _ in _TABLE for method in kinds)
    return (ServedCall("POST", TOKEN_PATH), *calls)


def resolve(method: str, path: str) -> Route:
    """Return the route of a request.

    Args:
        method: HTTP method.
        path: Percent-encoded path. Anything may stand between `/crm` and `/vN` (ZOHO docs: composite-api).

    Raises:
        RequestError: No such address (404), or it does not take this method (400). The answer says "not
            simulated" but where Zoho documents the address without the method.
    """
    if path == TOKEN_PATH and method == "POST":
        return Route(Kind.TOKEN, _VERSIONS[0])
    address = _ADDRESS.fullmatch(path)
    if address is None or not _served(address):
        raise RequestError(invalid_url(method, path))
    for pattern, kinds, unserved in _ROUTES:
        if found := pattern.fullmatch(address[3]):
            if method not in kinds:
                documented = method in unserved or method not in _METHODS
                raise RequestError(wrong_method(method, path) if documented else wrong_method())
            parts = {name: unquote(value) for name, value in found.groupdict().items()}
            return Route(kinds[method], float(address[2]), **parts)
    raise RequestError(invalid_url(method, path))


def _served(address: re.Match[str]) -> bool:
    between, version, rest = address.groups()
    if not _OTHER_SERVICES.isdisjoint(between.split("/")) or _UNSERVED.fullmatch(rest):
        return False
    return _VERSIONS[0] <= float(version) < _VERSIONS[1]
