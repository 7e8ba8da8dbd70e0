"""Imports that are put off until they are needed, and forks.

A thread that imports a module holds a lock of Python's on it, and a child that is forked meanwhile inherits this
lock, but not the thread: it would wait for ever as soon as it needs the module. So imports that a call may be the
first to make hold `first_import`, and whoever forks waits until they are done, as `logging` does with its lock.
"""

from __future__ import annotations

import os
import threading
from typing import Final

first_import: Final = threading.RLock()
"""Held around such an import: `with first_import: import ...`. Never around anything that may wait."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=first_import.acquire, after_in_parent=first_import.release, after_in_child=first_import.release
    )
