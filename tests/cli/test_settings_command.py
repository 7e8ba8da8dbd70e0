"""`crm-guard settings`."""

import sys

import msgspec

from crm_guard import GuardSettings

NAMES = [field.name for field in msgspec.structs.fields(GuardSettings)]


def test_the_settings_are_shown_with_their_origins(crm_guard_command, monkeypatch, tmp_path):
    monkeypatch.setenv("CRM_GUARD_TIMEOUT", "5")
    monkeypatch.setenv("COLUMNS", "200")
    file = tmp_path / "guard.toml"
    file.write_text('attempts = 7\nretry_actions = ["zia_vision_processing", "scan"]\n')
    ran = crm_guard_command("settings", str(file))
    assert ran.status == 0
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in ran.out.splitlines() if line.strip()}
    assert lines["timeout"] == "5.0 environment variable CRM_GUARD_TIMEOUT"
    assert lines["attempts"] == f"7 file {file}"
    assert lines["retry_actions"] == f"zia_vision_processing, scan file {file}"
    assert lines["wait_max"] == "5.0 default"
    assert set(NAMES) <= set(lines)


def test_a_terminal_gets_colours(crm_guard_command, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert "\x1b[" in crm_guard_command("settings").out


def test_the_settings_as_json(crm_guard_command, monkeypatch):
    monkeypatch.setenv("CRM_GUARD_LOCK_REGISTRY", "redis://:secret@cache/1")
    found = crm_guard_command("settings", "--json").json()
    assert list(found) == NAMES
    assert found["retry_actions"] == {"value": ["zia_vision_processing"], "origin": "default"}
    assert "secret" not in str(found)


def test_bad_settings_end_with_2_and_the_reason(crm_guard_command, monkeypatch, tmp_path):
    monkeypatch.setenv("CRM_GUARD_TIMEOUT", "soon")
    for arguments in (["settings"], ["demo"], ["settings", "--json"]):
        ran = crm_guard_command(*arguments)
        assert (ran.status, ran.out) == (2, "")
        assert "CRM_GUARD_TIMEOUT" in ran.err
    monkeypatch.delenv("CRM_GUARD_TIMEOUT")
    ran = crm_guard_command("settings", str(tmp_path / "none.toml"))
    assert ran.status == 2
    assert "none.toml" in ran.err
