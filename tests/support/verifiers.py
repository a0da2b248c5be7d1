"""Verifiers of access tokens with the key set: libraries of other projects, whose clocks can be moved.

Each verifier is a function of an access token that returns an empty string, or why the token is refused.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import tempfile
import time
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import jwt
import pytest
from jwt import PyJWKClient, api_jwk, jwk_set_cache, jwks_client

from tests.support.markers import find_program
from tests.support.upstream.authority import authority
from tests.support.upstream.oidc_provider import FOLDER
from tests.support.upstream.process import (
    Lines,
    accepts_connections,
    reserved_port,
    run_process,
    stop_process,
)
from tests.support.waiting import PATIENCE

MODULES = Path("/usr/lib/apache2/modules")

Verify = Callable[[str], str]


@dataclass(frozen=True)
class Verifiers:
    """Verifiers by name, and a function that moves their clocks to so many seconds ahead of the true time."""

    by_name: dict[str, Verify]
    shift: Callable[[int], None]


def find_faketime() -> str | None:
    """Return the library that moves the clock of a program."""
    return next(map(str, Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


def find_missing() -> str:
    """Return what this machine lacks, or an empty string."""
    if find_program("node") is None:
        return "node"
    if not (FOLDER / "node_modules" / "jwks-rsa").is_dir():
        return "jwks-rsa (npm)"
    if not (find_program("apache2") and (MODULES / "mod_auth_openidc.so").exists()):
        return "mod_auth_openidc (apt-get install apache2-bin libapache2-mod-auth-openidc)"
    return "" if find_faketime() else "libfaketime (apt-get install faketime)"


@contextmanager
def node_verifiers(url: str, audience: str) -> Iterator[Verifiers]:
    """Run jose and jwks-rsa, each with its defaults and with a cache of 300 s."""
    process = subprocess.Popen(
        ["node", str(FOLDER / "verifiers.js"), url, audience],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "NODE_EXTRA_CA_CERTS": str(authority().file)},
        text=True,
    )
    assert process.stdin
    assert process.stdout
    send, lines = process.stdin, Lines(process.stdout)

    def call(**message: Any) -> str:
        send.write(json.dumps(message) + "\n")
        send.flush()
        error: str = json.loads(lines.next())["error"]
        return error

    def verifier(name: str) -> Verify:
        return lambda token: call(verifier=name, token=token)

    names = ("jose", "jose, 300 s", "jwks-rsa", "jwks-rsa, 300 s")
    try:
        yield Verifiers(
            {name: verifier(name) for name in names}, lambda seconds: _empty(call(shift=seconds * 1000))
        )
    finally:
        stop_process(process)
        send.close()
        lines.close()


@contextmanager
def pyjwt_verifier(url: str, audience: str) -> Iterator[Verifiers]:
    """Use PyJWKClient with its defaults."""
    client = PyJWKClient(url, ssl_context=ssl.create_default_context(cafile=str(authority().file)))
    seconds_ahead = 0

    def verify(token: str) -> str:
        try:
            key = client.get_signing_key_from_jwt(token)
            jwt.decode(token, key, ["ES256"], audience=audience, issuer="ags")
        except jwt.PyJWTError as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def shift(seconds: int) -> None:
        nonlocal seconds_ahead
        seconds_ahead = seconds

    clock = types.SimpleNamespace(monotonic=lambda: time.monotonic() + seconds_ahead)
    with pytest.MonkeyPatch.context() as patch:
        for module in (jwks_client, jwk_set_cache, api_jwk):
            patch.setattr(module, "time", clock)
        yield Verifiers({"PyJWKClient": verify}, shift)


@contextmanager
def apache_verifier(name: str, url: str, *lines: str) -> Iterator[Verifiers]:
    """Run Apache with mod_auth_openidc, and further lines of configuration."""
    with tempfile.TemporaryDirectory(prefix="ags-tests-apache-") as folder:
        # Its children are not root, and read the clock.
        Path(folder).chmod(0o755)
        with _run_apache(name, url, Path(folder), lines) as running:
            yield running


@contextmanager
def _run_apache(name: str, url: str, folder: Path, lines: Iterable[str]) -> Iterator[Verifiers]:
    clock = folder / "clock"

    def shift(seconds: int) -> None:
        new = folder / "clock.new"
        new.write_text(f"{seconds:+}")
        new.chmod(0o644)
        new.rename(clock)

    shift(0)
    with reserved_port() as port:

        def prepare() -> list[str]:
            file = folder / "apache.conf"
            file.write_text(_CONFIGURATION.format(folder=folder, port=port, url=url, modules=MODULES))
            with file.open("a") as more:
                more.writelines(f"{line}\n" for line in lines)
            return [
                *("env", f"LD_PRELOAD={find_faketime()}", f"FAKETIME_TIMESTAMP_FILE={clock}"),
                *("FAKETIME_NO_CACHE=1", "DONT_FAKE_MONOTONIC=1"),
                *(find_program("apache2") or "apache2", "-D", "FOREGROUND", "-f", str(file)),
            ]

        def verify(token: str) -> str:
            request = Request(f"http://127.0.0.1:{port}/", headers={"Authorization": f"Bearer {token}"})
            try:
                urlopen(request, timeout=PATIENCE).close()
            except HTTPError as error:
                with error:
                    return "" if error.code == 404 else f"{error.code} {error.headers['WWW-Authenticate']}"
            return ""

        with run_process(prepare, folder / "log", lambda: accepts_connections(port)):
            yield Verifiers({name: verify}, shift)


def _empty(answer: str) -> None:
    assert answer == ""


_CONFIGURATION = """
ServerRoot {folder}
DefaultRuntimeDir {folder}
PidFile {folder}/pid
ErrorLog {folder}/log
ServerName localhost
Listen 127.0.0.1:{port}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authn_core_module {modules}/mod_authn_core.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule authz_user_module {modules}/mod_authz_user.so
LoadModule auth_openidc_module {modules}/mod_auth_openidc.so
User www-data
Group www-data
StartServers 1
OIDCOAuthVerifyJwksUri {url}
# The children, which are not root, cannot read the certificate of the authority.
OIDCOAuthSSLValidateServer Off
OIDCSSLValidateServer Off
OIDCOAuthRemoteUserClaim accountId
<Location />
    AuthType oauth20
    Require valid-user
</Location>
"""
"""Apache responds with 404 to a valid token: there is no file. It has no modules but these."""
