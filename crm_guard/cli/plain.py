"""What needs no package of the extra: the error of a command, and text that is safe to print."""

from __future__ import annotations


class CommandError(Exception):
    """A command failed: one line for the user, and the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def harmless(text: str) -> str:
    """Return `text` on one line and without control characters: untrusted text must not control a terminal."""
    return "".join(sign if sign.isprintable() else "�" for sign in " ".join(text.split()))
