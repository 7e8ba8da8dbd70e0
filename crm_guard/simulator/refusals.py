"""Which state refuses which call, and in which words: tables, and one function that reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .causes import Cause
from .messages import Json, item
from .records import Record, State
from .routes import Kind

_OTHER_CAUSES = {
    State.ZIA_VISION_VALIDATION: Cause.ZIA,
    State.RECORD_LOCKING: Cause.RECORD_LOCKING,
    State.MERGE_PENDING: Cause.MERGE,
    State.REVIEW_PROCESS_PENDING: Cause.NOT_REVIEWED,
    State.REVIEW_PROCESS_REJECTED: Cause.NOT_REVIEWED,
}
_HARMLESS = (State.APPROVED, State.ZIA_IMAGE_PENDING)
CAUSES: Mapping[State, Cause] = {
    state: _OTHER_CAUSES.get(state, Cause.NOT_APPROVED) for state in State if state not in _HARMLESS
}

PHOTO_KINDS = frozenset({Kind.PHOTO_GET, Kind.PHOTO_POST, Kind.PHOTO_DELETE})
TERRITORY_ONE_KINDS = frozenset({Kind.ASSIGN_TERRITORIES_ONE, Kind.REMOVE_TERRITORIES_ONE})

# Reads that a lock lets pass. For __conversion_options the documentation prints the merge lock and NOT_APPROVED
# only. Reading what someone locked by hand is the point of Record Locking (undocumented for photos).
_PASSES = frozenset(
    {
        (Kind.CONVERSION_OPTIONS, Cause.ZIA),
        (Kind.CONVERSION_OPTIONS, Cause.RECORD_LOCKING),
        (Kind.PHOTO_GET, Cause.RECORD_LOCKING),
    }
)

_UPDATE = "Cannot update record that is not approved yet"
_DELETE = "cannot delete record that is not approved yet"
_CONVERT = "cannot convert record that is not approved yet"
_IMAGE = "cannot {} the record image that is not {} yet"
_LOCKED = "You cannot perform this operation as the record is locked."

# OAS massDelete lists one code for a record that stays: what the announcement does not name hides behind it.
_HIDDEN = (Cause.RECORD_LOCKING, Cause.MERGE, Cause.NOT_REVIEWED)

_WORDS: Mapping[Cause, str] = {
    Cause.ZIA: _UPDATE,
    Cause.NOT_APPROVED: _UPDATE,
    Cause.NOT_REVIEWED: "record in review",
    Cause.RECORD_LOCKING: "Sorry, you cannot perform this operation as the record is locked.",
    Cause.MERGE: "record under merge is locked",
}
_WORDS_OF: Mapping[Kind, Mapping[Cause, str]] = {
    **{
        kind: {
            Cause.ZIA: _DELETE,
            Cause.NOT_APPROVED: _DELETE,
            Cause.RECORD_LOCKING: _LOCKED,
        }
        for kind in (Kind.DELETE, Kind.DELETE_ONE)
    },
    Kind.CONVERT: {Cause.ZIA: _CONVERT, Cause.NOT_APPROVED: _CONVERT},
    Kind.CONVERSION_OPTIONS: {Cause.NOT_APPROVED: "record not approved"},
    Kind.INVENTORY_CONVERT: {Cause.NOT_APPROVED: "record not approved", Cause.ZIA: _CONVERT},
    Kind.MASS_UPDATE: {Cause.NOT_APPROVED: "record not approved"},
    Kind.MASS_DELETE: {
        Cause.NOT_APPROVED: "The record is unapproved.",
        Cause.ZIA: _DELETE,
        **dict.fromkeys(_HIDDEN, "Record locked or invalid permissions"),
    },
    Kind.CHANGE_OWNER: {Cause.NOT_APPROVED: "The record is not approved"},
    Kind.CHANGE_OWNER_ONE: {Cause.NOT_APPROVED: "The record is not approved"},
    Kind.BLUEPRINT: {Cause.RECORD_LOCKING: _LOCKED},
    Kind.PORTAL_INVITE: {
        Cause.NOT_APPROVED: "Entity has not approved to invite yet.",
        Cause.NOT_REVIEWED: "You cannot sent portal invitation since the record is waiting for approval "
        "under review process.",
    },
    # "get" and "upload" are documented, "delete" is built like them.
    **{
        kind: {
            Cause.ZIA: _IMAGE.format(verb, "approved"),
            Cause.NOT_APPROVED: _IMAGE.format(verb, "approved"),
            Cause.NOT_REVIEWED: _IMAGE.format(verb, "reviewed"),
        }
        for kind, verb in (
            (Kind.PHOTO_GET, "get"),
            (Kind.PHOTO_POST, "upload"),
            (Kind.PHOTO_DELETE, "delete"),
        )
    },
}

Shape = Callable[[Record, int], Json]


def _by_id(record: Record, _position: int) -> Json:
    return {"id": record.id}


def _by_json_path(_record: Record, position: int) -> Json:
    return _row_id(position)


def _row_id(position: int) -> Json:
    return {"api_name": "id", "json_path": f"$.data[{position}].id"}


def _by_segment(_record: Record, _position: int) -> Json:
    return {"resource_path_index": 1}


def _nothing(_record: Record, _position: int) -> Json:
    return {}


def _by_record_id(record: Record, _position: int) -> Json:
    return {"record_id": record.id}


_SHAPES: Mapping[tuple[Kind, Cause], Shape] = {
    # OAS prints a lock of updates in this form only; SEED's form is for Zia's lock.
    **{
        (kind, cause): _by_json_path
        for kind in (Kind.UPDATE, Kind.UPDATE_ONE)
        for cause in (Cause.RECORD_LOCKING, Cause.MERGE)
    },
    (Kind.UPDATE, Cause.NOT_REVIEWED): _nothing,
    (Kind.UPDATE_ONE, Cause.NOT_REVIEWED): _nothing,
    (Kind.DELETE, Cause.NOT_APPROVED): _nothing,
    (Kind.CONVERSION_OPTIONS, Cause.NOT_APPROVED): _by_segment,
    (Kind.CONVERSION_OPTIONS, Cause.NOT_REVIEWED): _by_segment,
    (Kind.CONVERSION_OPTIONS, Cause.MERGE): _by_segment,
    (Kind.INVENTORY_CONVERT, Cause.NOT_APPROVED): _by_segment,
    (Kind.INVENTORY_CONVERT, Cause.NOT_REVIEWED): _by_segment,
    # OAS prints one lock for territories of one record. The guess: it is that of every lock but Zia's.
    **{(kind, cause): _by_segment for kind in TERRITORY_ONE_KINDS for cause in (Cause.RECORD_LOCKING, Cause.MERGE)},
    (Kind.PORTAL_INVITE, Cause.NOT_APPROVED): _by_record_id,
    (Kind.PORTAL_INVITE, Cause.NOT_REVIEWED): _by_record_id,
}
_OAS_SHAPES: Mapping[tuple[Kind, Cause], Shape] = {
    (Kind.UPDATE, Cause.ZIA): _by_json_path,
    (Kind.UPDATE_ONE, Cause.ZIA): _by_json_path,
    # One segment in the path of a batch, and still index 1: that is what OAS prints. Of an upsert it lists the key.
    (Kind.UPDATE, Cause.NOT_APPROVED): _by_segment,
    (Kind.UPDATE_ONE, Cause.NOT_APPROVED): _by_segment,
    (Kind.UPSERT, Cause.NOT_APPROVED): _by_segment,
}

_IN_DATA = frozenset(
    {
        Kind.UPDATE,
        Kind.UPDATE_ONE,
        Kind.CREATE,
        Kind.UPSERT,
        Kind.DELETE,
        Kind.DELETE_ONE,
        Kind.MASS_UPDATE,
        Kind.MASS_DELETE,
        Kind.CHANGE_OWNER,
        Kind.CONVERT,
        Kind.REMOVE_TAGS,
        Kind.ASSIGN_TERRITORIES,
        Kind.REMOVE_TERRITORIES,
        Kind.CLONE,
    }
)
# What these kinds send bare all the same. Clone: its errors are those of create (OAS), without NOT_REVIEWED.
_BARE: Mapping[Kind, frozenset[str]] = {
    **dict.fromkeys((Kind.UPDATE_ONE, Kind.CREATE, Kind.UPSERT), frozenset({"NOT_APPROVED"})),
    Kind.CLONE: frozenset({"NOT_APPROVED", "NOT_REVIEWED"}),
}
# OAS requires the action of a lock here. Elsewhere no text prints one for merges.
_TELLS_MERGE = frozenset(
    {
        Kind.UPDATE,
        Kind.UPDATE_ONE,
        Kind.DELETE,
        Kind.DELETE_ONE,
        Kind.ADD_TAGS,
        Kind.REMOVE_TAGS,
        Kind.ADD_TAGS_ONE,
        Kind.REMOVE_TAGS_ONE,
        Kind.MASS_UPDATE,
        Kind.CHANGE_OWNER,
        Kind.CHANGE_OWNER_ONE,
        Kind.ASSIGN_TERRITORIES,
        Kind.REMOVE_TERRITORIES,
    }
)
# OAS prints the lock of the Record Locking feature without an action here.
_SILENT = PHOTO_KINDS | TERRITORY_ONE_KINDS | {Kind.MASS_DELETE}
# What else than a refusal the answer to these calls has in the envelope (OAS).
_ROWS_OF_ONE = frozenset(
    {"MANDATORY_NOT_FOUND", "INVALID_DATA", "DUPLICATE_DATA", "ALREADY_USED", "LIMIT_EXCEEDED"}
)


def cause_of(record: Record, kind: Kind) -> Cause | None:
    """Return why `record` refuses a call now, or `None` when it does not."""
    cause = CAUSES.get(record.state)
    image_waits = record.image_pending or record.state is State.ZIA_IMAGE_PENDING
    if cause is None and image_waits and kind in PHOTO_KINDS:
        return Cause.NOT_APPROVED
    return None if cause is None or (kind, cause) in _PASSES else cause


def refusal(record: Record, kind: Kind, cause: Cause, position: int, *, style: str) -> Json:
    """Return the item that tells of a refusal.

    Args:
        record: The refusing record.
        kind: The refused call.
        cause: Why.
        position: Place of the record in the request, from 0.
        style: `"seed"` or `"oas"`: which of the two documented forms of `details` updates use.
    """
    oas = _OAS_SHAPES.get((kind, cause)) if style == "oas" else None
    shape = oas or _SHAPES.get((kind, cause), _by_id)
    return _refused(kind, cause, shape(record, position))


def new_row_refusal(kind: Kind, cause: Cause, position: int) -> Json:
    """Return the item about a refused row of create or upsert, which has no id yet: its index names it.

    Undocumented but for NOT_APPROVED of a whole request; the form is that of a refused update.
    """
    return _refused(kind, cause, _row_id(position))


def _refused(kind: Kind, cause: Cause, details: Json) -> Json:
    if _has_action(kind, cause):
        details["action"] = cause.value
    message = _WORDS_OF.get(kind, {}).get(cause, _WORDS[cause])
    hidden = kind is Kind.MASS_DELETE and cause in _HIDDEN
    return item("INVALID_DATA" if hidden else cause.code, message, details)


def _has_action(kind: Kind, cause: Cause) -> bool:
    """Return whether `details` tell what locks the record; Zia's lock always does."""
    if cause is Cause.MERGE:
        return kind in _TELLS_MERGE
    return cause is Cause.ZIA or (cause is Cause.RECORD_LOCKING and kind not in _SILENT)


def in_envelope(kind: Kind, code: str) -> bool:
    """Return whether an endpoint puts an error item with this code into `{"data": [..]}`, or sends it bare."""
    if kind in TERRITORY_ONE_KINDS:
        return code in _ROWS_OF_ONE
    return kind in _IN_DATA and code not in _BARE.get(kind, ())
