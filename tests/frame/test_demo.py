"""`make demo` and `make run`, as a newcomer meets them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.support.paths import ROOT
from tests.support.upstream.process import reserved_port, stop_process
from tests.support.waiting import PATIENCE, wait_until

DEMO = [sys.executable, str(ROOT / "examples" / "demo.py")]

pytestmark = pytest.mark.timeout(6 * PATIENCE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "var"


@pytest.fixture(scope="module")
def shell() -> dict[str, str]:
    """A newcomer's shell: no variable of ours, and one of another project that must not matter."""
    bare = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    return bare | {"DATABASE_URL": "postgres://somebody:else@127.0.0.1:1/theirs", "LANG": "C.UTF-8"}


@pytest.fixture(scope="module")
def demo(folder: Path, shell: dict[str, str]) -> subprocess.CompletedProcess[str]:
    with reserved_port() as port:
        return run_demo(folder, shell, port)


def run_demo(folder: Path, shell: dict[str, str], port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, f"--folder={folder}", f"--port={port}"],
        env=shell,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE,
        umask=0,
    )


def modes(folder: Path) -> dict[str, int]:
    """The permissions of the folder and of all that is in it."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}


def test_the_demo_shows_the_whole_way_and_ends_well(demo: subprocess.CompletedProcess[str]) -> None:
    assert (demo.returncode, demo.stderr) == (0, "")
    assert '"authServiceName": "Customer Auth Service"' in demo.stdout
    token = re.search(r'"sessionToken": "([a-z0-9]{26})"', demo.stdout)
    assert token is not None
    assert f"\n   {token[1]}\n" in demo.stdout
    assert len(re.findall(r"^[█▀▄ ]{20,}$", demo.stdout, re.MULTILINE)) > 10, "a QR code is drawn"
    steps = re.findall(r"^(\d)\. ", demo.stdout, re.MULTILINE)
    assert steps == list("12345678")
    first, second = re.findall(r'"client_id": "([0-9a-f]{32})"', demo.stdout)
    assert first == second, "the device stays the same when it refreshes"
    said = re.findall(r'"typ": "(\w+)"', demo.stdout)
    assert said == ["GetSessionTokenAuthN", "DevAuthN", "RefreshAuthN"], "what the tokens say is shown"
    assert "The signature is valid. The account is SessionTokenSignOnAccount-0001." in demo.stdout
    assert '"reason":"not_authenticated"' in demo.stdout, "and who is signed out stays so"


def without_values(output: str) -> list[str]:
    """Replace what differs from run to run: ports, IDs, session tokens and times."""
    values = r"(?<=127\.0\.0\.1:)\d+|[0-9a-f]{32}|\b[0-9a-f-]{36}\b|\b[a-z2-7]{26}\b|\b\d{10}\b"
    return re.sub(values, "*", output).splitlines()


def test_the_readme_shows_what_the_demo_prints(demo: subprocess.CompletedProcess[str]) -> None:
    (console,) = re.findall(r"^```console\n\$ make demo\n(.+?)^```$", readme(), re.MULTILINE | re.DOTALL)
    printed = iter(without_values(demo.stdout))
    for line in without_values(console):
        if line != "…":  # left out
            beginning, cut, _ = line.partition("…") if line.endswith("…") else (line, "", "")
            assert any(of_demo == line or (cut and of_demo.startswith(beginning)) for of_demo in printed), (
                line
            )


def test_the_readme_has_at_most_40_lines_of_console_output() -> None:
    blocks = re.findall(r"^```console\n(.+?)^```$", readme(), re.MULTILINE | re.DOTALL)
    assert 0 < sum(len(block.splitlines()) for block in blocks) <= 40


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_secrets_are_kept_and_readable_by_their_owner_only(
    folder: Path, demo: subprocess.CompletedProcess[str], shell: dict[str, str], port: int
) -> None:
    kept = folder / "demo.env"
    tight = modes(folder)
    assert tight.keys() >= {"var", "demo.env", "demo.log", "demo.sqlite3", "staff"}
    assert tight == {name: 0o700 if name == "var" else 0o600 for name in tight}
    before = kept.read_text()
    for path in (*folder.iterdir(), folder):
        path.chmod(0o777)
    again = run_demo(folder, shell, port)
    assert again.returncode == 0
    assert kept.read_text() == before
    for line in before.splitlines():
        assert line.split("=", 1)[1] not in demo.stdout + again.stdout
    assert modes(folder) == tight, "and what was open to others no longer is"


@contextmanager
def run_server(
    folder: Path, shell: dict[str, str], port: int
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Yield the process of `make run`, and what it has printed once it serves."""
    output = folder.parent / "printed"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [*DEMO, f"--folder={folder}", "--keep-serving", f"--port={port}"],
            env=shell,
            stdout=log,
            stderr=log,
            umask=0,
        )

    def serves() -> bool:
        assert process.poll() is None, output.read_text()
        return "until interrupted" in output.read_text()

    try:
        wait_until(serves, "it does not serve", 2 * PATIENCE)
        yield process, output.read_text()
    finally:
        stop_process(process)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the server that runs."""
    return tmp_path_factory.mktemp("served") / "var"


@pytest.fixture(scope="module")
def printed(served: Path, shell: dict[str, str]) -> Iterator[str]:
    """What `make run` has printed. It serves until the tests of this module have ended."""
    with reserved_port() as port, run_server(served, shell, port) as (_, text):
        yield text


def test_what_the_running_server_writes_is_readable_by_its_owner_only(printed: str, served: Path) -> None:
    found = modes(served)
    assert found.keys() >= {"demo.sqlite3-wal", "demo.sqlite3-shm"}
    assert found == {name: 0o700 if name == "var" else 0o600 for name in found}


def pasted(line: str, shell: dict[str, str]) -> dict[str, Any]:
    """What a line answers when it is pasted into a shell."""
    words = ["sh", "-c", line]
    done = subprocess.run(words, env=shell, capture_output=True, text=True, check=True, timeout=PATIENCE)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_printed_lines_work_when_pasted_into_a_shell(printed: str, shell: dict[str, str]) -> None:
    lines = re.findall(r"^ +(curl .+)$", printed, re.MULTILINE)
    discovery, session_token, sign_on, key_set, refresh, sign_out = lines
    assert "availableServices" in pasted(discovery, shell)
    assert list(pasted(session_token, shell)) == ["sessionToken"]
    assert pasted(session_token, shell)["reason"] == "replayed", "it says that it works once"
    bundle = pasted(sign_on, shell)
    assert bundle["accountId"] == "SessionTokenSignOnAccount-0001"
    assert pasted(sign_on, shell)["reason"] == "not_authenticated", "it says that it works once"
    keys = jwt.PyJWKSet.from_dict(pasted(key_set, shell))
    key = keys[jwt.get_unverified_header(bundle["access_token"])["kid"]]
    assert jwt.decode(bundle["access_token"], key, ["ES256"], issuer="ags", audience="nagra")
    assert pasted(refresh, shell)["client_id"] != bundle["client_id"], "it says that it is another device"
    assert pasted(sign_out, shell) == {}
    assert pasted(refresh, shell)["reason"] == "not_authenticated", "it is signed out"


@pytest.fixture
def example(printed: str, served: Path, shell: dict[str, str]) -> Callable[..., str]:
    """Run an example against the server: its name, its words and its input; return what it prints."""
    secret = re.search(r"^NAGRA_SECRET=(.+)$", (served / "demo.env").read_text(), re.MULTILINE)
    assert secret is not None

    def run(name: str, *words: str, stdin: str = "") -> str:
        done = subprocess.run(
            [
                sys.executable,
                str(ROOT / "examples" / name),
                f"--url={address(printed)}",
                "--tenant=nagra",
                *words,
            ],
            env=shell | {"NAGRA_SECRET": secret[1]},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def address(printed: str) -> str:
    url = re.search(r"(http://127\.0\.0\.1:\d+)/admin/", printed)
    assert url is not None
    return url[1]


def session_token(example: Callable[..., str]) -> str:
    kid = "--kid=70646948-d6fb-4ce8-a433-52a14ee2fa0a"
    shown = example("headend.py", kid, "--secret-env=NAGRA_SECRET", "--account=account-7")
    token = re.search(r'"sessionToken": "([a-z0-9]{26})"', shown)
    assert token is not None
    return token[1]


def test_the_examples_work_each_by_itself(example: Callable[..., str]) -> None:
    service = "--service=Customer Auth Service"
    shown = example("client_app.py", service, f"--session-token={session_token(example)}")
    assert '"accountId": "account-7"' in shown
    assert shown.endswith("Signed out.\n")
    access_token = re.search(r'"access_token": "(\S+)"', shown)
    assert access_token is not None
    assert json.loads(example("resource_server.py", stdin=access_token[1]))["accountId"] == "account-7"


def test_the_client_app_to_copy_signs_on_afresh_where_its_device_is_unknown(
    printed: str, shell: dict[str, str], example: Callable[..., str]
) -> None:
    program = f"""
