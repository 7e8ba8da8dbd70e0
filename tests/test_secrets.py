"""A password in `lock_registry` gets into no text: whatever is wrong with the URL, and wherever it was put."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import socket
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from crm_guard import GuardAdapter
from crm_guard.cli import main
from crm_guard.errors import SettingsError
from crm_guard.settings import GuardSettings, load_settings, origins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

redis = pytest.importorskip("redis")
redis_locks = pytest.importorskip("crm_guard.locks.redis")

HERE = "127.0.0.1:1"
BEGINNING, END = "Zq7", "x9K"  # of every password: no part of one may be told
# Where a password may stand in what was meant as a URL. {} is the password.
FORMS = [
    "redis://:{}@" + HERE,
    "redis://user:{}@" + HERE + "/0",
    "redis://{}:word@" + HERE,
    "rediss://:{}@" + HERE + "?ssl_cert_reqs=none",
    "redis://:{}@[::1]:1/0",
    "redis://:{}@[::1/0",
    "redis://[{}]/0",
    "redis://[::1%25{}]/0",
    "redis://:one@{}@" + HERE,
    "redis://:{}@one@" + HERE,
    "redis://{}",
    "redis://{}/0",
    "redis://user:{}",
    "redis://:{}",
    "redis://127.0.0.1:{}/0",
    "redis://127.0.0.1:1{}",
    "redis://:{}/x@" + HERE,
    "redis://:1/{}@" + HERE,
    "redis://:{}?x@" + HERE,
    "redis://:1?{}@" + HERE,
    "redis://:{}#x@" + HERE,
    "redis://:1#{}@" + HERE,
    "redis://:{}[x@" + HERE,
    "redis://:{} x@" + HERE,
    "redis://:{}\n@" + HERE,
    "redis://:{}\t@" + HERE,
    "redis://:\u2100{}@" + HERE,
    "redis://127.0.0.1/{}",
    "redis://127.0.0.1/0/{}",
    "redis://127.0.0.1/0#password={}",
    "redis://127.0.0.1/0#{}",
    "redis://127.0.0.1/0;password={}",
    "redis://127.0.0.1;password={}",
    "redis://127.0.0.1/0&password={}",
    "redis://127.0.0.1&password={}",
    "redis://" + HERE + "?password={}",
    "redis://" + HERE + "?username=a&password={}",
    "redis://" + HERE + "?PASSWORD={}",
    "redis://" + HERE + "?password={}&timeout=1",
    "redis://" + HERE + "?{}",
    "redis://" + HERE + "?{}=1",
    "redis://" + HERE + "?db={}",
    "redis://" + HERE + "?db=0&db={}",
    "redis://" + HERE + "?db=0;password={}",
    "redis://" + HERE + "?protocol={}",
    "redis://" + HERE + "?encoding={}",
    "redis://" + HERE + "?encoding_errors={}",
    "redis://" + HERE + "?socket_timeout={}",
    "redis://" + HERE + "?max_connections={}",
    "redis://" + HERE + "?health_check_interval={}",
    "redis://" + HERE + "?timeout={}",
    "redis://" + HERE + "?retry_on_error={}",
    "redis://" + HERE + "?credential_provider={}",
    "redis://" + HERE + "?ssl_cert_reqs={}",
    "rediss://" + HERE + "?ssl_cert_reqs={}",
    "rediss://" + HERE + "?ssl_min_version={}",
    "rediss://" + HERE + "?ssl_include_verify_flags={}",
    "unix:///run/none.sock?password={}",
    "unix:///run/none.sock?db={}",
    "unix:///run/none.sock#password={}",
    "unix:///run/none.sock;password={}",
    "unix:///run/none/{}.sock",
    "unix://user:{}@/run/none.sock",
    "unix://:{}/run/none.sock",
    "unix://{}",
    "REDIS://:{}@" + HERE,
    "Redis://{}",
    "http://:{}@" + HERE,
    "http://" + HERE + "?password={}",
    " redis://:{}@" + HERE,
    "redis://:{}@" + HERE + "\n",
    "redis:/:{}@" + HERE,
    "redis//:{}@" + HERE,
    "redis:{}@" + HERE,
    ":{}@redis://" + HERE,
    "{}://" + HERE,
    "{}",
]
# Those that are known for URLs by their looks, wherever they are.
URLS = [form for form in FORMS if "://" in form and not form.startswith((" ", "{"))]
PASSWORD = BEGINNING + "-pa$$w0rd." + END
passwords = st.text("aB0-._~!$&'()*+,;=:@/?#[]% \"\\é€", max_size=8).map(lambda inner: BEGINNING + inner + END)


class Spoken:
    """An object that tells a URL of itself."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __repr__(self) -> str:
        return f"Spoken({self.url})"


