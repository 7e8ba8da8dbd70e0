"""The examples of the README and of the reference, which is in docstrings."""

from __future__ import annotations

import inspect
import pydoc
import re
import textwrap
from pathlib import Path

from crm_guard.cli.help import TOPICS

README = (Path(__file__).parents[2] / "README.md").read_text()
READ_ME_EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
_EXAMPLE = re.compile(r"::\n\n((?: {4}.*\n|\n)+)")


def page(topic: str) -> str:
    """Return the docstrings of a topic."""
    return "\n\n".join(inspect.getdoc(pydoc.locate(name)) or "" for name in TOPICS[topic].names)


def examples(topic: str) -> list[str]:
    """Return the Python examples of a topic: what is indented after `::`."""
    return [textwrap.dedent(block).strip() + "\n" for block in _EXAMPLE.findall(page(topic) + "\n")]


def recipe(marker: str) -> str:
    """Return the one example of the reference that contains `marker`."""
    (found,) = [example for topic in TOPICS for example in examples(topic) if marker in example]
    return found
