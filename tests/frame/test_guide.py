"""The guide to adding a provider, followed to the letter in a copy of the project."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.project import SERVE, Shell, copy_project, hash_python_files, run_command
from tests.support.waiting import PATIENCE

GUIDE = (ROOT / "docs" / "adding-a-provider.md").read_text()
BLOCK = re.compile(r"^(?:\*([\w/.]+)\*:\n\n)?```(\w+)\n(.+?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = BLOCK.findall(GUIDE)
FILES = {title: text for title, _, text in BLOCKS if title and "line" not in title}
COMMANDS = [
    command.strip()
    for _, language, text in BLOCKS
    if language == "console"
    for command in re.split(r"^\$ ", text, flags=re.MULTILINE)
    if command
]


@pytest.mark.full
@pytest.mark.timeout(15 * PATIENCE)  # mypy reads Django anew
def test_a_provider_is_written_from_the_guide_alone(tmp_path: Path, port: int) -> None:
    project = copy_project(tmp_path / "project")
    shell = Shell(project, tmp_path, port)
    before = hash_python_files(project)

    start, commands = COMMANDS[:2], COMMANDS[2:]
    offering = commands.index("unset DJANGO_SETTINGS_MODULE")
    for command in start:
        shell.run(command)
    # As it is written, it works.
    as_written = shell.run(commands[offering - 2])
    assert " passed" in as_written
    for path, text in FILES.items():
        assert (project / path).exists() == path.endswith(".py"), f"startprovider begins {path}"
        (project / path).write_text(text)
    for command in commands[:offering]:
        said = shell.run(command)
        assert "pytest" not in command or " passed" in said
    assert {path: (project / path).read_text() for path in FILES} == FILES, "it is formatted already"

    serving = commands.index(SERVE)
    output = [shell.run(command) for command in commands[offering:serving]]
    assert "System check identified no issues (0 silenced).\n" in output
    assert "No changes detected\n" in output, "no migration is needed"
    after = hash_python_files(project)
    assert {path: digest for path, digest in after.items() if path in before} == before
    assert sorted(after.keys() - before.keys()) == [
        "providers/voucher/__init__.py",
        "providers/voucher/apps.py",
        "providers/voucher/strategy.py",
        "tests/providers/test_voucher.py",
    ]
    with shell.run_server():
        discover, get_session_token, sign_on = commands[serving + 1 :]
        listed = assert_it_is_discovered(json.loads(shell.run(discover)))
        session_token = json.loads(shell.run(get_session_token))["sessionToken"]
        assert json.loads(shell.run(get_session_token))["reason"] == "replayed"
        assert_the_session_token_signs_on(shell, session_token)
        assert "SIGNON" in listed
        assert json.loads(shell.run(sign_on))["accountId"] == "account-2"
        assert json.loads(shell.run(sign_on))["reason"] == "replayed"
    run_command(
        project, sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", f"--site-dir={tmp_path}/site"
    )


def assert_it_is_discovered(answer: Any) -> list[str]:
    (service,) = answer["availableServices"]
    assert service["authServiceName"] == "Vouchers"
    told = {endpoint["name"]: endpoint["parameterProperties"] for endpoint in service["endpoints"]}
    names = [told_of["name"] for told_of in told["GET_SESSION_TOKEN"]]
    assert names == ["Account", "Until", "Code"]
    return list(told)


def assert_the_session_token_signs_on(shell: Shell, session_token: str) -> None:
    shown = shell.run(
        f".venv/bin/python examples/client_app.py --url=http://127.0.0.1:8000 --tenant=nagra "
        f"--service=Vouchers --session-token={session_token}"
    )
    assert '"accountId": "account-1"' in shown
    assert shown.endswith("Signed out.\n")


def test_what_the_guide_quotes_is_what_startprovider_writes(tmp_path: Path) -> None:
    quoted = [text for title, _, text in BLOCKS if title == "providers/line/strategy.py"]
    assert quoted
    manage = [sys.executable, "manage.py", "startprovider", "line", "--upstream", "--package", str(tmp_path)]
    run_command(ROOT, *manage, DJANGO_SETTINGS_MODULE="tests.settings")
    written = (tmp_path / "line" / "strategy.py").read_text()
    assert not [text for text in quoted if text not in written]


def test_what_the_guide_names_is_there() -> None:
    from providers import contract, upstream

    named = set(re.findall(r"`([A-Z][A-Za-z]+(?:Field|Settings)|Identity|Choice|VerificationFailed)`", GUIDE))
    assert named - {"Settings"} <= set(contract.__all__)
    assert {"request", "document", "run", "resolve_addresses", "Source"} <= set(upstream.__all__)
    for method in re.findall(r"^- `(\w+)` ", GUIDE, re.MULTILINE):
        assert hasattr(contract.Strategy, method), method