from client_app import ClientApp
app = ClientApp({address(printed)!r}, "nagra", "Customer Auth Service", client_id="{"0" * 32}")
print(app.sign_on({session_token(example)!r})["client_id"] == app.client_id != "{"0" * 32}")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "examples",
        env=shell,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.stdout, done.stderr) == ("True\n", ""), "with the same session token"


def test_the_client_app_to_copy_uses_the_standard_library_alone() -> None:
    source = (ROOT / "examples" / "client_app.py").read_text()
    imported = set(re.findall(r"^(?:from|import) (\w+)", source, re.MULTILINE))
    assert imported <= sys.stdlib_module_names


def test_the_login_it_names_opens_the_admin(printed: str) -> None:
    from http.cookiejar import CookieJar
    from urllib.parse import urlencode
    from urllib.request import HTTPCookieProcessor, Request, build_opener

    admin = re.search(r"Admin +(http://\S+)\s+user (\S+), password (\S+)", printed)
    assert admin is not None
    url, user, password = admin.groups()
    cookies = CookieJar()
    browser = build_opener(HTTPCookieProcessor(cookies))
    browser.open(f"{url}login/", timeout=PATIENCE).read()
    csrf = next(cookie.value for cookie in cookies if cookie.name == "csrftoken")
    form = urlencode({"username": user, "password": password, "csrfmiddlewaretoken": csrf, "next": "/admin/"})
    request = Request(f"{url}login/", form.encode(), {"Referer": f"{url}login/"})
    page = browser.open(request, timeout=PATIENCE)
    assert page.url == url, "not back at the login"
    assert "Site administration" in page.read().decode()


def test_interrupting_it_leaves_no_process_behind(folder: Path, shell: dict[str, str], port: int) -> None:
    with run_server(folder, shell, port) as (process, text):
        assert f"http://127.0.0.1:{port}/admin/" in text
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "nobody listens any more"
