"""A provider in a distribution of its own: built, installed, and offered by one entry in AGS_PROVIDERS."""

from __future__ import annotations

import hashlib
import hmac
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.project import Shell, run_command
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.timeout(15 * PATIENCE)

PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
SECRET = "a secret of the operator, 34 bytes"


def written(folder: Path, *options: str) -> Path:
    """A package as startprovider writes it."""
    manage = [sys.executable, "manage.py", "startprovider", "coupon", *options, "--package", str(folder)]
    run_command(ROOT, *manage, DJANGO_SETTINGS_MODULE="tests.settings")
    return folder


def installed(source: Path, folder: Path) -> Path:
    """Build a wheel of it and install that, from nothing but what is here. Return where it is then."""
    wheels, site = folder / "wheels", folder / "site"
    alone = ["--no-deps", "--no-index"]
    run_command(folder, *PIP, "wheel", *alone, "--no-build-isolation", f"--wheel-dir={wheels}", str(source))
    (wheel,) = wheels.iterdir()
    assert wheel.name == "ags_provider_coupon-0.1.0-py3-none-any.whl"
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == {f"coupon/{file}.py" for file in ("__init__", "apps", "strategy")}
    run_command(folder, *PIP, "install", *alone, f"--target={site}", str(wheel))
    return site


TENANT: dict[str, Any] = {
    "id": "nagra",
    "name": "Nagra",
    "services": [{"name": "Coupons", "strategy": "coupon", "display_name": "Coupon", "enabled": True}],
    "keys": [{"kid": "coupon", "state": "active", "secret": {"text": SECRET}}],
}


def test_it_is_offered_by_one_entry_in_the_environment(tmp_path: Path, port: int) -> None:
    site = installed(written(tmp_path / "source"), tmp_path)
    (tmp_path / "tenant.yaml").write_text(yaml.safe_dump({"tenants": [TENANT]}))
    shell = Shell(ROOT, tmp_path, port)
    shell.run(f"export PYTHONPATH={site}")
    shell.run("export AGS_PROVIDERS=providers.operator_token,coupon")
    for words in ("check", "makemigrations --check", "migrate", f"apply {tmp_path / 'tenant.yaml'}"):
        shell.run(f".venv/bin/python manage.py {words}")
    with shell.run_server():
        (service,) = shell.request("/ags/servicediscovery", "Coupons")["availableServices"]
        assert service["authServiceName"] == "Coupons"
        assert [endpoint["name"] for endpoint in service["endpoints"]] == [
            "GET_SESSION_TOKEN",
            "SIGNON_WITH_SESSION_TOKEN",
            "SIGNOUT",
        ]
        code = hmac.new(SECRET.encode(), b"account-1", hashlib.sha256).hexdigest()
        assert "sessionToken" in shell.request(
            "/ags/getSessionToken", "Coupons", Account="account-1", Code=code
        )
        refused = shell.request("/ags/getSessionToken", "Coupons", Account="account-2", Code=code)
        assert refused["reason"] == "not_authenticated"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="code"),
        pytest.param(["--upstream"], id="upstream", marks=pytest.mark.full),
    ],
)
def test_it_is_held_to_what_every_provider_must_keep(tmp_path: Path, options: list[str]) -> None:
    source = written(tmp_path / "source", *options)
    its_own = {"PYTHONPATH": str(source), "AGS_PROVIDERS": "coupon"}
    its_own["DATABASE_URL"] = f"sqlite:///{tmp_path / 'x.sqlite3'}"
    pytest_here = [sys.executable, "-m", "pytest", "-n0", "-vv"]
    said = run_command(ROOT, *pytest_here, "tests/providers/test_acceptance.py", "-k", "coupon", **its_own)
    assert "::test_declarations_are_complete[coupon] PASSED" in said
    met = "::test_an_unusable_upstream_yields_no_identity[coupon: answers a redirect] PASSED"
    assert (met in said) == ("--upstream" in options)
    said = run_command(ROOT, *pytest_here, "-c", "pyproject.toml", str(source / "tests"), **its_own)
    assert "test_coupon.py::" in said
    run_command(source, sys.executable, "-m", "ruff", "check", "--no-cache", ".")


def test_the_readme_of_the_package_says_what_to_do(tmp_path: Path) -> None:
    told = (written(tmp_path / "source") / "README.md").read_text()
    assert "$ export AGS_PROVIDERS=providers.operator_token,coupon\n" in told
    assert "$$" not in told, "nothing of the template is left"
