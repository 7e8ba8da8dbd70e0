"""The plan of the demo: jobs, the locks they meet and the expected results, generated from a seed.

Expected results are fixed here, before anything is sent; the checks compare with them, not with the guard's
reports.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from crm_guard.remediation import ApprovalCase
from crm_guard.simulator import State

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping

    from crm_guard.simulator import Simulator

FEWEST_RECORDS: Final = 12
_SHORTEST_LOCK: Final = 0.6
_LONGEST_LOCK: Final = 5.0
_IMAGE_BYTES: Final = 4096
_PNG: Final = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call.

    Attributes:
        method: HTTP method.
        path: Path after the API version.
        arguments: Arguments of `requests`: `json`, `files`, `params`.
        writes: Whether it writes to each of its records.
    """

    method: str
    path: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    writes: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """A block that waiting will not resolve.

    Attributes:
        work: The job that meets it.
        state: The record's state.
        case: The case that the guard must report; None for a permanent lock.
        approval_state: The `$approval_state` that it must report.
        after_lock: Whether the record is locked first and reaches `state` while the guard waits.
    """

    work: str
    state: State
    case: ApprovalCase | None
    approval_state: str | None
    after_lock: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Calls that one thread makes, in order.

    Attributes:
        number: Index in the plan.
        name: What it does.
        module: API name of the records' module.
        ids: Its records.
        steps: Its calls, in order; a refused one ends the job.
        locks: Seconds for which Zia checks a record from the start of the job, by id.
        endings: The permanent blocks, by id; all other records must be written.
        image: The image to upload, or expected from a download; None for other jobs.
    """

    number: int
    name: str
    module: str
    ids: tuple[str, ...]
    steps: tuple[Step, ...]
    locks: Mapping[str, float] = field(default_factory=dict)
    endings: Mapping[str, Ending] = field(default_factory=dict)
    image: bytes | None = None

    @property
    def single(self) -> bool:
        """Whether the job has exactly one record."""
        return len(self.ids) == 1

    @property
    def writes(self) -> dict[str, int]:
        """How often each record must be written."""
        times = sum(step.writes for step in self.steps)
        return {record_id: 0 if record_id in self.endings else times for record_id in self.ids}


_FREE: Final = Ending(work="", state=State.APPROVED, case=None, approval_state=None)


def _ending(work: str, state: State, case: ApprovalCase | None, *, after_lock: bool = False) -> Ending:
    shown = None if state is State.RECORD_LOCKING else state.approval_state
    return Ending(work=work, state=state, case=case, approval_state=shown, after_lock=after_lock)


_REJECTED: Final = _ending("update", State.ZIA_VISION_REJECTED, ApprovalCase.ZIA_REJECTED)
_PENDING: Final = _ending("add tag", State.ZIA_VISION_PENDING, ApprovalCase.RECORD_APPROVAL)
_PROCESS: Final = _ending("convert", State.APPROVAL_PROCESS_PENDING, ApprovalCase.APPROVAL_PROCESS)
_REVIEW: Final = _ending("share", State.REVIEW_PROCESS_PENDING, ApprovalCase.REVIEW_PROCESS)
_ENDINGS: Final = (
    _REJECTED,
    _PENDING,
    _ending("download image", State.ZIA_IMAGE_PENDING, ApprovalCase.IMAGE_APPROVAL),
    _PROCESS,
    _REVIEW,
    _ending("update", State.RECORD_LOCKING, None),
    _ending("delete", State.ZIA_VISION_REJECTED, ApprovalCase.ZIA_REJECTED, after_lock=True),
)
_WORKS: Final = ("update", "add tag", "convert", "download image", "upload image", "share")
_THEN: Final = "upload, update"


class Planner:
    """Generates a plan, and adds its records to a CRM.

    Args:
        crm: Receives the records.
        rng: Source of the locks, their durations and the order.
        speed: Divisor of the durations.
    """

    def __init__(self, crm: Simulator, rng: random.Random, speed: float) -> None:
        self._crm = crm
        self._rng = rng
        self._speed = speed

    def plan(self, records: int) -> tuple[Job, ...]:
        """Return three batches and `records` single-record jobs: every ending once, and locks for most others."""
        singles = [self._single(ending.work, ending) for ending in _ENDINGS]
        singles.append(self._single(_THEN, _FREE))
        singles += [
            self._single(_WORKS[index % len(_WORKS)], _FREE, locked=index % 3 < 2)
            for index in range(records - len(singles))
        ]
        self._rng.shuffle(singles)
        jobs = [*self._batches(), *singles]
        return tuple(Job(number=number, **job) for number, job in enumerate(jobs))

    def _single(self, name: str, ending: Ending, *, locked: bool = False) -> dict[str, Any]:
        image = _PNG + self._rng.randbytes(_IMAGE_BYTES) if "load" in name else None
        lead = self._add("Leads", ending, image=image)
        return {
            "name": name,
            "module": "Leads",
            "ids": (lead,),
            "steps": tuple(_STEPS[step](lead, image) for step in name.split(", ")),
            "locks": {lead: self._seconds()} if locked or ending.after_lock else {},
            "endings": {lead: ending} if ending is not _FREE else {},
            "image": image,
        }

    def _batches(self) -> Iterator[dict[str, Any]]:
        yield self._batch("update", "Contacts", 100, 12, (_REJECTED, _PROCESS), _update_many)
        yield self._batch("delete", "Accounts", 30, 5, (_PENDING,), _delete_many)
        yield self._batch("add tag", "Deals", 50, 6, (_REVIEW,), _tag_many)

    def _batch(
        self,
        name: str,
        module: str,
        size: int,
        locked: int,
        endings: tuple[Ending, ...],
        step: Callable[[str, tuple[str, ...]], Step],
    ) -> dict[str, Any]:
        drawn = self._rng.sample(range(size), locked + len(endings))
        ends = dict(zip(drawn[locked:], endings, strict=True))
        ids = tuple(self._add(module, ends.get(index, _FREE)) for index in range(size))
        return {
            "name": name,
            "module": module,
            "ids": ids,
            "steps": (step(module, ids),),
            "locks": {ids[index]: self._seconds() for index in drawn[:locked]},
            "endings": {ids[index]: ending for index, ending in ends.items()},
        }

    def _add(self, module: str, ending: Ending, *, image: bytes | None = None) -> str:
        stored = image if ending.work in ("", "download image") else None
        fields = {"Last_Name": "Rowland", "Company": "Zylker"}
        if ending.state is State.ZIA_IMAGE_PENDING:
            return self._crm.add_record(module, fields=fields, image=stored, image_state=ending.state)
        first = State.APPROVED if ending.after_lock else ending.state
        return self._crm.add_record(module, state=first, fields=fields, image=stored)

    def _seconds(self) -> float:
        return self._rng.uniform(_SHORTEST_LOCK, _LONGEST_LOCK) / self._speed


def _update(lead: str, _image: bytes | None) -> Step:
    return Step(method="PUT", path=f"Leads/{lead}", arguments={"json": {"data": [{"Company": "Zylker & Sons"}]}})


def _delete(lead: str, _image: bytes | None) -> Step:
    return Step(method="DELETE", path=f"Leads/{lead}")


def _tag(lead: str, _image: bytes | None) -> Step:
    return Step(
        method="POST", path=f"Leads/{lead}/actions/add_tags", arguments={"json": {"tags": [{"name": "Warm"}]}}
    )


def _convert(lead: str, _image: bytes | None) -> Step:
    return Step(
        method="POST", path=f"Leads/{lead}/actions/convert", arguments={"json": {"data": [{"overwrite": True}]}}
    )


def _share(lead: str, _image: bytes | None) -> Step:
    entry = {"shared_with": {"id": "5725767000000411099", "type": "users"}, "permission": "read_only"}
    return Step(method="POST", path=f"Leads/{lead}/actions/share", arguments={"json": {"share": [entry]}})


def _download(lead: str, _image: bytes | None) -> Step:
    return Step(method="GET", path=f"Leads/{lead}/photo", writes=False)


def _upload(lead: str, image: bytes | None) -> Step:
    return Step(
        method="POST", path=f"Leads/{lead}/photo", arguments={"files": {"file": ("face.png", image, "image/png")}}
    )


_STEPS: Final[Mapping[str, Callable[[str, bytes | None], Step]]] = {
    "update": _update,
    "delete": _delete,
    "add tag": _tag,
    "convert": _convert,
    "share": _share,
    "download image": _download,
    "upload image": _upload,
    "upload": _upload,
}


def _update_many(module: str, ids: tuple[str, ...]) -> Step:
    rows = [{"id": record_id, "Description": f"Call number {index}"} for index, record_id in enumerate(ids)]
    return Step(method="PUT", path=module, arguments={"json": {"data": rows}})


def _delete_many(module: str, ids: tuple[str, ...]) -> Step:
    return Step(method="DELETE", path=module, arguments={"params": {"ids": ",".join(ids)}})


def _tag_many(module: str, ids: tuple[str, ...]) -> Step:
    body = {"tags": [{"name": "Spring campaign"}], "ids": list(ids)}
    return Step(method="POST", path=f"{module}/actions/add_tags", arguments={"json": body})
