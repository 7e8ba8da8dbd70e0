"""The known CRM endpoints: one table from method and path to what a resend needs to know.

Sources: API v7 and v8 pages of each endpoint, and the OpenAPI files of zoho/crm-oas (v8.0). Endpoints that are not
in the table are handled by :data:`OTHER_WRITE` and :data:`OTHER_READ`, the most cautious rules.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from crm_guard._base.codes import ACCEPTED, MULTI_STATUS, OK
from crm_guard._protocol.inspection import READ_METHODS
from crm_guard.remediation import Family


class IdsIn(enum.Enum):
    """Where a request names its records: this defines what a request index refers to."""

    PATH = "path"
    """One record, in the path; none if there is no id."""
    BODY_DATA = "body.data"
    """One record per element of the body's `data`."""
    IDS = "ids"
    """One record per id in the body's `ids`, else in the query's `ids`."""
    COMPOSITE = "composite"
    """One call per element of the body's `__composite_requests`."""


class Resend(enum.Enum):
    """What may be resent after CRM refused something."""

    NARROWED = "narrowed"
    """Only the refused records."""
    WHOLE = "whole"
    """The same request, if CRM refused all of it."""
    NEVER = "never"
    """Nothing: parts may have been applied without the answer showing it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A row of the table."""

    name: str
    ids_in: IdsIn
    resend: Resend
    family: Family
    partial_status: int = MULTI_STATUS
    entries: bool = False
    """The answer's items are entries of one record (share), not records."""
    reads: bool = False
    """Nothing is written: a 2xx answer holds field values, and a resend is always safe."""
    ordered: bool = False
    """The answer's items are documented to be in the order of the request."""


@dataclass(frozen=True, slots=True)
class Route:
    """The endpoint of one request, and the parts of its path."""

    endpoint: Endpoint
    segments: tuple[str, ...]
    """The path after the API version, unquoted, split at `/`: module first."""
    names_record: bool
    """Whether the second segment names a record."""
    external: bool = False
    """Whether it does so by the value of an external field, which is not an id and may be personal data."""

    @property
    def module(self) -> str | None:
        """The module's API name, None for calls without a module."""
        return self.segments[0] if self.segments and not self.segments[0].startswith("_") else None

    @property
    def names_module(self) -> bool:
        """Whether the first segment is a module: module names start with a capital, unlike `settings`."""
        return bool(self.segments) and self.segments[0][:1].isupper()

    @property
    def record_id(self) -> str | None:
        """The id of the record in the path, if any."""
        return self.segments[1] if self.names_record and not self.external else None

    def record_at(self, index: object) -> str | None:
        """Return the record that `resource_path_index` points to; None for 0, the module."""
        return self.record_id if index == 1 and index is not True else None


def _by_data(name: str, partial_status: int = MULTI_STATUS, *, ordered: bool = True) -> Endpoint:
    return Endpoint(
        name, IdsIn.BODY_DATA, Resend.NARROWED, Family.UPDATE, partial_status=partial_status, ordered=ordered
    )


def _by_ids(name: str, family: Family = Family.UPDATE, *, partial_status: int = MULTI_STATUS) -> Endpoint:
    return Endpoint(name, IdsIn.IDS, Resend.NARROWED, family, partial_status)


def _by_path(name: str, family: Family = Family.UPDATE, *, entries: bool = False) -> Endpoint:
    return Endpoint(name, IdsIn.PATH, Resend.WHOLE, family, entries=entries)


def _read(name: str, family: Family = Family.OTHER) -> Endpoint:
    return Endpoint(name, IdsIn.PATH, Resend.WHOLE, family, reads=True)


OTHER_WRITE: Final = _by_path("other", Family.OTHER)
OTHER_READ: Final = _read("read")

