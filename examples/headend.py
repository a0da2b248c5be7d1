r"""The head-end of an operator: discovery, an OperatorAuthToken, a session token as a QR code.

Copy what you need. It uses the standard library, PyJWT for the signature and segno for the QR code.

    NAGRA_SECRET=… python examples/headend.py --url http://127.0.0.1:8000 --tenant nagra \
        --kid 70646948-d6fb-4ce8-a433-52a14ee2fa0a --secret-env NAGRA_SECRET --account account-1
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import jwt
import segno

LIFETIME = 600  # seconds; keep it as short as your clock and network allow


class RequestRejected(Exception):
    """AGS rejected a request. The message is its response."""


@dataclass
class HeadEnd:
    """One operator's back office."""

    url: str
    tenant: str
    kid: str
    secret: bytes = field(repr=False)
    algorithm: str = "HS256"

    def services(self) -> dict[str, Any]:
        """Return the authentication services of the tenant."""
        return self._call("GET", "/ags/servicediscovery", {})

    def claims(self, account: str) -> dict[str, Any]:
        """Return the claims about the subscriber. With its jti the token is accepted once."""
        return {
            "typ": "GetSessionTokenAuthN",
            "aud": "ags",
            "exp": int(time.time()) + LIFETIME,
            "OpfTenantId": self.tenant,
            "OpfAccountId": account,
            "jti": str(uuid.uuid4()),
        }

    def operator_auth_token(self, account: str) -> str:
        """Return the claims as a signed JWT."""
        return jwt.encode(self.claims(account), self.secret, self.algorithm, {"kid": self.kid})

    def session_token(self, service: str, account: str) -> str:
        """Exchange the signed token for a session token."""
        body = self._call("POST", *self._session_token_request(service, account))
        return str(body["sessionToken"])

    def discovery_curl(self) -> str:
        """Return discovery as a shell command."""
        return self._curl("GET", "/ags/servicediscovery", {})

    def session_token_curl(self, service: str, account: str) -> str:
        """Return getSessionToken as a shell command. It has a new jti, and works once."""
        return self._curl("POST", *self._session_token_request(service, account))

    def _session_token_request(
        self, service: str, account: str
    ) -> tuple[str, dict[str, str], dict[str, Any]]:
        parameter = {"name": "OperatorAuthToken", "value": self.operator_auth_token(account)}
        return "/ags/getSessionToken", {"x-auth-service-id": service}, {"parameters": [parameter]}

    def _headers(self, more: dict[str, str], body: Any) -> dict[str, str]:
        content = {} if body is None else {"Content-Type": "application/json"}
        return {"nv-tenant-id": self.tenant, **more, **content}

    def _call(self, method: str, path: str, headers: dict[str, str], body: Any = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        # The correlation ID of the request: quote it when you contact the support of AGS.
        headers = {"x-correlation-id": str(uuid.uuid4()), **self._headers(headers, body)}
        request = Request(self.url + path, data, headers, method=method)
        try:
            with urlopen(request, timeout=10) as response:
                response_body: dict[str, Any] = json.load(response)
        except HTTPError as error:
            raise RequestRejected(f"{method} {path}: {error.code} {error.read().decode()}") from None
        except URLError as error:
            raise RequestRejected(f"{method} {path}: {error.reason}") from None
        return response_body

    def _curl(self, method: str, path: str, headers: dict[str, str], body: Any = None) -> str:
        words = ["curl", "-sS", *(["-X", method] if method != "GET" else []), self.url + path]
        for name, value in self._headers(headers, body).items():
            words += ["-H", f"{name}: {value}"]
        if body is not None:
            words += ["-d", json.dumps(body)]
        return shlex.join(words)


def show(head_end: HeadEnd, account: str) -> tuple[str, str]:
    """Execute and print every step. Return the name of the service and the session token."""
    print("1. The head-end requests the services of the tenant.\n")
    print(f"   {head_end.discovery_curl()}\n")
    services = head_end.services()
    print(_indented(services))
    service = services["availableServices"][0]["authServiceName"]

    print(f"2. It signs these claims about the subscriber with its key {head_end.kid}:\n")
    print(_indented(head_end.claims(account)))

    print("3. It exchanges the signed token for a session token.")
    print("   (This command has a token of its own, which works once and for ten minutes.)\n")
    print(f"   {head_end.session_token_curl(service, account)}\n")
    token = head_end.session_token(service, account)
    print(_indented({"sessionToken": token}))

    print(f"4. The set-top box shows the session token of {account}:\n")
    print(f"   {token}\n")
    segno.make(token, micro=False).terminal(compact=True, border=2)
    print()
    return service, token


def _indented(response: Any) -> str:
    return "\n".join(f"   {line}" for line in json.dumps(response, indent=2).splitlines()) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Get a session token from AGS, as a head-end does.")
    parser.add_argument("--url", required=True, help="the URL of AGS, such as http://127.0.0.1:8000")
    parser.add_argument("--tenant", required=True, help="the nv-tenant-id")
    parser.add_argument("--kid", required=True, help="the key ID of the secret")
    parser.add_argument("--secret-env", required=True, help="the environment variable that holds the secret")
    parser.add_argument(
        "--account", default="SessionTokenSignOnAccount-0001", help="the subscriber's account"
    )
    arguments = parser.parse_args()
    secret = os.environ.get(arguments.secret_env)
    if not secret:
        sys.exit(f"headend: the environment variable {arguments.secret_env} is not set")
    head_end = HeadEnd(arguments.url.rstrip("/"), arguments.tenant, arguments.kid, secret.encode())
    try:
        show(head_end, arguments.account)
    except RequestRejected as error:
        sys.exit(f"headend: {error}")


if __name__ == "__main__":
    main()
