"""A copy of the project, for tests that add to it, and a shell in it."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tests.settings import ENVIRONMENT
from tests.support.paths import ROOT
from tests.support.upstream.process import stop_process
from tests.support.waiting import PATIENCE, wait_until


def copy_project(folder: Path) -> Path:
    """Copy the project to this folder, without ignored files."""
    left_out = shutil.ignore_patterns(".*", "var", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, folder, ignore=left_out)
    return folder


def hash_python_files(project: Path) -> dict[str, str]:
    """Return the digest of each Python file by its path in the project."""
    return {
        str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in project.rglob("*.py")
    }


def run_command(folder: Path, *words: str, **environment: str) -> str:
    """Run a command in that folder and return its output. Fail if it fails."""
    done = subprocess.run(
        words,
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=5 * PATIENCE,
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-6000:]}"
    return done.stdout


SERVE = ".venv/bin/python manage.py serve"


class Shell:
    """A shell in a checkout, with the environment of a server."""

    def __init__(self, project: Path, folder: Path, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self.project = project
        self._log = folder / "server.log"
        self.environment = _without(os.environ, *ENVIRONMENT, "DJANGO_SETTINGS_MODULE", "PYTHONPATH") | {
            **_without(ENVIRONMENT, "AGS_PROVIDERS", "DEBUG"),
            "DATABASE_URL": f"sqlite:///{folder / 'shell.sqlite3'}",
            "AGS_BIND": self.address,
            "AGS_WORKERS": "1",
        }

    def run(self, command: str) -> str:
        """Run a command and return its output. Exported variables are kept."""
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
            timeout=5 * PATIENCE,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout

    def request(self, path: str, service: str, **parameters: str) -> Any:
        """Return the JSON of a response: to a GET, or to a POST of these parameters."""
        headers = {
            "nv-tenant-id": "nagra",
            "x-auth-service-id": "Coupons",
            "Content-Type": "application/json",
        }
        members = [{"name": name, "value": value} for name, value in parameters.items()]
        body = json.dumps({"parameters": members}).encode() if members else None
        try:
            with urlopen(
                Request(f"http://{self.address}{path}", body, headers), timeout=PATIENCE
            ) as response:
                return json.load(response)
        except HTTPError as rejected:
            with rejected:
                return json.load(rejected)

    def _here(self, command: str) -> str:
        """Return the command with the Python of the tests and the port of this shell."""
        folder = shlex.quote(str(Path(sys.executable).parent))
        return command.replace(".venv/bin", folder).replace("127.0.0.1:8000", self.address)

    @contextmanager
    def run_server(self) -> Iterator[None]:
        """Run the server in the background."""
        with self._log.open("w") as log:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {self._here(SERVE)}"],
                cwd=self.project,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(lambda: self._is_ready(process), "the server is not ready")
            yield
        finally:
            stop_process(process)

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, self._log.read_text()
        try:
            with urlopen(f"http://{self.address}/readyz", timeout=PATIENCE) as response:
                return bool(response.status == 200)
        except (URLError, ConnectionError):
            return False


def _without(environment: Mapping[str, str], *names: str) -> dict[str, str]:
    """Return the environment without these variables."""
    return {name: value for name, value in environment.items() if name not in names}
