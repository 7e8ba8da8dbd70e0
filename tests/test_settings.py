"""What settings accept and refuse, on each way in, and which place wins."""

from __future__ import annotations

import copy
import enum
import inspect
import itertools
import json
import math
import pickle
import subprocess
import sys
import traceback
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from crm_guard._base.registry_url import masked_url
from crm_guard.errors import SettingsError
from crm_guard.settings import ENV_PREFIX, GuardSettings, load_settings, origins

if TYPE_CHECKING:
    from pathlib import Path

NAN, INF = math.nan, math.inf

# Field -> (how the environment writes it, what that means): never the default, so that it is seen to arrive.
EXAMPLES: dict[str, tuple[str, Any]] = {
    "attempts": ("7", 7),
    "timeout": ("12.5", 12.5),
    "wait_initial": ("0.25", 0.25),
    "wait_max": ("60", 60.0),
    "wait_exp_base": ("3", 3.0),
    "wait_jitter": ("0", 0.0),
    "retry_actions": ("one, two", ("one", "two")),
    "raise_on": ("partial", "partial"),
    "hints_in_body": ("yes", True),
    "diagnose": ("off", False),
    "share_locks": ("0", False),
    "lock_registry": ("redis://cache:6379/1", "redis://cache:6379/1"),
    "wake_at_once": ("1", 1),
    "min_credits": ("500", 500),
    "max_inspect_bytes": ("0", 0),
    "path_pattern": ("/crm/v8/", "/crm/v8/"),
}

NOT_FLOATS = ["1", "", None, True, False, [1.0], b"1", 1j, NAN, INF, -INF, 10**400, -(10**400), -0.1]
NOT_COUNTS = ["1", "", None, True, 1.0, NAN, INF, -1, -(10**5000), [1]]
NOT_SWITCHES = [0, 1, 1.0, "true", "", None, []]
BAD: dict[str, list[Any]] = {
    "attempts": [*NOT_COUNTS, 0],
    "timeout": [*NOT_FLOATS, 1e300],
    "wait_initial": [*NOT_FLOATS, 0, 0.0],
    "wait_max": [*NOT_FLOATS, 0, 1e300],
    "wait_exp_base": [*NOT_FLOATS, 0.99, 0],
    "wait_jitter": [*NOT_FLOATS, 1.01, 2],
    "retry_actions": ["zia_vision_processing", "", None, 5, [1], [""], ["a", None], {"a": 1}, b"a"],
    "raise_on": ["always", "Failure", "", None, True, ["never"], 1],
    "hints_in_body": NOT_SWITCHES,
    "diagnose": NOT_SWITCHES,
    "share_locks": NOT_SWITCHES,
    "lock_registry": [
        "",
        "disk",
        "Memory",
        "memory\n",
        "http://cache/0",
        "unix://",
        "redis:cache",
        10**5000,
        None,
        5,
        b"memory",
    ],
    "wake_at_once": [*NOT_COUNTS, 0],
    "min_credits": NOT_COUNTS,
    "max_inspect_bytes": NOT_COUNTS,
    "path_pattern": ["", "(", "a{99999999999999999999}", None, 5, b"/crm/", ["/crm/"]],
}
# The constructor is given all of these. Each other way in is given one that an annotation refuses, and one that
# only a further check does.
BAD_ON_EACH_WAY_IN = [("wait_jitter", 1.5), ("path_pattern", "(")]
# Only the environment is parsed from text: one field of each type.
BAD_TEXTS = {
    "attempts": ["", " ", "0", "-1", "1.5", "many", "true", "nan"],
    "timeout": ["", "-1", "nan", "inf", "2m", "1e300", "true"],
    "hints_in_body": ["", "2", "maybe", "y", "None", "-1"],
    "retry_actions": ["", " ", "a,", ",", "[", "[1]", '["a"', '{"a": 1}, [""]x,', '[""]'],
    "raise_on": ["", "always", "never "],
    "lock_registry": ["", "disk", " memory"],
    "path_pattern": ["", "["],
}
FIELDS = [field.name for field in msgspec.structs.fields(GuardSettings)]
DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(GuardSettings)}
URL_WITH_PASSWORD = "rediss://guard:hunter2@cache.example:6380/3"


