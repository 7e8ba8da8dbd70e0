"""The reference: `help()`, and `crm-guard help TOPIC` with the same docstrings; every example runs alone."""

from __future__ import annotations

import importlib.util
import inspect
import pydoc
import re
from pathlib import Path

import pytest

import crm_guard
from crm_guard.cli import main
from crm_guard.cli.help import TOPICS, reflow
from tests.documents.conftest import IDS, REJECTED
from tests.documents.pages import examples

# Run by tests/locks/test_celery_recipe.py and tests/operations, with real workers.
RECIPES = re.compile(r"Celery\(|from celery|post_worker_init")
EXAMPLES = [
    pytest.param(example, id=f"{topic}-{number}")
    for topic in TOPICS
    for number, example in enumerate(examples(topic))
    if not RECIPES.search(example)
]
PUBLIC = [name for name in dir(crm_guard) if name in crm_guard._MODULES]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_pasted_alone_runs(pasted, example):
    pasted(example)


def test_blocked_rows_are_kept_in_a_file_and_sent_again_tomorrow(pasted, zoho):
    (recipe,) = [example for example in examples("bulk") if "def sync(" in example]
    names = pasted(recipe)
    assert Path("blocked.csv").read_text().splitlines() == ["id,Company", f"{REJECTED},Zylker"]
    zoho.unlock(REJECTED)
    assert names["sync"]("blocked.csv", "still_blocked.csv").written == 1
    assert Path("still_blocked.csv").read_text().splitlines() == ["id,Company"]
    assert zoho.write_counts == dict.fromkeys([*IDS, REJECTED], 1)


def rendered(thing):
    return pydoc.plain(pydoc.render_doc(thing))


def test_help_of_the_package_fits_a_few_screens_and_names_everything():
    text = rendered(crm_guard)
    assert text.count("\n") <= 110
    assert [name for name in PUBLIC if name not in text] == []


@pytest.mark.parametrize("name", PUBLIC)
def test_help_of_every_public_name_works(name):
    assert inspect.getdoc(getattr(crm_guard, name))
    assert rendered(getattr(crm_guard, name))


def test_help_of_the_package_names_where_each_page_is():
    pages = {name for topic in TOPICS.values() for name in topic.names[:1]}
    assert [
        name for name in sorted(pages) if f"`{name}`" not in inspect.getdoc(crm_guard) and name != "crm_guard"
    ] == []


def test_the_signature_of_mount_guard_names_the_prefixes():
    assert "prefixes: 'str | Iterable[str]' = CRM_PREFIXES," in str(inspect.signature(crm_guard.mount_guard))
    assert tuple(crm_guard.CRM_PREFIXES) == crm_guard.CRM_PREFIXES
    assert "https://www.zohoapis.com/" in str(crm_guard.CRM_PREFIXES)


def test_help_of_the_settings_tells_each_default():
    defaults = crm_guard.GuardSettings()
    doc = inspect.getdoc(crm_guard.GuardSettings)
    entries = re.findall(r"^    (\w+): ((?:.+\n(?: {8}.*\n)*))", doc, re.MULTILINE)
    told = {name: " ".join(text.split()).partition(" Default: ")[2].removesuffix(".") for name, text in entries}
    told = {name: default for name, default in told.items() if default}
    assert told == {name: shown(getattr(defaults, name)) for name in crm_guard.GuardSettings.__struct_fields__}


def shown(value):
    if value == 8 * 1024 * 1024:
        return f"{value}, 8 MiB"
    if isinstance(value, tuple):
        return f"`{value}`".replace("'", '"')
    if isinstance(value, str):
        return f"`{value}`" if "\\" in value else f'`"{value}"`'
    return str(value)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_has_the_whole_docstring(topic, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["help", topic]) == 0
    printed = capsys.readouterr().out
    for name in TOPICS[topic].names:
        doc = re.sub(":(class|meth|attr|func|mod):`", "`", inspect.getdoc(pydoc.locate(name)))
        words = re.sub(r"::(?=\s)", ":", doc.replace("\n::\n", "")).split()
        assert " ".join(words) in " ".join(printed.split())


@pytest.mark.parametrize(("columns", "widest"), [("80", 80), ("300", 100)])
def test_text_is_as_wide_as_the_terminal_and_no_wider_than_one_reads(monkeypatch, capsys, columns, widest):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["help", "mounting"]) == 0
    text = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("    ")]
    assert widest - 5 <= max(map(len, text)) <= widest


def test_text_is_filled_and_examples_stay_as_they_are():
    text = "A long line of words.\n\n- an item\n  of a list\n\nSo::\n\n    if x:\n        y()  # a line of code\n"
    section = "\nArgs:\n    x: What\n        it is.\n"
    assert list(reflow(text + section, 12)) == [
        "A long line",
        "of words.",
        "",
        "- an item of",
        "  a list",
        "",
        "So:",
        "",
        "    if x:",
        "        y()  # a line of code",
        "",
        "Args:",
        "    x: What",
        "      it is.",
        "",
    ]


def test_without_a_topic_all_are_listed(capsys):
    assert main(["help"]) == 0
    printed = capsys.readouterr().out
    assert [topic for topic in TOPICS if topic not in printed] == []


def test_an_unknown_topic_is_one_line_with_the_nearest(capsys):
    assert main(["help", "eror\x1b[31ms"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "\x1b" not in said.err
    assert main(["help", "setings"]) == 2
    assert "Did you mean settings?" in capsys.readouterr().err


def test_the_case_of_a_topic_does_not_matter(capsys):
    assert main(["help", "Errors"]) == 0
    assert capsys.readouterr().out.startswith("crm_guard.errors\n")


@pytest.mark.parametrize("topic", [[], ["testing"], ["SETTINGS"]])
def test_the_reference_needs_no_extra(monkeypatch, capsys, topic):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert main(["help", *topic]) == 0
    assert "crm_guard" in capsys.readouterr().out
    assert main(["help", "nonsense"]) == 2
    assert capsys.readouterr().err.startswith("crm-guard: no topic 'nonsense'")
