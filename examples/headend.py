r"""What an operator's head-end does: discover, sign an OperatorAuthToken, get and show a session token.

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

LIFETIME = 600  # seconds; as short as your clock and your network allow


class Refused(Exception):
    """AGS said no; the message is its answer."""


@dataclass
class HeadEnd:
    """One operator's back office."""

    url: str
    tenant: str
    kid: str
    secret: bytes = field(repr=False)
    algorithm: str = "HS256"

    def services(self) -> dict[str, Any]:
        """Ask which authentication services the tenant offers."""
        return self._call("GET", "/ags/servicediscovery", {})

    def claims(self, account: str) -> dict[str, Any]:
        """Say who the subscriber is. The jti makes it good for one session token."""
        return {
            "typ": "GetSessionTokenAuthN",
            "aud": "ags",
            "exp": int(time.time()) + LIFETIME,
            "OpfTenantId": self.tenant,
            "OpfAccountId": account,
            "jti": str(uuid.uuid4()),
        }

    def operator_auth_token(self, account: str) -> str:
        """Sign it."""
        return jwt.encode(self.claims(account), self.secret, self.algorithm, {"kid": self.kid})

    def session_token(self, service: str, account: str) -> str:
        """Exchange the signed token for a session token."""
        answer = self._call("POST", *self._session_token_request(service, account))
        return str(answer["sessionToken"])

    def discovery_curl(self) -> str:
        """Return the discovery as a line for a shell."""
        return self._curl("GET", "/ags/servicediscovery", {})

    def session_token_curl(self, service: str, account: str) -> str:
        """Return a request of its own as a line for a shell: with a new jti, so it works once."""
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
        # One correlation id for the call flow: quote it when you ask the operator of AGS for help.
        headers = {"x-correlation-id": str(uuid.uuid4()), **self._headers(headers, body)}
        request = Request(self.url + path, data, headers, method=method)
        try:
            with urlopen(request, timeout=10) as response:
                answer: dict[str, Any] = json.load(response)
        except HTTPError as refusal:
            raise Refused(f"{method} {path}: {refusal.code} {refusal.read().decode()}") from None
        except URLError as problem:
            raise Refused(f"{method} {path}: {problem.reason}") from None
        return answer

    def _curl(self, method: str, path: str, headers: dict[str, str], body: Any = None) -> str:
        words = ["curl", "-sS", *(["-X", method] if method != "GET" else []), self.url + path]
        for name, value in self._headers(headers, body).items():
            words += ["-H", f"{name}: {value}"]
        if body is not None:
            words += ["-d", json.dumps(body)]
        return shlex.join(words)


def show(head_end: HeadEnd, account: str) -> tuple[str, str]:
    """Go the whole way, and print every step; return the service, and its session token."""
    print("1. Which services does the tenant offer?\n")
    print(f"   {head_end.discovery_curl()}\n")
    services = head_end.services()
    print(_indented(services))
    service = services["availableServices"][0]["authServiceName"]

    print(f"2. Who the subscriber is, as the head-end signs it with its key {head_end.kid}:\n")
    print(_indented(head_end.claims(account)))

    print("3. This proof, signed, for a session token.")
    print("   (This line has a token of its own, which works once and for ten minutes.)\n")
    print(f"   {head_end.session_token_curl(service, account)}\n")
    token = head_end.session_token(service, account)
    print(_indented({"sessionToken": token}))

    print(f"4. The session token of {account}, for the screen of the set-top box:\n")
    print(f"   {token}\n")
    segno.make(token, micro=False).terminal(compact=True, border=2)
    print()
    return service, token


def _indented(answer: Any) -> str:
    return "\n".join(f"   {line}" for line in json.dumps(answer, indent=2).splitlines()) + "\n"


def main() -> None:
    """Read the arguments, and show."""
    parser = argparse.ArgumentParser(description="Get a session token from AGS, as a head-end does.")
    parser.add_argument("--url", required=True, help="where AGS is, such as http://127.0.0.1:8000")
    parser.add_argument("--tenant", required=True, help="the nv-tenant-id")
    parser.add_argument("--kid", required=True, help="the key ID that AGS knows your secret by")
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
    except Refused as refusal:
        sys.exit(f"headend: {refusal}")


if __name__ == "__main__":
    main()
