"""The command `crm-guard`: a demo, explanations of CRM responses, the simulator, the effective settings.

Needs the extra `cli`, but for `help`. This module imports none of its packages, so a missing one is reported in one
line.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_NEEDED: Final = ("typer", "rich")
_USAGE_ERROR: Final = 2
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The arguments after `crm-guard`, or None for those of the process.

    Returns:
        The exit status: 0 success, 1 the command failed, 2 bad usage, bad settings or a missing extra, 130
        interrupted.
    """
    given = sys.argv[1:] if arguments is None else arguments
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing and given[:1] == ["help"]:
        return _help(given[1] if len(given) > 1 else None)
    if missing:
        sys.stderr.write(f"crm-guard needs {', '.join(missing)}: pip install 'crm-guard[cli]'\n")
        return _USAGE_ERROR
    try:
        from crm_guard.cli.app import run  # noqa: PLC0415 (imports the extra)

        return run(arguments)
    except KeyboardInterrupt:  # during the imports
        sys.stderr.write("crm-guard: interrupted\n")
        return _INTERRUPTED


def _help(topic: str | None) -> int:
    """Print a page of the reference without the extra."""
    from crm_guard.cli.help import run_help  # noqa: PLC0415
    from crm_guard.cli.plain import CommandError  # noqa: PLC0415

    try:
        run_help(topic)
    except CommandError as error:
        sys.stderr.write(f"crm-guard: {error}\n")
        return error.status
    return 0
