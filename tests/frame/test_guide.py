"""The guide to adding a provider, followed to the letter in a copy of the project."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.frame.project import ROOT, copied_to, python_files, run, without
from tests.live.server import PATIENCE, wait_until
from tests.settings import ENVIRONMENT

GUIDE = (ROOT / "docs" / "adding-a-provider.md").read_text()
BLOCK = re.compile(r'^```(\w+)(?: title="([\w/.]+)")?\n(.+?)^```$', re.DOTALL | re.MULTILINE)
BLOCKS = BLOCK.findall(GUIDE)
FILES = {title: text for _, title, text in BLOCKS if title and "line" not in title}
COMMANDS = [
    command.strip()
    for language, _, text in BLOCKS
    if language == "console"
    for command in re.split(r"^\$ ", text, flags=re.MULTILINE)
    if command
]
SERVE = ".venv/bin/python manage.py serve"

pytestmark = pytest.mark.xdist_group("live")


class Newcomer:
    """Somebody in a shell, in a checkout of his own, with the environment of a server."""

    def __init__(self, project: Path, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.project = project
        self.environment = without(os.environ, *ENVIRONMENT, "DJANGO_SETTINGS_MODULE", "PYTHONPATH") | {
            **without(ENVIRONMENT, "AGS_PROVIDERS", "DEBUG"),
            "DATABASE_URL": f"sqlite:///{folder / 'guide.sqlite3'}",
            "AGS_BIND": self.address,
            "AGS_WORKERS": "1",
        }

    def types(self, command: str) -> str:
        """Run it, and return what it prints. What it exports, stays."""
        name, _, value = command.removeprefix("export ").partition("=")
        if command.startswith("export "):
            self.environment[name] = value
            return ""
        if command.startswith("unset "):
            del self.environment[command.removeprefix("unset ")]
            return ""
        words = ["sh", "-c", self._here(command)]
        done = subprocess.run(
            words,
            cwd=self.project,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout

    def _here(self, command: str) -> str:
        """The same with the Python that runs this, and the port that is free."""
        folder = shlex.quote(str(Path(sys.executable).parent))
        return command.replace(".venv/bin", folder).replace("127.0.0.1:8000", self.address)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Leave the server running in another terminal."""
        with (self.project / "server.log").open("w") as log:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {self._here(SERVE)}"],
                cwd=self.project,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(lambda: self._is_ready(process), PATIENCE, "the server is not ready")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, (self.project / "server.log").read_text()
        try:
            with urlopen(f"http://{self.address}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, ConnectionError):
            return False


@pytest.mark.timeout(400)  # mypy reads Django anew
def test_a_provider_is_written_from_the_guide_alone(tmp_path: Path) -> None:
    project = copied_to(tmp_path / "project")
    newcomer = Newcomer(project, tmp_path)
    before = python_files(project)

    start, commands = COMMANDS[:2], COMMANDS[2:]
    offering = commands.index("unset DJANGO_SETTINGS_MODULE")
    for command in start:
        newcomer.types(command)
    # As it is written, it works.
    as_written = newcomer.types(commands[offering - 2])
    assert " passed" in as_written
    for path, text in FILES.items():
        assert (project / path).exists() == path.endswith(".py"), f"startprovider begins {path}"
        (project / path).write_text(text)
    for command in commands[:offering]:
        said = newcomer.types(command)
        assert "pytest" not in command or " passed" in said
    assert {path: (project / path).read_text() for path in FILES} == FILES, "it is formatted already"

    serving = commands.index(SERVE)
    said = [newcomer.types(command) for command in commands[offering:serving]]
    assert "System check identified no issues (0 silenced).\n" in said
    assert "No changes detected\n" in said, "no migration is needed"
    after = python_files(project)
    assert {path: digest for path, digest in after.items() if path in before} == before
    assert sorted(after.keys() - before.keys()) == [
        "providers/voucher/__init__.py",
        "providers/voucher/apps.py",
        "providers/voucher/strategy.py",
        "tests/providers/test_voucher.py",
    ]
    with newcomer.serving():
        discover, get_session_token, sign_on = commands[serving + 1 :]
        listed = assert_it_is_discovered(json.loads(newcomer.types(discover)))
        session_token = json.loads(newcomer.types(get_session_token))["sessionToken"]
        assert json.loads(newcomer.types(get_session_token))["reason"] == "replayed"
        assert_the_session_token_signs_on(newcomer, session_token)
        # An AGS that does not answer this call yet has no such address.
        if "/ags/signOn" in json.loads((ROOT / "openapi.json").read_text())["paths"]:
            assert "SIGNON" in listed
            assert json.loads(newcomer.types(sign_on))["accountId"] == "account-2"
            assert json.loads(newcomer.types(sign_on))["reason"] == "replayed"
    run(
        project, sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", f"--site-dir={tmp_path}/site"
    )


def assert_it_is_discovered(answer: Any) -> list[str]:
    (service,) = answer["availableServices"]
    assert service["authServiceName"] == "Vouchers"
    told = {endpoint["name"]: endpoint["parameterProperties"] for endpoint in service["endpoints"]}
    names = [told_of["name"] for told_of in told["GET_SESSION_TOKEN"]]
    assert names == ["Account", "Until", "Code"]
    return list(told)


def assert_the_session_token_signs_on(newcomer: Newcomer, session_token: str) -> None:
    shown = newcomer.types(
        f".venv/bin/python examples/client_app.py --url=http://127.0.0.1:8000 --tenant=nagra "
        f"--service=Vouchers --session-token={session_token}"
    )
    assert '"accountId": "account-1"' in shown
    assert shown.endswith("Signed out.\n")


def test_what_the_guide_quotes_is_what_startprovider_writes(tmp_path: Path) -> None:
    (quoted,) = [text for _, title, text in BLOCKS if title == "providers/line/strategy.py"]
    manage = [sys.executable, "manage.py", "startprovider", "line", "--upstream", "--package", str(tmp_path)]
    run(ROOT, *manage, DJANGO_SETTINGS_MODULE="tests.settings")
    assert quoted in (tmp_path / "line" / "strategy.py").read_text()


def test_what_the_guide_names_is_there() -> None:
    from providers import contract, upstream

    named = set(re.findall(r"`([A-Z][A-Za-z]+(?:Field|Settings)|Identity|Choice|Refused)`", GUIDE))
    assert named - {"Settings"} <= set(contract.__all__)
    assert {"ask", "document", "within", "addresses_of", "Source"} <= set(upstream.__all__)
    for method in re.findall(r"^- `(\w+)` ", GUIDE, re.MULTILINE):
        assert hasattr(contract.Strategy, method), method
