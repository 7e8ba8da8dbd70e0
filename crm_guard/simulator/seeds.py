"""Start states of a simulator, read from JSON or TOML files: options, records, faults and refusals of new rows."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .forms import OPTIONS, read_fault, read_record, read_refuse_new
from .inputs import InputError, Rule, decoded, read_list, read_object

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .engine import Engine
    from .visit import EngineOptions

_MOST_BYTES = 64 * 1024 * 1024
_ANY = Rule("", lambda value: value)
_PARTS: Mapping[str, Rule] = dict.fromkeys(("options", "records", "faults", "refuse_new"), _ANY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A start state that was checked.

    Attributes:
        options: Options of the engine.
        records: Arguments of :meth:`Engine.add_record`, for each record.
        faults: Arguments of :meth:`Engine.fault`.
        refusals: Arguments of :meth:`Engine.refuse_new`.
    """

    options: EngineOptions = field(default_factory=lambda: cast("EngineOptions", {}))
    records: Sequence[Mapping[str, Any]] = ()
    faults: Sequence[Mapping[str, Any]] = ()
    refusals: Sequence[Mapping[str, Any]] = ()

    def plant(self, engine: Engine) -> None:
        """Bring an engine that holds no record into this state; seconds count from now."""
        for record in self._with_ids_first():
            engine.add_record(**record)
        for fault in self.faults:
            engine.fault(**fault)
        for refusal in self.refusals:
            engine.refuse_new(**refusal)

    def _with_ids_first(self) -> Sequence[Mapping[str, Any]]:
        """Return the records in an order in which no id that is made up is one that a later record asks for."""
        return sorted(self.records, key=lambda record: record.get("id") is None)


def load_seed(path: str | Path) -> Seed:
    """Read a start state from a file: TOML if its name ends in `.toml`, else JSON.

    Raises:
        InputError: The file cannot be read, or something in it is not allowed; the text names file and place.
    """
    try:
        return read_seed(_document(Path(path)))
    except (InputError, OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        name = error.field if isinstance(error, InputError) else ""
        allowed = error.allowed if isinstance(error, InputError) else "a start state in JSON or TOML"
        msg = f"{path}: {reason}"
        raise InputError(msg, field=name, allowed=allowed) from None


def read_seed(document: object) -> Seed:
    """Return the start state that a document describes.

    Raises:
        InputError: Something in it is not allowed; the text names the place.
    """
    parts = read_object(document, _PARTS)
    records = read_list(parts.get("records", ()), "records", read_record)
    _refuse_twins(records)
    return Seed(
        options=cast("EngineOptions", read_object(parts.get("options", {}), OPTIONS, "options")),
        records=records,
        faults=read_list(parts.get("faults", ()), "faults", read_fault),
        refusals=read_list(parts.get("refuse_new", ()), "refuse_new", read_refuse_new),
    )


def _document(path: Path) -> object:
    with path.open("rb") as file:
        raw = file.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        msg = f"the file is larger than {_MOST_BYTES} bytes"
        raise ValueError(msg)
    if path.suffix.lower() == ".toml":
        return tomllib.loads(raw.decode())
    if not raw.strip():
        msg = "the file is empty"
        raise ValueError(msg)
    return decoded(raw)


def _refuse_twins(records: Sequence[Mapping[str, Any]]) -> None:
    places: dict[str, int] = {}
    for index, record in enumerate(records):
        record_id = record.get("id")
        if record_id is not None and (before := places.setdefault(record_id, index)) != index:
            field = f"records[{index}].id"
            msg = f"{field}={record_id} is the id of records[{before}] already"
            raise InputError(msg, field=field, value=record_id, allowed="an id that no other record has")
