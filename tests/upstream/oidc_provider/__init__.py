"""A real authorization server for the tests: node's `oidc-provider`, in a process of its own.

`make test` installs it where there is npm; where it is not, what needs it is left out and says so.
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

from tests import NOT_HERE
from tests.upstream.authority import authority
from tests.upstream.process import Lines, end
from tests.waiting import PATIENCE

FOLDER = Path(__file__).resolve().parent
NODE = 20
"""The version of node that it needs at least."""


def missing() -> str:
    """Say what this machine lacks, or nothing."""
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
    """An operator's identity provider. Use it as a context; entering skips the test where it is missing.

    Its discovery document and the rest have the addresses that `oidc-provider` gives them by itself.
    """

    secret = "a secret of colons: and % + signs"
    """Of every client; a character of each kind that a form would change."""

    def __enter__(self) -> Self:
        if lacking := missing():
            pytest.skip(f"{NOT_HERE}{lacking}")
        vouched = authority()
        words = [vouched.server_certificate, vouched.server_key, "television", "gate", self.secret]
        self._told = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            ["node", FOLDER / "server.js", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._told,
            text=True,
        )
        assert self._process.stdout
        self._lines = Lines(self._process.stdout)
        try:
            self.issuer: str = self._answer()["issuer"]
        except BaseException:
            self.stop()
            raise
        self._context = ssl.create_default_context(cafile=str(vouched.file))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it; it may have ended before."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        finally:
            end(self._process)
            self._lines.close()
            self._told.close()

    # Its clients: two applications, and a resource server in two ways of proving who it is.

    def client_id(self, algorithm: str = "RS256") -> str:
        """The application whose ID tokens are signed so (RS256 or ES256): their `aud`."""
        return f"television-{algorithm}"

    def resource_server(self, method: str = "client_secret_basic") -> str:
        """The client that may introspect, and says who it is by that method (or client_secret_post)."""
        return f"gate-{method}"

    # Its addresses.

    @property
    def introspection(self) -> str:
        return f"{self.issuer}/token/introspection"

    @property
    def discovery(self) -> str:
        return f"{self.issuer}/.well-known/openid-configuration"

    # What its subscribers do.

    def tokens(self, account: str, *, algorithm: str = "RS256", **parameters: Any) -> dict[str, Any]:
        """What the token endpoint answers once that subscriber has signed on: access token and ID token.

        Further parameters: `nonce`, `audience` and `scope` (of the access token), `expires_in` (seconds of
        both, at least 1) and `claims`, a dict of what is to be in both beside the rest, such as `azp`.
        """
        if "claims" in parameters:
            parameters["claims"] = json.dumps(parameters["claims"])
        form = {"grant_type": "urn:ags-tests:account", "account": account, **parameters}
        return json.loads(self._post("/token", algorithm, form))  # type: ignore[no-any-return]

    def access_token(self, account: str, **parameters: Any) -> str:
        """An opaque access token of that subscriber."""
        token: str = self.tokens(account, **parameters)["access_token"]
        return token

    def id_token(self, account: str, **parameters: Any) -> str:
        """An ID token of that subscriber."""
        token: str = self.tokens(account, **parameters)["id_token"]
        return token

    def revoke(self, access_token: str, algorithm: str = "RS256") -> None:
        """Revoke it."""
        self._post("/token/revocation", algorithm, {"token": access_token})

    def rotate(self, *, keep: bool) -> None:
        """Sign with new keys from now on; `keep` publishing those before, or not."""
        self._command("rotate", keep=keep)

    @contextmanager
    def clock_ahead(self, seconds: int) -> Iterator[None]:
        """Put its clock forward (below zero: back) for as long as the context lasts."""
        self._command("clock", ahead=seconds)
        try:
            yield
        finally:
            self._command("clock", ahead=0)

    def _command(self, command: str, **words: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"command": command, **words}) + "\n")
        self._process.stdin.flush()
        self._answer()

    def _post(self, path: str, algorithm: str, form: dict[str, Any]) -> bytes:
        pair = f"{self.client_id(algorithm)}:{quote_plus(self.secret)}"
        headers = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        request = Request(f"{self.issuer}{path}", urlencode(form).encode(), headers)
        with urlopen(request, timeout=PATIENCE, context=self._context) as answer:
            return answer.read()  # type: ignore[no-any-return]

    def _answer(self) -> dict[str, Any]:
        while line := self._lines.next():
            if line.startswith("{"):  # oidc-provider writes notices there, too
                return json.loads(line)  # type: ignore[no-any-return]
        self._told.seek(0)
        raise RuntimeError(self._told.read().decode()[-2000:])
