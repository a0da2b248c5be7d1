"""The image's steps, done in a fresh environment as somebody without privileges: no engine runs here."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from tests.settings import ENVIRONMENT
from tests.support.paths import ROOT
from tests.support.waiting import PATIENCE, wait_until

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
NOBODY = 65534


def _joined(text: str) -> list[str]:
    return re.sub(r"\\\n\s*", "", text).splitlines()


def _copied() -> list[str]:
    """What the second stage copies from the project."""
    second = DOCKERFILE.rpartition("\nFROM ")[2]
    words = [shlex.split(line)[1:-1] for line in _joined(second) if line.startswith("COPY ")]
    return [word for line in words for word in line if not word.startswith("--") and word != "/opt/ags"]


def test_the_image_runs_as_somebody_without_privileges_and_serves() -> None:
    lines = _joined(DOCKERFILE)
    assert sum(line.startswith("FROM ") for line in lines) == 2
    assert "USER 10001" in lines
    assert 'CMD ["manage.py", "serve"]' in lines
    ignored = (ROOT / ".dockerignore").read_text().split()
    names = ("runtime", "redis", "ldap", "radius", "opentelemetry")
    requirements = [f"requirements/{name}.txt" for name in names]
    for path in [*_copied(), *requirements]:
        assert f"!{path}" in ignored, f".dockerignore keeps {path} from the image"


def test_the_command_that_it_shows_listens_where_the_published_port_leads() -> None:
    (command,) = (
        line for line in DOCKERFILE.splitlines() if line.startswith("#   docker run") and " -p " in line
    )
    assert "-e AGS_BIND=0.0.0.0:8000 -p 127.0.0.1:8000:8000 " in command


def test_the_health_check_of_the_image_asks_where_it_listens() -> None:
    (listens,) = re.findall(r"\bAGS_BIND=0\.0\.0\.0:([0-9]+)$", DOCKERFILE, re.MULTILINE)
    assert re.findall(r"urlopen\('(.+?)'", DOCKERFILE) == [f"http://127.0.0.1:{listens}/healthz"]
    assert f"EXPOSE {listens}" in DOCKERFILE.splitlines()


def test_the_services_of_compose_are_the_api_the_admin_and_one_migration_before_them() -> None:
    services = {name: its for name, its in COMPOSE["services"].items() if "build" in its}
    assert {name: its.get("command") for name, its in services.items()} == {
        "migrate": ["manage.py", "migrate"],
        "gateway": None,
        "admin": None,
    }
    common = services["migrate"]["environment"]
    own = {
        name: {key: value for key, value in its["environment"].items() if common.get(key) != value}
        for name, its in services.items()
    }
    assert own == {
        "migrate": {},
        "gateway": {"AGS_ADMIN": "off"},
        "admin": {"AGS_ADMIN": "only", "AGS_WORKERS": 1},
    }
    assert "AGS_BIND" not in common, "the health check and the published ports are those of the image"
    assert {name: its["ports"] for name, its in services.items() if "ports" in its} == {
        "gateway": ["127.0.0.1:8000:8000"],
        "admin": ["127.0.0.1:8080:8000"],
    }
    for name in ("gateway", "admin"):
        assert services[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
        for key in ("build", "secrets", "read_only", "tmpfs", "cap_drop", "security_opt"):
            assert services[name][key] == services["migrate"][key]


@pytest.mark.full
@pytest.mark.timeout(15 * PATIENCE)  # it installs all that the image has
def test_the_steps_of_the_image_work_in_a_fresh_environment(tmp_path: Path, port: int) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    as_nobody = os.geteuid() == 0  # otherwise it is done as whoever we are
    # RUN: the build stage
    venv, code, data = tmp_path / "venv", tmp_path / "code", tmp_path / "data"
    python = _python_of_everybody(tmp_path) if as_nobody else sys.executable
    libraries = {"LD_LIBRARY_PATH": str(Path(python).parents[1] / "lib")}  # of a copied interpreter
    subprocess.run(
        [python, "-m", "venv", str(venv)], env=os.environ | libraries, check=True, timeout=5 * PATIENCE
    )
    install = next(line for line in _joined(DOCKERFILE) if "--require-hashes" in line).split("-m pip ")[1]
    words = install.replace("--no-cache-dir ", "").replace("/tmp/", f"{ROOT}/requirements/")
    subprocess.run(
        [str(venv / "bin" / "python"), "-m", "pip", "--quiet", *shlex.split(words)],
        env=os.environ | libraries,
        check=True,
        timeout=5 * PATIENCE,
    )
    # COPY: the second stage, read-only
    code.mkdir()
    for name in _copied():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, code / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, code / name)
    subprocess.run(["chmod", "-R", "a-w,a+rX", str(code)], check=True, timeout=PATIENCE)
    data.mkdir()
    # USER
    if as_nobody:
        os.chown(data, NOBODY, NOBODY)
    identity: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if as_nobody else {}
    environment = {
        **ENVIRONMENT,
        "AGS_PROVIDERS": "providers.operator_token",
        "DEBUG": "off",
        "PATH": f"{venv / 'bin'}:/usr/bin:/bin",
        "HOME": "/nonexistent",
        **libraries,
        "PYTHONDONTWRITEBYTECODE": "1",
        "AGS_BIND": f"127.0.0.1:{port}",
        "DATABASE_URL": f"sqlite:///{data / 'ags.sqlite3'}",
    }
    python = str(venv / "bin" / "python")
    # The migration, a step of its own
    subprocess.run(
        [python, "manage.py", "migrate", "--verbosity=0"],
        cwd=code,
        env=environment,
        check=True,
        timeout=2 * PATIENCE,
        **identity,
    )
    # CMD
    server = subprocess.Popen(
        [python, "manage.py", "serve"],
        cwd=code,
        env=environment,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **identity,
    )
    answers: list[bytes] = []

    def answered() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE) as response:
                answers.append(response.read())
        except OSError:
            return server.poll() is not None
        return True

    try:
        wait_until(answered, "the server does not answer")
    finally:
        server.terminate()
        _, log = server.communicate(timeout=PATIENCE)
    assert answers == [b'{"status":"ready"}'], log.decode()[-2000:]


def _python_of_everybody(folder: Path) -> str:
    """An interpreter that somebody without privileges may run: this one may live in the home of root."""
    home = Path(sys.base_prefix)
    if all(parent.stat().st_mode & 0o001 for parent in (home, *home.parents)):
        return str(home / "bin" / "python3")
    shutil.copytree(
        home, folder / "python", symlinks=True, ignore=shutil.ignore_patterns("test", "site-packages", "*.a")
    )
    return str(folder / "python" / "bin" / "python3")