def load(source: Any = None, /, **options: Any) -> GuardSettings:
    """Load with an empty environment unless the test gives one."""
    return load_settings(source, **{"env": {}, **options})


def refusal(action: Any, /, *args: Any, **kwargs: Any) -> str:
    """Return the text with which `action` refuses."""
    with pytest.raises(SettingsError) as caught:
        action(*args, **kwargs)
    assert not isinstance(caught.value, msgspec.MsgspecError)
    return str(caught.value)


def written(folder: Path, text: str, name: str = "guard.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


class TestEveryFieldIsCoveredHere:
    def test_tables_of_this_file_name_every_field_and_no_other(self) -> None:
        assert list(EXAMPLES) == FIELDS == list(BAD)
        assert {type(DEFAULTS[name]) for name in BAD_TEXTS} == {type(default) for default in DEFAULTS.values()}

    def test_every_field_has_a_default_of_the_type_that_it_is_stored_as(self) -> None:
        for name, default in DEFAULTS.items():
            assert type(default) is type(EXAMPLES[name][1]), name
            assert default != EXAMPLES[name][1], name

    def test_every_field_is_documented(self) -> None:
        text = str(inspect.getdoc(GuardSettings))  # which takes the indentation away that Python 3.13 drops itself
        assert [name for name in FIELDS if f"\n    {name}: " not in text] == []


class TestDefaults:
    def test_defaults_are_the_promised_ones(self) -> None:
        assert DEFAULTS == {
            "attempts": 30,
            "timeout": 120.0,
            "wait_initial": 3.0,
            "wait_max": 5.0,
            "wait_exp_base": 1.2,
            "wait_jitter": 0.2,
            "retry_actions": ("zia_vision_processing",),
            "raise_on": "failure",
            "hints_in_body": False,
            "diagnose": True,
            "share_locks": True,
            "lock_registry": "memory",
            "wake_at_once": 10,
            "min_credits": 0,
            "max_inspect_bytes": 8_388_608,
            "path_pattern": r"/crm(/[^/]+)?/v\d+(\.\d+)?/",
        }

    def test_defaults_are_allowed(self) -> None:
        assert msgspec.structs.asdict(GuardSettings()) == DEFAULTS

    def test_loading_from_nowhere_gives_the_defaults(self) -> None:
        assert load() == GuardSettings()


class TestConstructor:
    @pytest.mark.parametrize("name", FIELDS)
    def test_bad_value_is_refused_with_field_and_rule(self, name: str) -> None:
        for value in BAD[name]:
            text = refusal(GuardSettings, **{name: value})
            assert text.startswith(f"{name}=")
            assert " must be " in text

    def test_good_value_is_kept(self) -> None:
        for name, (_, value) in EXAMPLES.items():
            assert getattr(GuardSettings(**{name: value}), name) == value

    def test_text_names_field_value_and_what_is_allowed(self) -> None:
        assert refusal(GuardSettings, attempts=0) == "attempts=0 must be a whole number, 1 or more"
        assert refusal(GuardSettings, wait_jitter=NAN) == "wait_jitter=nan must be a number from 0 to 1"
        assert refusal(GuardSettings, raise_on="x") == ("""raise_on='x' must be "failure", "partial" or "never\"""")

    @pytest.mark.parametrize("value", [1e300, INF, 10**400])
    def test_time_longer_than_any_platform_can_wait_is_refused_with_the_limit(self, value: float) -> None:
        limit = f"must be at most {TIMEOUT_MAX:.0f} seconds"
        assert refusal(GuardSettings, timeout=value).endswith(limit)
        assert refusal(GuardSettings, wait_max=value).endswith(limit)
        assert GuardSettings(timeout=TIMEOUT_MAX).timeout == TIMEOUT_MAX

    def test_limit_of_a_time_is_told_only_where_it_is_passed(self) -> None:
        assert refusal(GuardSettings, timeout=-1) == "timeout=-1 must be a number of seconds, 0 or more"
        assert refusal(GuardSettings, wait_max=0) == "wait_max=0 must be a number of seconds above 0"

    def test_one_string_of_actions_is_told_from_a_list(self) -> None:
        text = refusal(GuardSettings, retry_actions="zia_vision_processing")
        assert text.startswith("retry_actions='zia_vision_processing' must be a list of strings, not one string")

    def test_pattern_that_does_not_compile_is_refused_with_the_reason(self) -> None:
        assert "unterminated subpattern" in refusal(GuardSettings, path_pattern="/crm(")

    def test_number_too_long_to_write_is_refused_all_the_same(self) -> None:
        assert refusal(GuardSettings, attempts=-(10**5000)).startswith("attempts=<int> must be")

    def test_unknown_name_is_a_type_error(self) -> None:
        with pytest.raises(TypeError, match="atempts"):
            GuardSettings(atempts=3)  # type: ignore[call-arg]

    def test_positional_argument_is_a_type_error(self) -> None:
        with pytest.raises(TypeError, match="positional"):
            GuardSettings(3)  # type: ignore[call-arg]

    def test_wait_max_below_wait_initial_names_both_with_values(self) -> None:
        text = refusal(GuardSettings, wait_initial=5, wait_max=2)
        assert text == "wait_max=2.0 must be at least wait_initial=5.0"

    def test_equal_wait_max_and_wait_initial_are_allowed(self) -> None:
        assert GuardSettings(wait_initial=2, wait_max=2).wait_max == 2.0

    @pytest.mark.parametrize(
        "extreme",
        [
            {"attempts": 1},
            {"timeout": 0},
            {"wait_exp_base": 1},
            {"wait_exp_base": sys.float_info.max},
            {"wait_jitter": 0},
            {"wait_jitter": 1},
            {"retry_actions": ()},
            {"min_credits": 0},
            {"max_inspect_bytes": 0},
            {"wait_initial": 5e-324},
            {"timeout": 4_000_000, "wait_max": 4_000_000},
            {"lock_registry": "redis://"},
            {"lock_registry": "unix:///run/redis.sock?db=1"},
        ],
    )
    def test_extreme_that_has_a_meaning_is_allowed(self, extreme: dict[str, Any]) -> None:
        settings = GuardSettings(**extreme)
        assert {name: getattr(settings, name) for name in extreme} == extreme


class TestTypesAreNormalised:
    def test_whole_number_becomes_a_float_where_one_is_meant(self) -> None:
        settings = GuardSettings(timeout=5)
        assert type(settings.timeout) is float
        assert repr(settings) == repr(GuardSettings(timeout=5.0))

    def test_list_becomes_a_tuple(self) -> None:
        assert GuardSettings(retry_actions=["a", "b"]).retry_actions == ("a", "b")  # type: ignore[arg-type]

    def test_empty_list_of_actions_stays_empty(self) -> None:
        assert GuardSettings(retry_actions=[]).retry_actions == ()  # type: ignore[arg-type]

    def test_subclass_of_float_is_welcome(self) -> None:
        class Seconds(float):
            """As numpy's float64 is one."""

        assert type(GuardSettings(timeout=Seconds(3)).timeout) is float

    def test_whole_number_of_an_enumeration_is_welcome(self) -> None:
        class Limit(enum.IntEnum):
            LOW = 3

        assert GuardSettings(attempts=Limit.LOW).attempts == 3


class TestOtherWaysIn:
    def test_replace_takes_a_good_value(self) -> None:
        changed = msgspec.structs.replace(GuardSettings(attempts=7), timeout=5, retry_actions=["a"])
        assert changed == GuardSettings(attempts=7, timeout=5.0, retry_actions=("a",))
        assert type(changed.timeout) is float

    def test_replace_refuses_a_bad_value(self) -> None:
        for name, value in BAD_ON_EACH_WAY_IN:
            assert refusal(msgspec.structs.replace, GuardSettings(), **{name: value}).startswith(f"{name}=")

    def test_replace_checks_fields_against_each_other(self) -> None:
        assert "wait_initial=9.0" in refusal(msgspec.structs.replace, GuardSettings(), wait_initial=9)

    def test_convert_takes_a_good_value(self) -> None:
        converted = msgspec.convert({"timeout": 5, "retry_actions": ["a"]}, GuardSettings)
        assert converted == GuardSettings(timeout=5.0, retry_actions=("a",))

    def test_convert_refuses_a_bad_value(self) -> None:
        for name, value in BAD_ON_EACH_WAY_IN:
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert({name: value}, GuardSettings)

    def test_convert_carries_our_error_for_what_types_cannot_say(self) -> None:
        with pytest.raises(msgspec.ValidationError, match=r"at least wait_initial=3\.0") as caught:
            msgspec.convert({"wait_max": 0.5}, GuardSettings)
        assert isinstance(caught.value.__cause__, SettingsError)

    @pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])  # noqa: S301
    def test_copies_and_pickles_are_equal(self, twin: Any) -> None:
        settings = GuardSettings(**{name: value for name, (_, value) in EXAMPLES.items()})
        assert twin(settings) == settings
        assert hash(twin(settings)) == hash(settings)


