"""Make lazy imports safe with `os.fork`.

A thread that imports a module holds its import lock. A child forked meanwhile inherits the lock but not the thread,
and would deadlock as soon as it needs the module. So lazy imports hold `first_import`, and a fork waits until they
are done, as `logging` does with its lock.
"""

from __future__ import annotations

import os
import threading
from typing import Final

first_import: Final = threading.RLock()
"""Hold it around a lazy import: `with first_import: import ...`. Never around code that may block."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=first_import.acquire, after_in_parent=first_import.release, after_in_child=first_import.release
    )
