"""The registry lists the installed strategies, and system checks report invalid providers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from rest_framework import serializers

from providers import apps as provider_apps
from providers.contract import Endpoint, Parameter, SecretField, SessionTokenSettings, Strategy
from providers.dummy.strategy import Dummy
from providers.registry import provider_configs, strategies
from tests.settings import ENVIRONMENT
from tests.support.paths import ROOT
from tests.support.project import copy_project
from tests.support.waiting import PATIENCE


def test_every_folder_of_a_provider_is_in_the_registry() -> None:
    on_disk = {f"providers.{path.parent.name}" for path in (ROOT / "providers").glob("*/apps.py")}
    shipped = {config.name for config in provider_configs() if config.name.startswith("providers.")}
    assert shipped == on_disk
    usable = {config.name for config in provider_configs() if not config.missing_modules}
    slugs = {name.removeprefix("providers.") for name in on_disk & usable}
    assert slugs <= set(strategies()), "a shipped strategy has the name of its folder"


@pytest.mark.timeout(4 * PATIENCE)  # it runs pytest
def test_the_acceptance_suite_tests_a_new_provider_folder(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    parrot = shutil.copytree(project / "providers" / "dummy", project / "providers" / "parrot")
    for file in (parrot / "apps.py", parrot / "strategy.py"):
        file.write_text(file.read_text().replace("providers.dummy", "providers.parrot"))
    strategy = (parrot / "strategy.py").read_text().replace('slug = "dummy"', 'slug = "parrot"')
    (parrot / "strategy.py").write_text(strategy.replace("return Identity(", "return dict("))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n0",
            "tests/providers/test_acceptance.py",
            "-k",
            "garbage and parrot",
        ],
        cwd=project,
        env=os.environ | {"DATABASE_URL": f"sqlite:///{tmp_path / 'x.sqlite3'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * PATIENCE,
    )
    assert done.returncode == 1, done.stdout
    assert "test_garbage_causes_no_unexpected_exception_and_no_query[0-parrot]" in done.stdout


# The modules of `providers` that a provider may import in addition to its own.
TOOLS = {"contract", "apps", "claims", "jose", "jwks", "documents", "upstream", "strict_json"}


def test_a_provider_imports_only_the_contract_and_its_tools() -> None:
    import ast

    for path in (ROOT / "providers").glob("*/*.py"):
        folder = path.parent.name
        if folder in TOOLS:
            continue
        imported = {
            node.module
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module
        }
        ours = {module for module in imported if module.split(".")[0] in {"ags", "tenants", "providers"}}
        assert {tuple(module.split(".")[:2]) for module in ours} <= {
            ("providers", name) for name in {*TOOLS, folder}
        }
        assert not {module for module in imported if module.startswith(("django.db", "django.http"))}


def manage(tmp_path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run manage.py with the settings of a server."""
    return subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), *words],
        env=os.environ
        | ENVIRONMENT
        | {"DJANGO_SETTINGS_MODULE": "ags.settings", "PYTHONPATH": str(tmp_path)}
        | {"DATABASE_URL": f"sqlite:///{tmp_path / 'x.sqlite3'}"}
        | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def package(tmp_path: Path, apps: str, strategy: str = "") -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "apps.py").write_text(apps)
    (folder / "strategy.py").write_text(strategy)


APPS = """
from providers.apps import ProviderConfig
class ForeignConfig(ProviderConfig):
    default = True
    contract = 2
    name = "foreign"
    strategy = "foreign.strategy.Foreign"
"""


def test_an_import_error_of_a_provider_stops_start_up(tmp_path: Path) -> None:
    package(tmp_path, APPS, "import a_library_that_is_not_there")
    done = manage(tmp_path, "check", AGS_PROVIDERS="foreign")
    assert done.returncode != 0
    assert "No module named 'a_library_that_is_not_there'" in done.stderr


OTHERS = {
    "    contract = 0\n": "version 0",
    "    contract = 3\n": "version 3",
    "": "version None",
}


@pytest.mark.parametrize(("made_for", "version"), OTHERS.items(), ids=OTHERS.values())
def test_a_provider_for_another_contract_version_stops_start_up_before_it_is_imported(
    tmp_path: Path, made_for: str, version: str
) -> None:
    package(tmp_path, APPS.replace("    contract = 2\n", made_for), "import a_library_that_is_not_there")
    done = manage(tmp_path, "check", AGS_PROVIDERS="foreign")
    assert done.returncode != 0
    assert f"The provider foreign is made for {version} of the provider contract" in done.stderr
    assert "a_library_that_is_not_there" not in done.stderr