class SpokenText(str):  # noqa: SLOT000
    """A string that does."""

    def __repr__(self) -> str:
        return f"SpokenText({self!s})"


WRAPPERS: list[Callable[[str], Any]] = [
    lambda url: url,
    SpokenText,
    str.encode,
    lambda url: bytearray(url.encode()),
    lambda url: [url],
    lambda url: (url,),
    lambda url: {url},
    lambda url: {"url": url},
    lambda url: {"lock_registry": url},
    lambda url: [{"lock_registry": [url]}],
    Path,
    io.StringIO,
    Spoken,
]


def assert_discreet(*texts: str) -> None:
    for text in texts:
        for piece in (BEGINNING, END, "".join(f"%{ord(letter):02x}" for letter in BEGINNING)):
            assert piece.lower() not in text.lower(), text


def texts_of(error: BaseException | None) -> Iterator[str]:
    """Yield all that an exception tells, and all that hangs on it, shown or not."""
    while error is not None:
        yield str(error)
        yield repr(error)
        yield "".join(traceback.format_exception(error))
        yield repr(error.__dict__)
        yield from texts_of(error.__cause__)
        error = error.__context__


def told(action: Callable[[], Any]) -> Any:
    """Run `action`; check what it tells, be it by raising or by what it returns, and return that."""
    try:
        result = action()
    except Exception as error:  # noqa: BLE001 - whatever it is
        assert_discreet(*texts_of(error))
        return error
    assert_discreet(repr(result), str(result), f"{result}")
    if isinstance(result, GuardSettings):
        assert_discreet(repr(result.__rich_repr__()))
    return result


def into_settings(value: Any) -> Iterator[Callable[[], Any]]:
    """Yield the ways by which a value becomes a lock registry."""
    yield lambda: GuardSettings(lock_registry=value)
    yield lambda: GuardSettings(lock_registry=value, wait_max=0.5)
    yield lambda: msgspec.structs.replace(GuardSettings(), lock_registry=value)
    yield lambda: msgspec.convert({"lock_registry": value}, GuardSettings)
    for read in (load_settings, origins):
        yield lambda read=read: read({"lock_registry": value}, env={})
        yield lambda read=read: read({"LOCK_REGISTRY": value}, env={}, wait_max=0.5)
        yield lambda read=read: read(env={}, lock_registry=value)
        yield lambda read=read: read(env={"CRM_GUARD_LOCK_REGISTRY": value})


def into_wrong_places(value: Any) -> Iterator[Callable[[], Any]]:
    """Yield ways by which a value, a URL or something with one in it, comes to stand where it does not belong."""
    for read in (load_settings, origins):
        yield lambda read=read: read(value, env={})
        yield lambda read=read: read({"lock_registri": value}, env={})
        yield lambda read=read: read({"tool": {"crm_guard": {"lock_registry": value}}}, env={})
        yield lambda read=read: read(env={"CRM_GUARD_LOCK_REGISTRI": value})
        yield lambda read=read: read(env={}, lock_registri=value)
    for name in ("attempts", "timeout", "retry_actions", "raise_on", "diagnose", "path_pattern"):
        yield lambda name=name: GuardSettings(**{name: value})
        yield lambda name=name: load_settings({name: value}, env={})
        if isinstance(value, str):
            yield lambda name=name: load_settings(env={f"CRM_GUARD_{name.upper()}": value})
    if isinstance(value, str):
        yield lambda: load_settings({value: 1}, env={})
        yield lambda: load_settings({(value, 1): 1}, env={})
        yield lambda: load_settings(env={f"CRM_GUARD_{value}": "1"})
        yield lambda: load_settings(Path(value), env={})


def tomls(url: str) -> Iterator[str]:
    """Yield settings files that hold a URL, right and wrong."""
    text = json.dumps(url)
    yield f"lock_registry = {text}"
    yield f"lock_registry = [{text}]"
    yield f"lock_registry.url = {text}"
    yield f"lock_registry = {url}"
    yield f"lock_registry = '{url}"
    yield f"{url}"
    yield f"[{url}]"
    yield f"{text} = 1"
    yield f"{text} = 1\n{text} = 2"
    yield f"[{text}]\n[{text}]"
    yield f"a = {{{text} = 1, {text} = 2}}"
    yield f"a = {{{text} = 1}}\na.{text} = 2"
    yield f"tool.crm_guard = {text}"
    yield f"[[tool.crm_guard]]\nlock_registry = {text}"
    yield f"tool.crm_guard.retry_actions = [[{text}]]"
    yield f"lock_registry = {text}\ntimeout = "
    yield f"lock_registri = {text}"


