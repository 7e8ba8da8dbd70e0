"""`crm-guard sync`: writes the rows of a CSV or JSON lines file to CRM, and keeps those that were not written.

The header of a CSV file has the API names of the fields; the environment variable `CRM_TOKEN` has
the access token:

    crm-guard sync leads.csv --url https://www.zohoapis.com --module Leads --method update --failed failed.csv
    crm-guard sync failed.csv --url https://www.zohoapis.com --module Leads --method update --failed again.csv

A file is checked to its end before anything is sent. CSV values go as text; empty cells are left
out, or sent as null with `--empty null`. Each row that was not written is in `failed.csv` as it
was, with `_code`, `_case`, `_hint`, `_line`, `_state`, `_message` and `_uncertain`; columns that
begin with `_` are never sent, so that file can be synced as it is. Rows that may have been written
are left out then, unless `--include-uncertain` is given. Ctrl-C and SIGTERM await what is under
way, and keep the rest in the file; a run that is killed leaves `failed.csv.part`, which tells only
some of the rows. Locked rows wait, and hold back no others: see `crm-guard help bulk`.

Exit status: 0 all written, 1 some not, 2 bad usage or file, 130 Ctrl-C. All options: `crm-guard
sync --help`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import requests

from crm_guard._base.codes import UNAUTHORIZED
from crm_guard.cli.plain import CommandError, harmless
from crm_guard.cli.sync.call import Method, Token, call_of
from crm_guard.cli.sync.failures import failures_file
from crm_guard.cli.sync.lines import InputError
from crm_guard.cli.sync.run import Run
from crm_guard.cli.sync.signals import Stop, Stopped, handled
from crm_guard.cli.sync.source import Empty, bad, opened
from crm_guard.cli.sync.summary import show_summary, summary_document
from crm_guard.cli.terminal import make_console, write_json
from crm_guard.mounting import mount_guard
from crm_guard.outcomes import GiveUpReason
from crm_guard.report import GuardError
from crm_guard.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from crm_guard.cli.sync.call import Call, Target
    from crm_guard.cli.sync.run import Ended
    from crm_guard.cli.sync.source import Format, Source
    from crm_guard.settings import GuardSettings

_FAILED: Final = 1
_INTERRUPTED: Final = 130
_LONGEST_ERROR: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """Options of the command.

    Attributes:
        file: Path of the input, or `-` for standard input.
        target: What to do with the rows, and where.
        token_env: Name of the environment variable that holds the access token.
        kind: Format of the input, None for that of its name.
        empty: What becomes of empty cells.
        workers: Calls at once.
        batch_size: Rows in a call.
        failed: Path of the file of failures, None for no file.
        include_uncertain: Send rows that an earlier run left uncertain.
        settings: A TOML file with settings, or None.
    """

    file: str
    target: Target
    token_env: str
    kind: Format | None
    empty: Empty
    workers: int
    batch_size: int
    failed: Path | None
    include_uncertain: bool
    settings: Path | None


def run_sync(sync: Sync, *, as_document: bool) -> int:
    """Send the rows of a file, tell what became of them, and return the exit status: 0 if all were written.

    A file is read to its end before anything is sent, so what is wrong in it costs nothing. Standard input and
    pipes are checked on the way.

    Raises:
        CommandError: Something is wrong with the options or the input; or the run ended before time, in which case
            the summary was printed.
        SettingsError: A setting is unknown or has a value that is not allowed.
    """
    call, token, policy = call_of(sync.target), Token.of_variable(sync.token_env), load_settings(sync.settings)
    nulls, needs_id = sync.empty is Empty.NULL, sync.target.method.needs_id
    stop = Stop()
    with opened(sync.file, sync.kind, nulls=nulls, needs_id=needs_id, waits=stop.waiting) as source:
        ended = _send(sync, call, token, policy, source, stop)
        error = _explained(ended, stop, source)
    if as_document:
        write_json(summary_document(ended, sync.failed, str(error) if error else None))
    else:
        show_summary(ended, sync.failed, make_console())
    if error is not None:
        raise error
    return 0 if ended.tally.all_written else _FAILED


def _send(sync: Sync, call: Call, token: Token, policy: GuardSettings, source: Source, stop: Stop) -> Ended:
    total = _checked(source, include_uncertain=sync.include_uncertain)
    with failures_file(sync.failed, source) as write_failure, requests.Session() as session, handled(stop):
        session.auth = token
        mount_guard(session, call.base, settings=policy, pool_maxsize=sync.workers)
        run = Run(
            source,
            write_failure,
            stop,
            by_id=sync.target.method is Method.DELETE,
            include_uncertain=sync.include_uncertain,
        )
        return run.perform(session, call, total, batch_size=sync.batch_size, workers=sync.workers)


def _checked(source: Source, *, include_uncertain: bool) -> int | None:
    """Check a file to its end, and return how many rows are to be sent; None where it can be read only once."""
    if not source.is_file:
        return None
    try:
        return source.check(lambda entry: include_uncertain or not entry.marked_uncertain)
    except InputError as error:
        raise bad(source.name, error) from None


def _explained(ended: Ended, stop: Stop, source: Source) -> CommandError | None:
    """Return the error of the command for what ended a run before time; raise what is an error of this program."""
    error = ended.error
    if stop.interrupted or isinstance(error, KeyboardInterrupt):
        return CommandError("interrupted", _INTERRUPTED)
    if error is None or isinstance(error, CommandError):
        return error
    if isinstance(error, InputError):
        return bad(source.name, error)
    if stop.by is not None or isinstance(error, Stopped):
        name = stop.by.name if stop.by is not None else "a signal"
        return CommandError(f"ended by {name}", _FAILED)
    if not isinstance(error, requests.RequestException):
        raise error
    return CommandError(harmless(_cause(error))[:_LONGEST_ERROR], _FAILED)


def _cause(error: requests.RequestException) -> str:
    """Return what ended a run, in words for whoever has no Python in hand."""
    report = error.report if isinstance(error, GuardError) else None
    if report is None:
        return str(error)
    if report.reason is GiveUpReason.CREDITS:
        return "ended before time: the API credits that are left reached `min_credits`"
    if report.error is None:
        return str(error)
    token = " (is the access token valid?)" if report.error.status == UNAUTHORIZED else ""
    return f"ended before time by {report.error}{token}"


__all__ = ["Sync", "run_sync"]
