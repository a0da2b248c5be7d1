"""The tools of developers: git hooks, line ends, the audit of dependencies, the workflow of hosted CI."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from tests.support.upstream.process import free_port
from tests.support.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


COMMANDS = {
    "tests.faults": "--list",
    "bench": "--help",
    "bench.check": "--help",
    "bench.growth": "--help",
    "bench.machines": "--help",
    "bench.request_path": "--help",
}


@pytest.mark.parametrize("module", COMMANDS)
def test_the_commands_of_the_makefile_start(module: str) -> None:
    done = run(ROOT, sys.executable, "-W", "ignore", "-m", module, COMMANDS[module])
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the hooks and rules of this one, and its environment."""
    assert run(tmp_path, "git", "init", "--quiet").returncode == 0
    for name in (".pre-commit-config.yaml", ".gitattributes", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    return tmp_path


def run_hooks(repository: Path) -> subprocess.CompletedProcess[str]:
    add = ["git", "add", "--", ".pre-commit-config.yaml", ".gitattributes", "pyproject.toml", "sample.py"]
    assert run(repository, *add).returncode == 0
    return run(
        repository,
        *(".venv/bin/pre-commit", "run", "--all-files"),
        PRE_COMMIT_HOME=str(repository / "hooks"),
        # A hook that fetches something fails.
        **dict.fromkeys(("http_proxy", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9"),
    )


def test_the_hooks_format_what_is_committed(repository: Path) -> None:
    sample = repository / "sample.py"
    sample.write_text('"""Code."""\nx = [1,2]\n')
    assert run_hooks(repository).returncode == 1
    assert sample.read_text() == '"""Code."""\n\nx = [1, 2]\n'
    done = run_hooks(repository)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_hooks_reject_what_the_linter_rejects(repository: Path) -> None:
    (repository / "sample.py").write_text('"""Code."""\n\nassert print\n')
    done = run_hooks(repository)
    assert (done.returncode, "S101" in done.stdout) == (1, True), done.stdout


def test_git_stores_line_ends_as_lf_and_leaves_databases_alone(repository: Path) -> None:
    (repository / "sample.py").write_bytes(b"x = 1\r\n")
    (repository / "a.sqlite3").write_bytes(b"SQLite\r\n")
    assert run(repository, "git", "add", "--", "sample.py", "a.sqlite3", ".gitattributes").returncode == 0
    for name, size in {"sample.py": "6\n", "a.sqlite3": "8\n"}.items():
        assert run(repository, "git", "cat-file", "-s", f":{name}").stdout == size


def audit(service: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run(ROOT, sys.executable, ".ci/audit.py", f"--service={service}", *options)


def test_the_audit_says_that_it_needs_the_network() -> None:
    service = f"http://127.0.0.1:{free_port()}/v1/query"
    for options in ((), ("--reachable",)):
        done = audit(service, *options)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"Not audited: {service} cannot be reached (")
        assert "the audit needs the network" in done.stderr


def test_the_audit_takes_an_error_response_for_a_service_that_is_there() -> None:
    # The API of OSV answers POST only.
    class NoGet(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(405)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), NoGet) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        done = audit(f"http://127.0.0.1:{server.server_port}/v1/query", "--reachable")
        server.shutdown()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_hosted_ci_runs_every_supported_version_with_the_least_permissions() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    jobs = workflow["jobs"]
    assert {name: job.get("permissions") for name, job in jobs.items()} == dict.fromkeys(jobs)
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert {"run": "bash .ci/run"} in jobs["all"]["steps"]
    for step in steps:
        assert re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", step.get("uses", "actions/none@v0.0.0"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pairs = jobs["versions"]["strategy"]["matrix"]["include"]
    pythons = sorted({pair["python"] for pair in pairs})
    assert project["requires-python"] == f">={pythons[0]}"
    assert pythons == ["3.11", "3.12", "3.13"]
    assert {pair["postgresql"] for pair in pairs} == {"15", "16", "17", "18"}
