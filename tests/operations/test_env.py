"""Environment variables: documentation, valid and invalid values."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured

from ags import env
from tests.support.configuration import (
    REQUIRED_VARIABLES,
    example_variables,
    run_manage_with,
    variables_in_the_example,
)
from tests.support.paths import ROOT


def test_settings_for_demonstrations_are_warned_about(tmp_path: Path) -> None:
    sqlite = {**REQUIRED_VARIABLES, "DATABASE_URL": f"sqlite:///{tmp_path / 'x.sqlite3'}"}
    done = run_manage_with("check", "--deploy", **sqlite)
    assert {"operations.W001", "operations.W002"} <= set(re.findall(r"operations\.W\d+", done.stderr))


SAMPLE_SECRET = "a-secret-that-must-not-be-repeated"
INVALID = {
    "SECRET_KEY missing": ("SECRET_KEY", ""),
    "SECRET_KEY short": ("SECRET_KEY", SAMPLE_SECRET),
    "SECRET_KEY of one letter": ("SECRET_KEY", "a" * 60),
    "AGS_ENCRYPTION_KEYS missing": ("AGS_ENCRYPTION_KEYS", ""),
    "AGS_ENCRYPTION_KEYS no base64": ("AGS_ENCRYPTION_KEYS", SAMPLE_SECRET),
    "AGS_ENCRYPTION_KEYS short": ("AGS_ENCRYPTION_KEYS", "YWJj"),
    "AGS_ENCRYPTION_KEYS of zeros": ("AGS_ENCRYPTION_KEYS", "A" * 43 + "="),
    "AGS_ENCRYPTION_KEYS second is bad": (
        "AGS_ENCRYPTION_KEYS",
        f"{REQUIRED_VARIABLES['AGS_ENCRYPTION_KEYS']},x",
    ),
    "AGS_ENCRYPTION_KEYS twice": (
        "AGS_ENCRYPTION_KEYS",
        ",".join([REQUIRED_VARIABLES["AGS_ENCRYPTION_KEYS"]] * 2),
    ),
    "AGS_ENCRYPTION_KEYS only a comma": ("AGS_ENCRYPTION_KEYS", ","),
    "DATABASE_URL missing": ("DATABASE_URL", ""),
    "DATABASE_URL of another kind": ("DATABASE_URL", f"mysql://a:{SAMPLE_SECRET}@b/c"),
    "DATABASE_URL no URL": ("DATABASE_URL", SAMPLE_SECRET),
    "DATABASE_URL with a bad port": ("DATABASE_URL", f"postgres://a:{SAMPLE_SECRET}@b:port/c"),
    "DATABASE_URL with signs that are not escaped": (
        "DATABASE_URL",
        f"postgres://user:pa%ss{SAMPLE_SECRET}@host:notaport/x",
    ),
    "DATABASE_URL without a database": ("DATABASE_URL", f"postgres://a:{SAMPLE_SECRET}@b:5432"),
    "DATABASE_URL of SQLite with a host": ("DATABASE_URL", f"sqlite://{SAMPLE_SECRET}/x.sqlite3"),
    "AGS_DATABASE_POOLER": ("AGS_DATABASE_POOLER", "session"),
    "AGS_PROVIDERS no module": ("AGS_PROVIDERS", "providers.nothing"),
    "AGS_PROVIDERS no module inside a package": ("AGS_PROVIDERS", "no.such.app"),
    "AGS_PROVIDERS no module of a class": ("AGS_PROVIDERS", "providers.nothing.apps.Config"),
    "AGS_PROVIDERS not a path": ("AGS_PROVIDERS", "../x"),
    "AGS_PROVIDERS twice": ("AGS_PROVIDERS", "providers.operator_token,providers.operator_token"),
    "AGS_PROVIDERS only a comma": ("AGS_PROVIDERS", ","),
    "AGS_REDIS_URL no URL": ("AGS_REDIS_URL", SAMPLE_SECRET),
    "AGS_REDIS_URL of another kind": ("AGS_REDIS_URL", f"http://:{SAMPLE_SECRET}@host"),
    "AGS_REDIS_URL without a host": ("AGS_REDIS_URL", f"redis://:{SAMPLE_SECRET}@"),
    "AGS_REDIS_URL with a bad port": ("AGS_REDIS_URL", f"redis://:{SAMPLE_SECRET}@host:port"),
    "AGS_REDIS_URL with signs that are not escaped": ("AGS_REDIS_URL", f"redis://:a#/{SAMPLE_SECRET}@host"),
    "AGS_REDIS_URL with a name of a database": ("AGS_REDIS_URL", f"redis://:{SAMPLE_SECRET}@host/name"),
    "AGS_REDIS_URL with another option": ("AGS_REDIS_URL", f"redis://host?password={SAMPLE_SECRET}"),
    "AGS_REDIS_URL without a path": ("AGS_REDIS_URL", "unix://path"),
    "AGS_DEFAULT_TENANT with a space": ("AGS_DEFAULT_TENANT", "na gra"),
    "AGS_ADMIN": ("AGS_ADMIN", "maybe"),
    "AGS_BIND without a port": ("AGS_BIND", "127.0.0.1"),
    "AGS_BIND with a port too high": ("AGS_BIND", "127.0.0.1:99999"),
    "AGS_BIND only a port": ("AGS_BIND", ":8000"),
    "AGS_BIND a URL": ("AGS_BIND", "http://127.0.0.1:8000"),
    "AGS_WORKERS none": ("AGS_WORKERS", "0"),
    "AGS_WORKERS many": ("AGS_WORKERS", "100000"),
    "AGS_WORKERS no number": ("AGS_WORKERS", "two"),
    "AGS_DRAIN_SECONDS many": ("AGS_DRAIN_SECONDS", "301"),
    "AGS_DRAIN_SECONDS no number": ("AGS_DRAIN_SECONDS", "1.5"),
    "AGS_TRUSTED_PROXIES negative": ("AGS_TRUSTED_PROXIES", "-1"),
    "AGS_LOG_LEVEL": ("AGS_LOG_LEVEL", "LOUD"),
    "AGS_TRUSTED_PROXIES no number": ("AGS_TRUSTED_PROXIES", "one"),
    "AGS_ALLOWED_HOSTS wildcard": ("AGS_ALLOWED_HOSTS", "*"),
    "AGS_ALLOWED_HOSTS with a port": ("AGS_ALLOWED_HOSTS", "ags.example:443"),
    "AGS_ALLOWED_HOSTS a URL": ("AGS_ALLOWED_HOSTS", "https://ags.example/"),
    "AGS_ALLOWED_HOSTS with a blank": ("AGS_ALLOWED_HOSTS", "ags.example other.example"),
    "AGS_ALLOWED_HOSTS only a comma": ("AGS_ALLOWED_HOSTS", ","),
    "AGS_PRIVATE_UPSTREAMS with bits of a host": ("AGS_PRIVATE_UPSTREAMS", "10.1.0.0/16, 10.2.0.1/16"),
    "DEBUG": ("DEBUG", "perhaps"),
}


def test_database_url_with_several_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "DATABASE_URL", "postgres://ags:x@one:5432,two:5433/ags?target_session_attrs=read-write"
    )
    found = env.env_database()
    assert (found["HOST"], found["PORT"]) == ("one,two", "5432,5433")
    assert found["OPTIONS"]["target_session_attrs"] == "read-write"
    monkeypatch.setenv("DATABASE_URL", "postgres://ags:x@one,two:5432,5433/ags")
    with pytest.raises(ImproperlyConfigured):
        env.env_database()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host", "redis://host"),
        ("redis://user:p%40ss@host:6380/15", "redis://user:p%40ss@host:6380/15"),
        ("rediss://[::1]?ssl_ca_certs=/etc/ca.pem", "rediss://[::1]?ssl_ca_certs=/etc/ca.pem"),
        ("valkey://host/1", "redis://host/1"),
        ("valkeys://host", "rediss://host"),
        ("unix:///run/redis.sock?db=3", "unix:///run/redis.sock?db=3"),
        ("", ""),
    ],
)
def test_redis_url(monkeypatch: pytest.MonkeyPatch, url: str, expected: str) -> None:
    monkeypatch.setenv("AGS_REDIS_URL", url)
    assert env.env_redis() == expected


def test_pooled_database_uses_no_connection_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", REQUIRED_VARIABLES["DATABASE_URL"])
    assert env.env_database()["OPTIONS"]["prepare_threshold"] == 5
    found = env.env_database(pooled=True)
    assert found["OPTIONS"]["prepare_threshold"] is None
    assert found["DISABLE_SERVER_SIDE_CURSORS"] is True


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            f"{REQUIRED_VARIABLES['DATABASE_URL']}?options=-c%20work_mem=1MB",
            "DATABASE_URL: options does not work behind a pooler",
        ),
        (
            f"{REQUIRED_VARIABLES['DATABASE_URL']}?assume_role=x",
            "DATABASE_URL: assume_role does not work behind a pooler",
        ),
        ("sqlite:////x", "AGS_DATABASE_POOLER: SQLite does not support a pooler"),
    ],
)
def test_options_that_need_connection_state_are_rejected_behind_a_pooler(
    monkeypatch: pytest.MonkeyPatch, url: str, message: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    env.env_database()
    with pytest.raises(ImproperlyConfigured, match=message):
        env.env_database(pooled=True)


@pytest.mark.parametrize(("name", "value"), INVALID.values(), ids=INVALID)
def test_invalid_value_prevents_start_up_with_one_line(name: str, value: str) -> None:
    done = run_manage_with("serve", **(REQUIRED_VARIABLES | {name: value}))
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"AGS cannot start: {name}: ")
    assert SAMPLE_SECRET not in line


@pytest.mark.parametrize("command", ["check", "migrate", "purge"])
def test_invalid_value_prevents_commands(command: str) -> None:
    done = run_manage_with(command, **(REQUIRED_VARIABLES | {"AGS_WORKERS": "many"}))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("AGS cannot start: AGS_WORKERS: ")


@pytest.mark.parametrize(
    ("spellings", "value"),
    [
        (["", "on", "On", "1", "true", "YES"], "on"),
        (["off", "OFF", "0", "False", "no"], "off"),
        (["only", "Only"], "only"),
    ],
)
def test_values_of_ags_admin(monkeypatch: pytest.MonkeyPatch, spellings: list[str], value: str) -> None:
    for spelling in spellings:
        monkeypatch.setenv("AGS_ADMIN", spelling)
        assert runpy.run_path(str(ROOT / "ags/settings.py"))["AGS_ADMIN"] == value, spelling


@pytest.mark.parametrize("value", ["maybe", "on,only", "only off", "2"])
def test_invalid_ags_admin_lists_the_values(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("AGS_ADMIN", value)
    with pytest.raises(ImproperlyConfigured, match=f"^AGS_ADMIN: '{value}' is not one of on, off, only[.]$"):
        runpy.run_path(str(ROOT / "ags/settings.py"))


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(f"\ufeff{REQUIRED_VARIABLES['DATABASE_URL']}\r\n\r\n")
    changed = {
        name: f"\ufeff{value}\n" for name, value in REQUIRED_VARIABLES.items() if name != "DATABASE_URL"
    }
    assert run_manage_with("check", **changed, DATABASE_URL_FILE=str(path)).returncode == 0


@pytest.mark.parametrize("name", ["SECRET_KEY", "AGS_ENCRYPTION_KEYS", "DATABASE_URL"])
def test_secret_from_a_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(REQUIRED_VARIABLES[name] + "\n")
    others = {other: value for other, value in REQUIRED_VARIABLES.items() if other != name}
    assert run_manage_with("check", **others, **{f"{name}_FILE": str(path)}).returncode == 0

    both = run_manage_with("check", **REQUIRED_VARIABLES, **{f"{name}_FILE": str(path)})
    assert both.stderr == f"AGS cannot start: {name}: set {name} or {name}_FILE, not both.\n"

    gone = run_manage_with("check", **others, **{f"{name}_FILE": str(tmp_path / "gone")})
    assert gone.returncode == 1
    assert gone.stderr.splitlines() == [
        f"AGS cannot start: {name}_FILE: cannot read {tmp_path / 'gone'}: No such file or directory."
    ]

    empty = tmp_path / "empty"
    empty.touch()
    done = run_manage_with("check", **others, **{f"{name}_FILE": str(empty)})
    assert (done.returncode, done.stderr) == (
        1,
        f"AGS cannot start: {name}: missing. See .env.example.\n",
    )


def test_undecodable_secret_is_not_printed(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SAMPLE_SECRET.encode() + b"\xff")
    others = {name: value for name, value in REQUIRED_VARIABLES.items() if name != "SECRET_KEY"}
    done = run_manage_with("check", **others, SECRET_KEY_FILE=str(path))
    assert (done.returncode, done.stderr) == (
        1,
        f"AGS cannot start: SECRET_KEY_FILE: cannot read {path}: not UTF-8 text.\n",
    )


def test_empty_variable_is_unset() -> None:
    optional = dict.fromkeys(variables_in_the_example() - REQUIRED_VARIABLES.keys(), "")
    done = run_manage_with("check", "--deploy", **REQUIRED_VARIABLES, **optional)
    assert (done.returncode, set(re.findall(r"operations\.W\d+", done.stderr))) == (0, {"operations.W002"})


VALID_VALUES: list[dict[str, str]] = [
    {
        "AGS_PROVIDERS": "providers.operator_token.apps.OperatorTokenConfig",
        "AGS_ALLOWED_HOSTS": " ags.example , [::1] , .example ",
        "AGS_PRIVATE_UPSTREAMS": " 10.1.0.0/16 ,, fd00::/8 ",
        "AGS_BIND": "[::1]:8000",
        "DATABASE_URL": "postgresql://ags:@/ags?host=/run/postgresql",
        "DEBUG": "Off",
        "AGS_LOG_LEVEL": "warning",
    },
    {
        "AGS_PRIVATE_UPSTREAMS": ",",
        "AGS_BIND": "unix:/run/ags/ags.sock",
        "DATABASE_URL": "postgres://ags:%40%2F%3A%25@127.0.0.1:1/ags",
    },
]


@pytest.mark.parametrize("values", VALID_VALUES)
def test_valid_values(values: dict[str, str]) -> None:
    done = run_manage_with("check", **(REQUIRED_VARIABLES | values))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["apply examples/demo.yaml", "export", "reseal", "purge"])
def test_unavailable_database_is_one_line(command: str) -> None:
    done = run_manage_with(*command.split(), **REQUIRED_VARIABLES)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Database error: connection ")
    assert "pa55word" not in line


def test_unmigrated_database_is_one_line(tmp_path: Path) -> None:
    done = run_manage_with(
        "export", **REQUIRED_VARIABLES | {"DATABASE_URL": f"sqlite:///{tmp_path / 'x.sqlite3'}"}
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Database error: no such table: tenants_tenant\n"


def get_unknown_variables(command: str, tmp_path: Path, **variables: str) -> dict[str, str]:
    """Return the unknown variables that the command reports, with hints. It must not print their values."""
    database = {"DATABASE_URL": f"sqlite:///{tmp_path / 'x.sqlite3'}"}
    done = run_manage_with(*command.split(), **{**REQUIRED_VARIABLES, **database, **variables})
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert SAMPLE_SECRET not in output
    return dict(
        re.findall(r"\(operations\.W005\) (\w+) is set, but AGS has no such setting\.\n\tHINT: (.*)", output)
    )


IF_SECRET = "If it is a secret for `apply`, begin its name with AGS_SECRET_."
UNKNOWN = {
    "AGS_TRUSTED_PROXY": f"Did you mean AGS_TRUSTED_PROXIES? {IF_SECRET}",
    "AGS_BIND_FILE": f"Did you mean AGS_BIND? {IF_SECRET}",  # only secrets have _FILE variants
    "AGS_NAGRA_PASSWORD": IF_SECRET,
}


@pytest.mark.parametrize("command", ["check", "migrate --plan"])
def test_unknown_variable_is_reported_with_a_suggestion(tmp_path: Path, command: str) -> None:
    assert get_unknown_variables(command, tmp_path, **dict.fromkeys(UNKNOWN, SAMPLE_SECRET)) == UNKNOWN


def test_removed_variable_is_reported_with_its_replacement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(env.REMOVED, "AGS_STRATEGIES", "AGS_PROVIDERS")
    monkeypatch.setenv("AGS_STRATEGIES", SAMPLE_SECRET)
    (message,) = (found for found in run_checks() if found.id == "operations.W005")
    assert message.hint == "Set AGS_PROVIDERS instead."
    assert message.msg == "AGS_STRATEGIES is set, but AGS has no such setting."


def test_removed_variables_are_not_settings() -> None:
    assert variables_in_the_example().isdisjoint(env.REMOVED)
    assert variables_in_the_example() >= {name.removesuffix("_FILE") for name in env.REMOVED.values()}


def test_known_and_foreign_variables_are_not_reported(tmp_path: Path) -> None:
    settings = example_variables(
        SECRET_KEY=REQUIRED_VARIABLES["SECRET_KEY"], DATABASE_URL=f"sqlite:///{tmp_path / 'x.sqlite3'}"
    )
    keys = tmp_path / "keys"
    keys.write_text(REQUIRED_VARIABLES["AGS_ENCRYPTION_KEYS"])
    settings |= {"AGS_ENCRYPTION_KEYS": "", "AGS_ENCRYPTION_KEYS_FILE": str(keys)}
    secrets = {"AGS_SECRET__NAGRA__KEY": "x", "AGS_SECRET_OF_NAGRA": "x"}
    tests = {"AGS_TEST_CHROMIUM": "x"}
    kubernetes = {
        f"AGS_{name}": "x"
        for name in (
            *("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "DB_SERVICE_HOST"),
            *("PORT", "PORT_8000_TCP", "PORT_8000_TCP_PROTO", "PORT_8000_TCP_PORT", "PORT_8000_TCP_ADDR"),
        )
    }
    done = run_manage_with("check", **settings, **secrets, **tests, **kubernetes)
    assert (done.returncode, done.stderr) == (0, "")