def told_by_a_registry(url: str, *policies: Any) -> None:
    """Check what a registry and adapters tell that are made with a URL, as far as this goes."""
    registry = told(lambda: redis_locks.RedisLockRegistry(url))
    if not isinstance(registry, Exception):
        registry.close()
    for policy in policies:
        adapter = told(lambda policy=policy: GuardAdapter(policy))
        if isinstance(adapter, GuardAdapter):
            redis_locks.shared_registry(url, wake_at_once=adapter.settings.wake_at_once).close()
            adapter.close()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is none must not be looked up; and no setting comes from outside."""

    def getaddrinfo(host: Any, port: Any, *_: Any, **__: Any) -> Any:
        raise socket.gaierror(host, port)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for name in [name for name in os.environ if name.startswith("CRM_GUARD_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _quiet_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG):
        yield
    assert_discreet(caplog.text, repr([record.__dict__ for record in caplog.records]))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings") / "guard.toml"


ANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True)


@ANY
@given(form=st.sampled_from(FORMS), password=passwords, encoded=st.booleans(), wrap=st.sampled_from(WRAPPERS))
@example(form="redis://{}", password=PASSWORD, encoded=False, wrap=WRAPPERS[0])
@example(form="redis://127.0.0.1/0#password={}", password=PASSWORD, encoded=False, wrap=WRAPPERS[0])
def test_no_way_into_the_settings_tells_a_password(
    form: str, password: str, encoded: bool, wrap: Callable[[str], Any]
) -> None:
    value = wrap(form.format(quote(password, safe="") if encoded else password))
    for way in into_settings(value):
        told(way)


@ANY
@given(form=st.sampled_from(URLS), password=passwords, encoded=st.booleans(), wrap=st.sampled_from(WRAPPERS))
@example(form="redis://:{}@" + HERE, password=PASSWORD, encoded=False, wrap=WRAPPERS[0])
@example(form="redis://:{}@" + HERE, password=PASSWORD, encoded=False, wrap=WRAPPERS[7])
@example(form=":{}@redis://" + HERE, password="Zq7/x9K", encoded=False, wrap=WRAPPERS[0])
def test_no_wrong_place_tells_a_password(
    form: str, password: str, encoded: bool, wrap: Callable[[str], Any]
) -> None:
    value = wrap(form.format(quote(password, safe="") if encoded else password))
    for way in into_wrong_places(value):
        told(way)


@settings(ANY, max_examples=20)
@given(form=st.sampled_from(URLS), password=passwords)
@example(form="redis://{}@" + HERE, password=PASSWORD)
def test_no_file_tells_a_password(file: Path, form: str, password: str) -> None:
    for text in tomls(form.format(password)):
        file.write_text(text, encoding="utf-8")
        told(lambda: load_settings(file, env={}))
        told(lambda: origins(str(file), env={}))


@pytest.mark.parametrize("form", FORMS)
def test_no_registry_and_no_adapter_tells_a_password(form: str) -> None:
    """Not as an error, and not in the log of a Redis that cannot be reached."""
    url = form.format(PASSWORD)
    told_by_a_registry(url, {"lock_registry": url}, *[url] * (form in URLS))


@pytest.mark.parametrize("form", FORMS)
def test_no_command_tells_a_password(
    form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    url = form.format(PASSWORD)
    file.write_text(f"lock_registry = {json.dumps(url)}", encoding="utf-8")
    main(["settings", str(file), "--json"])
    if form in URLS:
        main(["settings", url])
        main([url])
    monkeypatch.setenv("CRM_GUARD_LOCK_REGISTRY", url)
    main(["settings"])
    assert_discreet(*capsys.readouterr())


@pytest.mark.parametrize("text", ["timeout = \n", "a = 1\na = 2\n", "a = 2026-13-41\n", "a = " + "[" * 50_000])
def test_an_error_in_a_file_tells_where_and_carries_nothing_of_the_file(file: Path, text: str) -> None:
    file.write_text(f"# {PASSWORD}\n{text}", encoding="utf-8")
    error = told(lambda: load_settings(file, env={}))
    assert str(error).startswith(f"file {file}: is not valid TOML: ")
    assert "[[" in text or "line " in str(error)
    assert (error.__cause__, error.__context__) == (None, None)


def test_a_file_that_is_no_text_is_not_carried_along(file: Path) -> None:
    file.write_bytes(f"a = '{PASSWORD}\xff'".encode("latin-1"))
    error = told(lambda: load_settings(file, env={}))
    assert str(error) == f"file {file}: is not valid TOML: no UTF-8 text"


@pytest.mark.parametrize(
    "path", ["/home/jane@zylker.example/guard.toml", "conf/a@b.toml", "C:\\Users\\a@b\\guard.toml", "guard.toml"]
)
def test_the_path_of_a_file_is_told_though_it_holds_an_at_sign(path: str) -> None:
    assert str(told(lambda: load_settings(path, env={}))).startswith(f"file {path}: cannot be read: ")


def test_a_path_that_is_not_text_is_no_source() -> None:
    class Bytes:
        def __fspath__(self) -> bytes:
            return PASSWORD.encode()

    assert str(told(lambda: load_settings(Bytes(), env={}))) == (  # type: ignore[arg-type]
        "source=<Bytes> must be a mapping, or the path of a TOML file"
    )


class TestWhatRedisCouldNotUseIsRefusedAtOnce:
    @pytest.mark.parametrize(
        ("option", "words"),
        [
            ("db={}", "the option db must be a whole number"),
            ("db=0&db={}", "the option db must be a whole number"),
            ("password={}&protocol={}", "the option protocol must be 2 or 3"),
            ("socket_timeout={}", "the option socket_timeout must be a number of seconds"),
            ("retry_on_timeout={}", "the option retry_on_timeout must be true or false"),
            ("ssl_cert_reqs={}", "the option ssl_cert_reqs must be none, optional or required"),
            ("{}=1", "the query holds an option other than db, username, password, "),
            ("{}", "the query holds an option other than db, username, password, "),
        ],
    )
    def test_an_option_is_named_if_it_is_one(self, option: str, words: str) -> None:
        url = f"rediss://{HERE}?{option.format(PASSWORD, PASSWORD)}"
        assert words in str(told(lambda: GuardSettings(lock_registry=url)))
        assert words in str(told(lambda: redis_locks.RedisLockRegistry(url)))

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("redis://127.0.0.1/{}", "the path is not a database number"),
            ("redis://127.0.0.1/0;password={}", "the path is not a database number"),
            ("redis://127.0.0.1/0#password={}", "nothing may follow a '#'"),
            ("unix:///run/redis.sock#password={}", "nothing may follow a '#'"),
            ("redis://127.0.0.1&password={}", "host or port cannot be read"),
            ("redis://:{}", "host or port cannot be read"),
            ("unix://:1", "the path of the socket is missing"),
            ("unix:///run/redis.sock?socket_keepalive=1", "the query holds an option other than"),
            ("redis://127.0.0.1?ssl_keyfile=/k", "the query holds an option other than"),
        ],
    )
    def test_and_so_is_what_it_would_pass_over(self, url: str, words: str) -> None:
        assert words in str(told(lambda: GuardSettings(lock_registry=url.format(PASSWORD))))

    @pytest.mark.parametrize(
        "url",
        [
            "redis://",
            "redis:///0",
            "redis://cache/",
            "redis://cache:/1/",
            "redis://my_cache-1.example.:6379/15",
            "redis://bücher.example",
            "redis://[fe80::1%25eth0]:6379",
            "redis://:@cache",
            "redis://:p%40ss@w%2Frd@cache",
            "redis://cache?password=a@b&db=2",
            "unix:///run/redis@main.sock?db=1",
            "unix://user:word@/run/redis.sock",
        ],
    )
    def test_but_not_what_works(self, url: str) -> None:
        assert GuardSettings(lock_registry=url).lock_registry == url
        redis.ConnectionPool.from_url(url).make_connection()

    def test_each_option_that_is_allowed_works(self) -> None:
        from crm_guard._base.registry_url import OPTIONS

        values = {"a whole number": "771", "2 or 3": "3", "utf-8": "UTF8", "true or false": "no", "a text": "x"}
        values |= {"a number of seconds": "0.25", "none, optional or required": "optional"}
        for scheme, options in OPTIONS.items():
            place = "/run/redis.sock" if scheme == "unix" else HERE
            for name, kind in options.items():
                for value in (values[kind.allowed], ""):
                    url = f"{scheme}://{place}?{name}={value}"
                    GuardSettings(lock_registry=url)
                    redis_locks._connect(url, 0.1).connection_pool.make_connection()


def test_what_redis_says_of_a_url_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_url(url: str, **_: Any) -> Any:
        raise ValueError(url)

    monkeypatch.setattr(redis.Redis, "from_url", from_url)
    error = told(lambda: redis_locks.RedisLockRegistry(f"redis://:{PASSWORD}@{HERE}"))
    assert isinstance(error, SettingsError)
    assert "ValueError" in str(error)
    assert (error.__cause__, error.__context__) == (None, None)


def test_a_source_that_is_none_is_named_by_its_type() -> None:
    value = [urlsplit(f"redis://:{PASSWORD}@{HERE}")]
    with contextlib.suppress(SettingsError):
        load_settings(value, env={})  # type: ignore[arg-type]
    assert str(told(lambda: load_settings(value, env={}))).startswith("source=<list> must be")  # type: ignore[arg-type]


def test_an_argument_that_belongs_into_the_settings_is_not_shown_if_it_may_be_a_url():
    with pytest.raises(TypeError) as caught:
        GuardAdapter(timeout="redis://:hunter2@cache")
    assert str(caught.value) == 'timeout is a setting: GuardAdapter(settings={"timeout": ...})'
