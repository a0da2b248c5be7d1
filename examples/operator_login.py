r"""What an operator runs for the provider `operator_login`: an endpoint that judges passwords.

Copy what you need; it uses the standard library alone. Its subscribers are in a table, where yours are in a
database. `LOGIN_SECRET` is the secret by which it knows AGS, whose user is `ags`.

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
    """What is stored of a password. Let each of yours have a salt of its own."""
    return hashlib.scrypt(password.encode(), salt=b"of the example", n=2**14, r=8, p=1)


ANNA = {"accountId": "account-1", "accountInformation": "Home"}
CABIN = {"accountId": "account-2", "accountInformation": "Cabin"}
# tenant and username: the password's digest, the accounts, and why there is no way in
SUBSCRIBERS: dict[tuple[str, str], tuple[bytes, list[dict[str, str]], str]] = {
    ("nagra", "anna"): (digest("anna's password"), [ANNA], ""),
    ("nagra", "bert"): (digest("bert's password"), [ANNA, CABIN], ""),
    ("nagra", "carl"): (digest("carl's password"), [CABIN], "account_suspended"),
}
NOBODY: tuple[bytes, list[dict[str, str]], str] = (bytes(64), [], "")


def judge(tenant: str, username: str, password: str) -> tuple[int, dict[str, Any]]:
    """Return status and body. An unknown subscriber costs the same time as a wrong password."""
    stored, accounts, reason = SUBSCRIBERS.get((tenant, username), NOBODY)
    if not hmac.compare_digest(stored, digest(password)):
        return 401, {"reason": "invalid_credentials"}
    return (403, {"reason": reason}) if reason else (200, {"accounts": accounts})


class Login(BaseHTTPRequestHandler):
    """POST {"tenant": …, "username": …, "password": …}."""

    protocol_version = "HTTP/1.1"
    timeout = 10
    expected = b""

    def do_POST(self) -> None:
        """Judge, once AGS has proven that it is AGS."""
        asked = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 16_384))
        if not hmac.compare_digest(self.headers.get("Authorization", "").encode(), self.expected):
            self.answer(401, {})
            return
        try:
            words = json.loads(asked)
            status, body = judge(words["tenant"], words["username"], words["password"])
        except (ValueError, KeyError, TypeError, AttributeError):
            status, body = 400, {}
        self.answer(status, body)

    def answer(self, status: int, body: dict[str, Any]) -> None:
        """Send it as JSON."""
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def main() -> None:
    """Read the arguments, and serve."""
    parser = argparse.ArgumentParser(description="Judge passwords for AGS.")
    parser.add_argument("--certificate", required=True, help="of this server and those above, in PEM")
    parser.add_argument("--key", required=True, help="its private key, in PEM")
    parser.add_argument("--port", type=int, default=8443)
    arguments = parser.parse_args()
    pair = f"ags:{os.environ['LOGIN_SECRET']}".encode()
    Login.expected = b"Basic " + base64.b64encode(pair)
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Login)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.certificate, arguments.key)
    # The handshake belongs to the thread of the connection: whoever stalls in it stalls nobody else.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(f"https://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
