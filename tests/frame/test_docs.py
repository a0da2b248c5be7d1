"""The documents say what is: links lead somewhere, commands and files exist, the guide works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ags.api.errors import REGISTRY
from tests.settings import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def _heading_to_anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            assert anchor in map(_heading_to_anchor, headings), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_file_that_is_named_exists(page: Path) -> None:
    from django.core.management import get_commands

    text = page.read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"`make ([a-z]+)", text) + re.findall(r"^\$ make ([a-z]+)", text, re.MULTILINE):
        assert target in targets, f"make {target}"
    for command in re.findall(r"manage\.py ([a-z_]+)", text):
        assert command in get_commands(), f"manage.py {command}"
    for named in re.findall(
        r"`((?:ags|providers|tenants|tests|docker|examples|docs|requirements)/[\w./-]+)`", text
    ):
        if "*" not in named:
            assert (ROOT / named).exists(), named


def test_every_variable_that_is_named_is_in_the_example_environment() -> None:
    known = set(re.findall(r"^#? ?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    for page in PAGES:
        if page.name == "0007-later.md":  # it names what is not there
            continue
        named = set(re.findall(r"\b(AGS_[A-Z0-9_]+|DATABASE_URL|SECRET_KEY|DEBUG)\b", page.read_text()))
        assert {name.removesuffix("_FILE") for name in named} - known == set(), page.name


def test_the_table_of_errors_is_the_registry() -> None:
    from docs.errors import PAGE, page

    assert page() == PAGE.read_text(encoding="utf-8"), "run make openapi"
    for error in REGISTRY:
        assert f"| {error.status.value} | {error.code} | `{error.reason}` |" in page()


def test_every_proof_that_a_call_wants_is_described() -> None:
    document = json.loads((ROOT / "openapi.json").read_text())
    wanted = {
        f"{method} {path}": [name for way in call.get("security", []) for name in way]
        for path, methods in document["paths"].items()
        for method, call in methods.items()
    }
    assert {call: names for call, names in wanted.items() if names} == {
        "post /ags/signOut": ["accessToken"],
        "post /ias/v3/token/actions/refresh": ["refreshToken"],
        "post /oauth/introspect": ["resourceServer"],
        "post /oauth/revoke": ["resourceServer"],
    }
    described = document["components"]["securitySchemes"]
    assert {name: scheme["scheme"] for name, scheme in described.items()} == {
        "accessToken": "bearer",
        "refreshToken": "bearer",
        "resourceServer": "basic",
    }


def test_the_guide_to_adding_a_provider_builds_one_that_works(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "adding-a-provider.md").read_text()
    files = re.findall(r'```python title="([\w/.]+)"\n(.+?)```', guide, re.DOTALL)
    assert [name for name, _ in files] == ["voucher/apps.py", "voucher/strategy.py"]
    (tmp_path / "voucher").mkdir()
    (tmp_path / "voucher" / "__init__.py").touch()
    for name, code in files:
        (tmp_path / name).write_text(code)
    environment = (
        os.environ
        | ENVIRONMENT
        | {
            "AGS_PROVIDERS": "providers.operator_token,voucher",
            "DATABASE_URL": f"sqlite:///{tmp_path / 'guide.sqlite3'}",
            "DJANGO_SETTINGS_MODULE": "ags.settings",
            "PYTHONPATH": str(tmp_path),
            "DEBUG": "off",
        }
    )
    manage = [sys.executable, str(ROOT / "manage.py")]
    for words in (["check"], ["migrate", "--verbosity=0"]):
        subprocess.run([*manage, *words], env=environment, check=True, capture_output=True, timeout=60)
    done = subprocess.run(
        [*manage, "shell", "--no-imports", "--command", USE_THE_VOUCHER],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["200", "401", "401"], done.stderr[-2000:]
    (last_step,) = re.findall(r"^\$ \.venv/bin/python -m (pytest .+)$", guide, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", *last_step.split(), "-vv"],
        cwd=ROOT,
        env=environment | {"DJANGO_SETTINGS_MODULE": "tests.settings"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "::test_it_declares_what_it_is[voucher] PASSED" in done.stdout


USE_THE_VOUCHER = """
import hashlib, hmac, json
from django.test import Client
from tenants.models import Key, Service, Tenant
tenant = Tenant(id="nagra", name="Nagra"); tenant.save()
Service(tenant=tenant, name="V", strategy="voucher", display_name="Voucher", enabled=True).save()
secret = bytes(range(32))
key = Key(tenant=tenant, kid="vouchers", state="active"); key.set_secret(secret); key.save()
code = hmac.new(secret, b"account-1", hashlib.sha256).hexdigest()
def ask(code):
    body = {"parameters": [{"name": "account", "value": "account-1"}, {"name": "code", "value": code}]}
    headers = {"nv-tenant-id": "nagra", "x-auth-service-id": "V", "host": "localhost"}
    answer = Client().post("/ags/getSessionToken", json.dumps(body), "application/json", headers=headers)
    print(answer.status_code)
ask(code); ask(code); ask("0" * 64)
"""