# M stands for a module, I for a record in it.
_TABLE: Final[dict[tuple[str, str], Endpoint]] = {
    ("PUT", "M"): _by_data("update"),
    ("PUT", "M/I"): _by_path("update one"),
    # In input order, 207 when partial (zoho/crm-oas v8.0, operation createRecords, 2026).
    ("POST", "M"): _by_data("create"),
    ("POST", "M/upsert"): _by_data("upsert"),  # the order is inferred from that of update
    ("DELETE", "M"): _by_ids("delete", Family.DELETE),
    ("DELETE", "M/I"): _by_path("delete one", Family.DELETE),
    # 200 and 400 alone are listed, and the 200 counts the locks (zoho/crm-oas v8.0, tags_actions, 2026).
    ("POST", "M/actions/add_tags"): _by_ids("add tags", partial_status=OK),
    ("POST", "M/actions/remove_tags"): _by_ids("remove tags", partial_status=OK),
    ("POST", "M/I/actions/add_tags"): _by_path("add tags to one"),
    ("POST", "M/I/actions/remove_tags"): _by_path("remove tags from one"),
    ("POST", "M/I/actions/share"): _by_path("share", entries=True),
    ("PUT", "M/I/actions/share"): _by_path("share", entries=True),
    ("DELETE", "M/I/actions/share"): _by_path("revoke share", entries=True),
    ("POST", "M/actions/mass_update"): _by_ids("mass update"),
    ("POST", "M/actions/mass_delete"): _by_ids("mass delete", Family.DELETE),
    # Direct callers get 202 for a partial success, unlike everywhere else (zoho/crm-oas v8.0 change_owner).
    ("POST", "M/actions/change_owner"): _by_ids("change owner", partial_status=ACCEPTED),
    ("POST", "M/I/actions/change_owner"): _by_path("change owner of one"),
    # 202 also if all of it was scheduled (zoho/crm-oas v8.0, operation assignTerritoriesToRecords).
    ("POST", "M/actions/assign_territories"): _by_data(
        "assign territories", partial_status=ACCEPTED, ordered=False
    ),
    ("POST", "M/actions/remove_territories"): _by_data(
        "remove territories", partial_status=ACCEPTED, ordered=False
    ),
    ("POST", "M/I/actions/assign_territories"): _by_path("assign territories to one"),
    ("POST", "M/I/actions/remove_territories"): _by_path("remove territories from one"),
    ("PUT", "M/I/actions/blueprint"): _by_path("update blueprint"),
    ("POST", "M/I/actions/clone"): _by_path("clone"),
    ("POST", "M/I/actions/send_mail"): _by_path("send mail"),
    ("POST", "M/I/actions/convert"): _by_path("convert", Family.CONVERT),
    ("POST", "M/actions/mass_convert"): Endpoint("mass convert", IdsIn.IDS, Resend.NEVER, Family.CONVERT),
    ("GET", "M/I/photo"): _read("download image", Family.PHOTO_READ),
    ("POST", "M/I/photo"): _by_path("upload image", Family.PHOTO_WRITE),
    ("DELETE", "M/I/photo"): _by_path("delete image", Family.PHOTO_WRITE),
    ("GET", "M/I/__conversion_options"): _read("conversion options", Family.APPROVAL_ONLY),
    ("POST", "M/I/actions/portal_invite"): _by_path("portal invite", Family.APPROVAL_ONLY),
    ("POST", "__composite_requests"): Endpoint("composite", IdsIn.COMPOSITE, Resend.NEVER, Family.OTHER),
    # A query by POST: its rows hold field values, and fields may be called `code` and `status`.
    ("POST", "coql"): _read("query"),
}

# Second segments that are not record ids.
_VERBS: Final = frozenset({"actions", "upsert", "deleted", "search", "bulk"})
_INVENTORY_CONVERT: Final = _by_path("convert inventory", Family.APPROVAL_ONLY)


def locate(method: str, path: str) -> Route:
    """Find the endpoint of a request.

    Args:
        method: HTTP method, upper case.
        path: The path after `/crm/v8/`, without query and fragment, as sent (percent-encoded).
    """
    segments = tuple(unquote(segment) for segment in path.split("/") if segment)
    names_record = len(segments) > 1 and segments[1] not in _VERBS and not segments[0].startswith("__")
    shape = "/".join(_shape(segments, names_record=names_record))
    endpoint = _TABLE.get((method, shape)) or (OTHER_READ if method in READ_METHODS else OTHER_WRITE)
    if endpoint.family is Family.CONVERT and names_record and segments[0] != "Leads":
        endpoint = _INVENTORY_CONVERT
    return Route(endpoint, segments, names_record)


def _shape(segments: tuple[str, ...], *, names_record: bool) -> tuple[str, ...]:
    if not segments or segments[0] in {"__composite_requests", "coql"}:
        return segments
    return ("M", "I", *segments[2:]) if names_record else ("M", *segments[1:])