def test_a_provider_with_a_missing_module_is_not_loaded(tmp_path: Path) -> None:
    lacking = '    requires = {"a_library_that_is_not_there": "Install it."}\n'
    package(tmp_path, APPS + lacking, "import a_library_that_is_not_there")
    done = manage(tmp_path, "check", AGS_PROVIDERS="providers.operator_token,foreign", DEBUG="off")
    assert done.returncode == 0, done.stderr
    assert "foreign lacks the module a_library_that_is_not_there" in done.stderr
    assert "Install it." in done.stderr
    assert "providers.W001" in done.stderr


def test_a_missing_default_is_reported(tmp_path: Path) -> None:
    package(tmp_path, APPS.replace("    default = True\n", ""))
    done = manage(tmp_path, "check", AGS_PROVIDERS="foreign")
    assert done.returncode == 1
    assert "providers.E001" in done.stderr


def test_an_app_that_is_not_a_provider_is_reported(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", AGS_PROVIDERS="django.contrib.humanize")
    assert done.returncode == 1
    assert "providers.E001" in done.stderr
    assert "django.contrib.humanize" in done.stderr


def test_the_dummy_requires_debug(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", AGS_PROVIDERS="providers.dummy", DEBUG="off")
    assert done.returncode == 1
    assert "providers.E008" in done.stderr
    assert manage(tmp_path, "check", AGS_PROVIDERS="providers.dummy", DEBUG="on").returncode == 0


class Plain(serializers.Serializer[Any]):
    Account = serializers.CharField()


class TwoSpellings(serializers.Serializer[Any]):
    Account = Parameter(description="x")
    account = Parameter(description="x")


class Empty(serializers.Serializer[Any]):
    pass


def strategy(**changes: Any) -> type[Strategy]:
    class Fine(Dummy):
        slug = "fine"
        endpoints = (Endpoint.GET_SESSION_TOKEN,)  # type: ignore[assignment]
        Settings = SessionTokenSettings  # type: ignore[assignment]

    for name, value in changes.items():
        setattr(Fine, name, value)
    return Fine


class UnknownDestination(SessionTokenSettings):
    secret = SecretField(destination_settings=("adress",))


class ItsOwnDestination(SessionTokenSettings):
    secret = SecretField(destination_settings=("session_token_ttl", "secret"))


BROKEN = {
    "providers.E002": strategy(slug="operator_token"),
    "providers.E003": strategy(slug="Not A Slug"),
    "providers.E004": strategy(endpoints=()),
    "providers.E005 plain": strategy(Parameters=Plain),
    "providers.E005 spellings": strategy(Parameters=TwoSpellings),
    "providers.E005 empty": strategy(Parameters=Empty),
    "providers.E006": strategy(Settings=Plain),
    "providers.E007": strategy(verify=Strategy.verify),
    "providers.E009 unknown": strategy(Settings=UnknownDestination),
    "providers.E009 itself": strategy(Settings=ItsOwnDestination),
}


def problems() -> list[CheckMessage]:
    """Return the messages of the checks, without those for modules that are not installed on this machine."""
    return [found for found in run_checks(tags=["providers"]) if found.id != "providers.W001"]


def test_a_secret_must_name_the_settings_of_its_destination() -> None:
    with pytest.raises(TypeError, match="destination_settings"):
        SecretField()  # type: ignore[call-arg]


@pytest.mark.parametrize("ident", BROKEN)
def test_a_violation_of_the_contract_is_reported(
    ident: str, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.DEBUG = True  # the dummy is installed
    (config,) = [config for config in provider_configs() if config.name == "providers.dummy"]
    assert isinstance(config, provider_apps.ProviderConfig)
    monkeypatch.setattr(config, "instance", BROKEN[ident]())
    assert [problem.id for problem in problems()] == [ident[:14]]


def test_the_installed_providers_have_no_violations(settings: Any) -> None:
    settings.DEBUG = True  # the dummy is installed
    assert problems() == []


def test_a_strategy_without_verify_raises_type_error() -> None:
    from providers.contract import KeyRing

    with pytest.raises(TypeError, match="Forgetful does not implement verify"):
        type("Forgetful", (Strategy,), {})().verify({}, {}, KeyRing("nagra", {}))
