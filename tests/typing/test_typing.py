"""What a type checker says to users of the package: mypy here; pyright says the same (tried by hand)."""

import inspect
import re
import subprocess
import sys
import tempfile
import typing
from pathlib import Path

import pytest
from requests.adapters import HTTPAdapter

import crm_guard
from crm_guard import GuardAdapter, GuardSettings
from crm_guard._transport.options import OwnOptions, SettingsOptions, StockOptions

pytest.importorskip("mypy", reason="needs mypy: pip install mypy types-requests")

HERE = Path(__file__).parent
CACHE = Path(tempfile.gettempdir()) / "crm_guard-typing-cache"  # kept: it makes the next run quick


@pytest.fixture(scope="module")
def complaints():
    """What `mypy --strict` finds in both files: file name -> line -> messages."""
    root = Path(crm_guard.__file__).parents[1]
    place = root if (root / "pyproject.toml").exists() else HERE  # mypy refuses to run in site-packages
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={CACHE}"]
    command += ["--follow-imports=silent", "--no-error-summary", "--hide-error-context", "--no-pretty"]
    done = subprocess.run(
        [*command, HERE / "mistakes.py", HERE / "correct.py"],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    found = {"mistakes.py": {}, "correct.py": {}}
    for path, line, message in re.findall(r"^(.+?):(\d+): error: (.+)$", done.stdout, re.MULTILINE):
        found[Path(path).name].setdefault(int(line), []).append(message)
    return found


def marks():
    """Return what `mistakes.py` marks: line -> part of the message."""
    lines = enumerate((HERE / "mistakes.py").read_text().splitlines(), start=1)
    return {number: line.partition("# E: ")[2] for number, line in lines if "# E: " in line}


def test_a_correct_program_has_no_error(complaints):
    assert complaints["correct.py"] == {}


def test_every_mistake_is_found_and_nothing_else(complaints):
    assert complaints["mistakes.py"].keys() == marks().keys()
    for line, mark in marks().items():
        assert any(mark in message for message in complaints["mistakes.py"][line]), (line, mark)


def test_the_correct_program_runs():
    done = subprocess.run([sys.executable, HERE / "correct.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_options_of_load_settings_are_the_fields_of_the_settings():
    assert typing.get_type_hints(SettingsOptions) == typing.get_type_hints(GuardSettings)
    assert tuple(SettingsOptions.__annotations__) == GuardSettings.__struct_fields__


def test_the_options_of_an_adapter_are_those_of_its_constructor():
    own, stock = (inspect.signature(adapter).parameters.keys() for adapter in (GuardAdapter, HTTPAdapter))
    assert own - {"positional", "settings", "http_adapter_kwargs"} == OwnOptions.__optional_keys__
    assert stock == StockOptions.__optional_keys__


def test_the_package_says_that_it_is_typed():
    assert (Path(crm_guard.__file__).parent / "py.typed").is_file()