class TestValueObject:
    def test_settings_cannot_be_changed(self) -> None:
        settings = GuardSettings()
        with pytest.raises(AttributeError):
            settings.attempts = 2  # type: ignore[misc]

    def test_settings_differ_as_soon_as_one_field_does(self) -> None:
        for name, (_, value) in EXAMPLES.items():
            assert GuardSettings(**{name: value}) != GuardSettings()

    def test_equal_settings_are_one_key(self) -> None:
        assert len({GuardSettings(timeout=3), GuardSettings(timeout=3.0), GuardSettings()}) == 2

    def test_repr_of_ordinary_settings_can_be_evaluated(self) -> None:
        settings = GuardSettings(attempts=3, retry_actions=("a",))
        assert eval(repr(settings)) == settings  # noqa: S307


class TestEnvironment:
    def test_each_variable_alone_sets_its_own_field_and_no_other(self) -> None:
        for name, (text, value) in EXAMPLES.items():
            settings = load(env={f"CRM_GUARD_{name.upper()}": text})
            assert settings == GuardSettings(**{name: value})
            assert type(getattr(settings, name)) is type(value)

    @pytest.mark.parametrize("name", BAD_TEXTS)
    def test_bad_value_is_refused_with_variable_value_and_rule(self, name: str) -> None:
        variable = f"CRM_GUARD_{name.upper()}"
        for text in BAD_TEXTS[name]:
            message = refusal(load, env={variable: text})
            assert message.startswith(f"environment variable {variable}: {name}=")
            assert " must be " in message

    @pytest.mark.parametrize("text", ["1", "true", "TRUE", "yes", "Yes", "on", " on "])
    def test_switch_is_on(self, text: str) -> None:
        assert load(env={"CRM_GUARD_HINTS_IN_BODY": text}).hints_in_body is True

    @pytest.mark.parametrize("text", ["0", "false", "False", "no", "NO", "off", "off\n"])
    def test_switch_is_off(self, text: str) -> None:
        assert load(env={"CRM_GUARD_DIAGNOSE": text}).diagnose is False

    @pytest.mark.parametrize(
        ("text", "actions"),
        [
            ("one", ("one",)),
            ("one,two", ("one", "two")),
            (" one , two ", ("one", "two")),
            ('["one", "two"]', ("one", "two")),
            (' ["a,b"] ', ("a,b",)),
            ("[]", ()),
        ],
    )
    def test_list_is_written_with_commas_or_as_json(self, text: str, actions: tuple[str, ...]) -> None:
        assert load(env={"CRM_GUARD_RETRY_ACTIONS": text}).retry_actions == actions

    def test_spaces_around_a_number_do_not_matter(self) -> None:
        assert load(env={"CRM_GUARD_ATTEMPTS": " 4\n"}).attempts == 4

    def test_strings_are_taken_as_they_are(self) -> None:
        assert load(env={"CRM_GUARD_PATH_PATTERN": " /crm/ "}).path_pattern == " /crm/ "

    def test_misspelt_variable_is_refused_with_the_right_one(self) -> None:
        text = refusal(load, env={"CRM_GUARD_ATEMPTS": "3"})
        assert text.startswith("environment variable CRM_GUARD_ATEMPTS: unknown setting 'CRM_GUARD_ATEMPTS'")
        assert "did you mean CRM_GUARD_ATTEMPTS?" in text
        assert all(f"CRM_GUARD_{name.upper()}" in text for name in FIELDS)

    @pytest.mark.parametrize("key", ["crm_guard_timeout", "Crm_Guard_Timeout"])
    def test_variable_in_another_case_is_not_silently_ignored(self, key: str) -> None:
        assert "did you mean CRM_GUARD_TIMEOUT?" in refusal(load, env={key: "3"})

    def test_variable_like_nothing_is_refused_without_a_guess(self) -> None:
        text = refusal(load, env={"CRM_GUARD_QQQQ": "3"})
        assert "did you mean" not in text
        assert "Allowed: CRM_GUARD_ATTEMPTS, " in text

    def test_other_variables_are_left_alone(self) -> None:
        assert load(env={"CRM_GUARDIAN": "x", "TIMEOUT": "x", "PATH": "/bin", "CRM": "x"}) == GuardSettings()

    def test_environment_of_the_process_is_read_when_called(self) -> None:
        code = (
            "import os; from crm_guard.settings import load_settings;"
            "os.environ['CRM_GUARD_ATTEMPTS'] = '4'; print(load_settings().attempts)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "4\n"


class TestMapping:
    def test_key_in_lower_or_upper_case_sets_its_field(self) -> None:
        for name, (_, value) in EXAMPLES.items():
            assert load({name: value}) == load({name.upper(): value}) == GuardSettings(**{name: value})

    def test_bad_value_is_refused_with_origin_and_field(self) -> None:
        for name, value in BAD_ON_EACH_WAY_IN:
            assert refusal(load, {name: value}).startswith(f"mapping: {name}=")

    @pytest.mark.parametrize("key", ["timeuot", "TIMEUOT", "Timeout", "CRM_GUARD_TIMEOUT"])
    def test_unknown_key_is_refused_with_the_right_one(self, key: str) -> None:
        text = refusal(load, {key: 3})
        assert text.startswith(f"mapping: unknown setting {key!r}, did you mean timeout? Allowed: attempts, ")

    @pytest.mark.parametrize("key", [5, None, ("timeout",)])
    def test_key_that_is_no_string_is_refused(self, key: Any) -> None:
        assert f"unknown setting {key!r}" in refusal(load, {key: 3})

    def test_one_setting_in_both_cases_is_refused(self) -> None:
        assert refusal(load, {"timeout": 3, "TIMEOUT": 4}) == (
            "mapping: timeout is given twice, in lower and in upper case"
        )

    def test_mapping_is_not_changed(self) -> None:
        source = {"RETRY_ACTIONS": ["a"]}
        load(source, timeout=3)
        assert source == {"RETRY_ACTIONS": ["a"]}

    @pytest.mark.parametrize("source", [5, [("timeout", 3)], b"guard.toml", True, GuardSettings()])
    def test_source_that_is_neither_mapping_nor_path_is_refused(self, source: Any) -> None:
        assert "must be a mapping, or the path of a TOML file" in refusal(load, source)


class TestFile:
    @pytest.mark.parametrize("header", ["", "[tool.crm_guard]\n"])
    def test_file_sets_each_field(self, tmp_path: Path, header: str) -> None:
        values = {name: value for name, (_, value) in EXAMPLES.items()}
        path = written(
            tmp_path, header + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
        )
        assert load(path) == load(str(path)) == GuardSettings(**values)

    def test_bad_value_is_refused_with_path_and_field(self, tmp_path: Path) -> None:
        for line in (
            "attempts = true",
            'attempts = "3"',
            "timeout = nan",
            "wait_max = inf",
            "raise_on = 2026-11-01",
            "share_locks = []",
            "path_pattern = '('",
        ):
            path, name = written(tmp_path, line), line.partition(" = ")[0]
            assert refusal(load, path).startswith(f"file {path}: {name}=")

    def test_unknown_key_is_refused_with_path_and_the_right_one(self, tmp_path: Path) -> None:
        path = written(tmp_path, "[tool.crm_guard]\nwait_maximum = 3\n")
        text = refusal(load, path)
        assert text.startswith(f"file {path}: unknown setting 'wait_maximum', did you mean wait_max?")

    @pytest.mark.parametrize(
        "text",
        [
            "[tool.other]\nx = 1\n",
            '[project]\nname = "x"\n',
            '[build-system]\nrequires = ["hatchling"]\n',
            '[dependency-groups]\ndev = ["pytest"]\n',
            "",
        ],
    )
    def test_project_file_without_our_table_holds_no_settings(self, tmp_path: Path, text: str) -> None:
        assert load(written(tmp_path, text, "pyproject.toml")) == GuardSettings()

    def test_our_table_wins_over_the_rest_of_the_file(self, tmp_path: Path) -> None:
        path = written(tmp_path, 'timeout = "?"\n[project]\nname = "x"\n[tool.crm_guard]\ntimeout = 3\n')
        assert load(path).timeout == 3.0

    def test_table_with_a_hyphen_is_not_silently_ignored(self, tmp_path: Path) -> None:
        path = written(tmp_path, "[tool.crm-guard]\ntimeout = 3\n")
        assert refusal(load, path) == f"file {path}: [tool.crm-guard] must be written [tool.crm_guard]"

    def test_table_that_is_none_is_refused(self, tmp_path: Path) -> None:
        path = written(tmp_path, "[tool]\ncrm_guard = 5\n")
        assert refusal(load, path) == f"file {path}: tool.crm_guard=5 must be a table"

    def test_byte_order_mark_is_skipped(self, tmp_path: Path) -> None:
        assert load(written(tmp_path, "\ufefftimeout = 3\n")).timeout == 3.0

    def test_missing_file_is_refused_with_path_and_reason(self, tmp_path: Path) -> None:
        path = tmp_path / "none.toml"
        assert refusal(load, path) == f"file {path}: cannot be read: No such file or directory"

    def test_folder_is_refused_with_path_and_reason(self, tmp_path: Path) -> None:
        assert refusal(load, tmp_path).startswith(f"file {tmp_path}: cannot be read: ")

    @pytest.mark.parametrize("content", [b"timeout = ", b"timeout = 3\ntimeout = 4\n", b"# \xff\n", b"\x00"])
    def test_file_that_is_no_toml_is_refused_with_path_and_reason(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "guard.toml"
        path.write_bytes(content)
        assert refusal(load, path).startswith(f"file {path}: is not valid TOML: ")


class TestOverrides:
    def test_each_argument_sets_its_field(self) -> None:
        values = {name: value for name, (_, value) in EXAMPLES.items()}
        assert load(**values) == GuardSettings(**values)

    def test_bad_argument_is_refused_with_origin_and_field(self) -> None:
        for name, value in BAD_ON_EACH_WAY_IN:
            assert refusal(load, **{name: value}).startswith(f"argument: {name}=")

    def test_unknown_argument_is_refused_with_the_right_one(self) -> None:
        text = refusal(load, atempts=3)
        assert text.startswith("argument: unknown setting 'atempts', did you mean attempts? Allowed: ")


class TestPrecedence:
    @pytest.mark.parametrize("places", list(itertools.product([False, True], repeat=3)))
    @pytest.mark.parametrize("form", ["mapping", "file"])
    def test_strongest_place_that_has_the_setting_wins(
        self, tmp_path: Path, places: tuple[bool, bool, bool], form: str
    ) -> None:
        in_source, in_env, in_arguments = places
        source: Any = {"attempts": 1} if in_source else {}
        if form == "file":
            source = written(tmp_path, "attempts = 1\n" if in_source else "")
        env = {"CRM_GUARD_ATTEMPTS": "2"} if in_env else {}
        overrides = {"attempts": 3} if in_arguments else {}
        expected = 3 if in_arguments else 2 if in_env else 1 if in_source else 30
        assert load(source, env=env, **overrides).attempts == expected

    def test_places_add_up_field_by_field(self) -> None:
        settings = load({"timeout": 1, "attempts": 2}, env={"CRM_GUARD_ATTEMPTS": "3"}, wait_max=4)
        assert settings == GuardSettings(timeout=1, attempts=3, wait_max=4)

    def test_value_equal_to_the_default_still_overrides(self) -> None:
        assert load({"attempts": 2}, attempts=30).attempts == 30

    def test_empty_list_overrides_a_full_one(self) -> None:
        assert load({"retry_actions": ["a"]}, retry_actions=[]).retry_actions == ()

    @pytest.mark.parametrize(
        ("source", "env"), [({"attempts": 0}, {}), ({}, {"CRM_GUARD_ATTEMPTS": "0"})], ids=["mapping", "env"]
    )
    def test_bad_value_is_refused_also_where_a_stronger_place_overrides_it(
        self, source: dict[str, Any], env: dict[str, str]
    ) -> None:
        assert "attempts=" in refusal(load, source, env=env, attempts=5)

    def test_fields_that_contradict_each_other_are_named_with_their_places(self) -> None:
        text = refusal(load, {"wait_max": 2}, env={"CRM_GUARD_WAIT_INITIAL": "3"})
        assert text == (
            "wait_max=2.0 must be at least wait_initial=3.0 "
            "(wait_initial from environment variable CRM_GUARD_WAIT_INITIAL, wait_max from mapping)"
        )

    def test_fields_are_compared_only_once_all_places_are_read(self) -> None:
        assert load({"wait_max": 0.5}, wait_initial=0.25).wait_max == 0.5


class TestOrigins:
    def test_each_value_comes_with_the_place_that_won(self, tmp_path: Path) -> None:
        path = written(tmp_path, "timeout = 3\nattempts = 4\nwait_max = 5\n")
        found = origins(path, env={"CRM_GUARD_ATTEMPTS": "6"}, wait_max=7)
        assert found["timeout"] == (3.0, f"file {path}")
        assert found["attempts"] == (6, "environment variable CRM_GUARD_ATTEMPTS")
        assert found["wait_max"] == (7.0, "argument")
        assert found["raise_on"] == ("failure", "default")
        assert list(found) == FIELDS

    def test_mapping_is_named_as_the_place(self) -> None:
        assert origins({"DIAGNOSE": False}, env={})["diagnose"] == (False, "mapping")

    def test_values_are_those_that_loading_uses(self) -> None:
        env = {ENV_PREFIX + name.upper(): text for name, (text, _) in EXAMPLES.items()}
        shown = {name: value for name, (value, _) in origins(env=env).items()}
        assert shown == msgspec.structs.asdict(load(env=env)) | {"lock_registry": "redis://***"}

    def test_what_loading_refuses_is_refused(self) -> None:
        assert "wait_max=0.5" in refusal(origins, env={}, wait_max=0.5)

    def test_password_is_masked(self) -> None:
        found = origins(env={"CRM_GUARD_LOCK_REGISTRY": URL_WITH_PASSWORD})
        assert found["lock_registry"][0] == "rediss://***"


class TestPasswordsStayHidden:
    def test_repr_masks_the_password_and_the_field_keeps_it(self) -> None:
        settings = GuardSettings(lock_registry=URL_WITH_PASSWORD)
        assert settings.lock_registry == URL_WITH_PASSWORD
        assert "hunter2" not in repr(settings)
        assert "hunter2" not in f"{settings} {settings!s}"
        assert "lock_registry='rediss://***'" in repr(settings)

    def test_rich_repr_masks_the_password(self) -> None:
        assert "hunter2" not in str(GuardSettings(lock_registry=URL_WITH_PASSWORD).__rich_repr__())

    @pytest.mark.parametrize(
        "value",
        [
            "http://:hunter2@cache/0",
            "redis//:hunter2@cache/0",
            "redis:/:hunter2@cache",
            "redis://:hunter2@cache /0",
            "redis://:hunter2@cache:port/0",
            "redis://:1/hunter2@[cache/0",
            ":hunter2@redis://cache",
            b"redis://:hunter2@cache/0",
            ["redis://:hunter2@cache/0"],
            {"url": "redis://:hunter2@cache/0"},
        ],
    )
    def test_refusal_does_not_show_the_password(self, value: Any) -> None:
        assert "hunter2" not in refusal(GuardSettings, lock_registry=value)
        assert "hunter2" not in refusal(load, {"lock_registry": value})

    @pytest.mark.parametrize(
        "url",
        [
            "redis://:hun/ter2@cache",
            "redis://:hun#ter2@cache",
            "redis://:hun?ter2@cache",
            "redis://:1/hunter2@cache",
            "redis://:1#hunter2@cache",
            "redis://:hun[ter2@cache",
        ],
    )
    def test_password_with_special_characters_as_they_are_is_refused_and_not_shown(self, url: str) -> None:
        text = refusal(GuardSettings, lock_registry=url)
        assert "percent-encoded" in text
        assert "hun" not in text

    def test_socket_path_may_hold_any_character(self) -> None:
        url = "unix:///run/redis@main.sock"
        assert GuardSettings(lock_registry=url).lock_registry == url

    def test_refusal_is_not_chained_to_an_error_that_quotes_the_password(self) -> None:
        with pytest.raises(SettingsError) as caught:
            GuardSettings(lock_registry="redis://:hunter2/x@cache")
        assert "hunter2" not in "".join(traceback.format_exception(caught.value, limit=0))

    def test_unknown_name_is_refused_without_its_value(self) -> None:
        env = {"CRM_GUARD_LOCK_REGISTRI": URL_WITH_PASSWORD}
        assert "hunter2" not in refusal(load, env=env)

    def test_error_of_another_field_does_not_show_the_password(self) -> None:
        assert "hunter2" not in refusal(GuardSettings, lock_registry=URL_WITH_PASSWORD, wait_max=0.5)

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("memory", "memory"),
            ("redis://cache:6379/0", "redis://***"),
            ("redis://hunter2", "redis://***"),
            ("rediss://", "rediss://***"),
            ("unix:///run/redis.sock?password=a@b", "unix://***"),
            ("REDIS://:hunter2@cache", "***"),
            ("hunter2://cache", "***"),
            (":hunter2@cache", "***"),
            ("hunter2", "***"),
            ("", "***"),
        ],
    )
    def test_nothing_of_a_url_is_shown_but_its_scheme(self, url: str, shown: str) -> None:
        """A host may be a password in the wrong place."""
        assert masked_url(url) == shown


class TestImport:
    def test_loading_settings_imports_neither_asyncio_nor_a_toml_parser(self) -> None:
        code = (
            "import sys, crm_guard.errors; before = set(sys.modules);"
            "from crm_guard.settings import load_settings; load_settings(env={});"
            "print({'asyncio', 'backoff', 'tomllib', 'difflib'} & (set(sys.modules) - before))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "set()\n"
