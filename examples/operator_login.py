r"""The endpoint of an operator for the provider `operator_login`: it verifies passwords.

Copy what you need; it uses the standard library only. Replace the dictionary of subscribers by your database.
AGS authenticates with the user `ags` and the password in `LOGIN_SECRET`.

    LOGIN_SECRET=… python examples/operator_login.py --certificate server.pem --key server.key --port 8443
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def digest(password: str) -> bytes:
    """Return the hash of a password. Use another salt for each of your subscribers."""
    return hashlib.scrypt(password.encode(), salt=b"of the example", n=2**14, r=8, p=1)


ANNA = {"accountId": "account-1", "accountInformation": "Home"}
CABIN = {"accountId": "account-2", "accountInformation": "Cabin"}
# (tenant, username): (hash of the password, accounts, reason to refuse the login)
SUBSCRIBERS: dict[tuple[str, str], tuple[bytes, list[dict[str, str]], str]] = {
    ("nagra", "anna"): (digest("anna's password"), [ANNA], ""),
    ("nagra", "bert"): (digest("bert's password"), [ANNA, CABIN], ""),
    ("nagra", "carl"): (digest("carl's password"), [CABIN], "account_suspended"),
}
UNKNOWN: tuple[bytes, list[dict[str, str]], str] = (bytes(64), [], "")


def verify_password(tenant: str, username: str, password: str) -> tuple[int, dict[str, Any]]:
    """Return status and body. An unknown subscriber takes the same time as a wrong password."""
    stored, accounts, reason = SUBSCRIBERS.get((tenant, username), UNKNOWN)
    if not hmac.compare_digest(stored, digest(password)):
        return 401, {"reason": "invalid_credentials"}
    return (403, {"reason": reason}) if reason else (200, {"accounts": accounts})


class Login(BaseHTTPRequestHandler):
    """POST {"tenant": …, "username": …, "password": …}."""

    protocol_version = "HTTP/1.1"
    timeout = 10
    expected = b""

    def do_POST(self) -> None:
        """Authenticate AGS, then verify the password."""
        request = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 16_384))
        if not hmac.compare_digest(self.headers.get("Authorization", "").encode(), self.expected):
            self.respond(401, {})
            return
        try:
            members = json.loads(request)
            status, body = verify_password(members["tenant"], members["username"], members["password"])
        except (ValueError, KeyError, TypeError, AttributeError):
            status, body = 400, {}
        self.respond(status, body)

    def respond(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def main() -> None:
    parser = argparse.ArgumentParser(description="Verify passwords for AGS.")
    parser.add_argument("--certificate", required=True, help="the certificate chain of this server, in PEM")
    parser.add_argument("--key", required=True, help="the private key, in PEM")
    parser.add_argument("--port", type=int, default=8443)
    arguments = parser.parse_args()
    pair = f"ags:{os.environ['LOGIN_SECRET']}".encode()
    Login.expected = b"Basic " + base64.b64encode(pair)
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Login)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.certificate, arguments.key)
    # The thread of the connection does the handshake, so that a slow client does not delay others.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(f"https://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
