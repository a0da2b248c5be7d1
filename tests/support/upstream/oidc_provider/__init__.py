"""The authorization server `oidc-provider` for node, in a separate process.

`make test` installs it if npm is available. Otherwise the tests that need it are skipped.
"""

from __future__ import annotations

import base64
import json
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote_plus, urlencode
from urllib.request import Request, urlopen

import pytest

from tests.support.markers import NOT_HERE
from tests.support.upstream.authority import authority
from tests.support.upstream.process import Lines, stop_process
from tests.support.waiting import PATIENCE

FOLDER = Path(__file__).resolve().parent
NODE = 20
"""The minimum version of node."""


def find_missing() -> str:
    """Return the name of what this machine lacks, or an empty string."""
    node = shutil.which("node")
    if node is None:
        return "node"
    version = subprocess.run(
        [node, "--version"], capture_output=True, text=True, check=True, timeout=PATIENCE
    ).stdout
    if int(version.removeprefix("v").partition(".")[0]) < NODE:
        return f"node {NODE} or newer"
    return "" if (FOLDER / "node_modules" / "oidc-provider").is_dir() else "oidc-provider (npm)"


class OidcProvider:
    """A context manager that runs an identity provider, or skips the test if it is not installed.

    The endpoints have the default paths of `oidc-provider`.
    """

    secret = "a secret of colons: and % + signs"
    """The secret of each client, with the characters that form encoding changes."""

    def __enter__(self) -> Self:
        if missing := find_missing():
            pytest.skip(f"{NOT_HERE}{missing}")
        ca = authority()
        words = [str(ca.server_certificate), str(ca.server_key), "television", "gate", self.secret]
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            ["node", str(FOLDER / "server.js"), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        assert self._process.stdout
        self._lines = Lines(self._process.stdout)
        try:
            self.issuer: str = self._read_message()["issuer"]
        except BaseException:
            self.stop()
            raise
        self._context = ssl.create_default_context(cafile=str(ca.file))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process. It may have ended before."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        finally:
            stop_process(self._process)
            self._lines.close()
            self._stderr.close()

    # The clients: two applications, and a resource server with two authentication methods

    def client_id(self, algorithm: str = "RS256") -> str:
        """Return the application whose ID tokens use this algorithm (RS256 or ES256): their `aud`."""
        return f"television-{algorithm}"

    def resource_server(self, method: str = "client_secret_basic") -> str:
        """Return the client that may introspect, with this authentication method (or client_secret_post)."""
        return f"gate-{method}"

    # The endpoints

    @property
    def introspection(self) -> str:
        return f"{self.issuer}/token/introspection"

    @property
    def discovery(self) -> str:
        return f"{self.issuer}/.well-known/openid-configuration"

    # Actions of subscribers

    def tokens(self, account: str, *, algorithm: str = "RS256", **parameters: Any) -> dict[str, Any]:
        """Return the response of the token endpoint for a subscriber: access token and ID token.

        Further parameters: `nonce`, `audience` and `scope` (of the access token), `expires_in` (seconds, for
        both, at least 1) and `claims`, a dict of additional claims of both, such as `azp`.
        """
        if "claims" in parameters:
            parameters["claims"] = json.dumps(parameters["claims"])
        form = {"grant_type": "urn:ags-tests:account", "account": account, **parameters}
        return json.loads(self._post("/token", algorithm, form))

    def access_token(self, account: str, **parameters: Any) -> str:
        """Return an opaque access token of a subscriber."""
        token: str = self.tokens(account, **parameters)["access_token"]
        return token

    def id_token(self, account: str, **parameters: Any) -> str:
        """Return an ID token of a subscriber."""
        token: str = self.tokens(account, **parameters)["id_token"]
        return token

    def revoke(self, access_token: str, algorithm: str = "RS256") -> None:
        """Revoke an access token."""
        self._post("/token/revocation", algorithm, {"token": access_token})

    def rotate(self, *, keep: bool) -> None:
        """Sign with new keys from now on. `keep`: continue to publish the previous keys."""
        self._command("rotate", keep=keep)

    @contextmanager
    def clock_ahead(self, seconds: int) -> Iterator[None]:
        """Advance the clock during the context, or set it back if `seconds` is negative."""
        self._command("clock", ahead=seconds)
        try:
            yield
        finally:
            self._command("clock", ahead=0)

    def _command(self, command: str, **words: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"command": command, **words}) + "\n")
        self._process.stdin.flush()
        self._read_message()

    def _post(self, path: str, algorithm: str, form: dict[str, Any]) -> bytes:
        pair = f"{self.client_id(algorithm)}:{quote_plus(self.secret)}"
        headers = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        request = Request(f"{self.issuer}{path}", urlencode(form).encode(), headers)
        with urlopen(request, timeout=PATIENCE, context=self._context) as response:
            return response.read()

    def _read_message(self) -> dict[str, Any]:
        while line := self._lines.next():
            if line.startswith("{"):  # oidc-provider also writes notices
                return json.loads(line)
        self._stderr.seek(0)
        raise RuntimeError(self._stderr.read().decode()[-2000:])
