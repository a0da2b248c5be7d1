r"""A client app: it redeems a session token, stays signed on, and signs out.

Copy what you need. It uses the standard library only.

    python examples/client_app.py --url http://127.0.0.1:8000 --tenant nagra \
        --service "Customer Auth Service" --session-token r2naufcapudvynsynmppvlj5q6
"""

from __future__ import annotations

import argparse
import base64
import json
import shlex
import sys
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

DEVICE_UNKNOWN = 20003
DEVICE = {
    "deviceType": "Android",
    "playoutDeviceClass": "Mobile",
    "device": {"screen": {"height": 1080, "width": 1920}, "OS": {"name": "Android", "version": "16"}},
}


class RequestRejected(Exception):
    """AGS rejected a request. The message is its response; `code` is the error code in it, or 0."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class Call(NamedTuple):
    """A request of the app, without the headers that all requests have."""

    path: str
    headers: dict[str, str]
    body: Any = None


@dataclass
class ClientApp:
    """An app on a device. Store `client_id` and `tokens` in the secure storage of the system."""

    url: str
    tenant: str
    service: str
    client_id: str | None = None
    tokens: dict[str, Any] = field(default_factory=dict, repr=False)

    def sign_on(self, session_token: str) -> dict[str, Any]:
        """Redeem a session token as a known device, or as a new one. Raises `RequestRejected`."""
        try:
            self.tokens = self._send(self.sign_on_call(session_token))
        except RequestRejected as error:
            if error.code != DEVICE_UNKNOWN or self.client_id is None:
                raise
            # The device was deleted. The session token is still valid: sign on as a new device.
            self.client_id = None
            return self.sign_on(session_token)
        self.client_id = self.tokens["client_id"]
        return self.tokens

    def refresh(self) -> dict[str, Any]:
        """Replace both tokens. Raises `RequestRejected`.

        If the response was lost, repeat the request at once: for a few seconds it gets the same response.
        """
        self.tokens = self._send(self.refresh_call())
        return self.tokens

    def sign_out(self) -> None:
        """End the sign-on. The device stays registered: keep `client_id`. Raises `RequestRejected`."""
        self._send(self.sign_out_call())
        self.tokens = {}

    def sign_on_call(self, session_token: str) -> Call:
        """Return the request: with the device information first, with the client_id later."""
        device: dict[str, Any] = {"deviceInformation": DEVICE}
        if self.client_id is not None:
            device = {"clientId": self.client_id}
        parameters = [{"name": "sessionToken", "value": session_token}]
        headers = {"x-auth-service-id": self.service}
        return Call("/ags/signOnWithSessionToken", headers, {"parameters": parameters, **device})

    def refresh_call(self) -> Call:
        """Return the request. It needs the refresh token and no body."""
        return Call(
            "/ias/v3/token/actions/refresh", {"Authorization": f"Bearer {self.tokens['refresh_token']}"}
        )

    def sign_out_call(self) -> Call:
        """Return the request. The access token identifies the sign-on."""
        return Call(
            "/ags/signOut",
            {"x-auth-service-id": self.service, "Authorization": f"Bearer {self.tokens['access_token']}"},
        )

    def curl(self, call: Call) -> str:
        """Return a request as a shell command."""
        words = ["curl", "-sS", "-X", "POST", self.url + call.path]
        for name, value in self._headers(call).items():
            words += ["-H", f"{name}: {value}"]
        if call.body is not None:
            words += ["-d", json.dumps(call.body)]
        return shlex.join(words)

    def _headers(self, call: Call) -> dict[str, str]:
        content = {} if call.body is None else {"Content-Type": "application/json"}
        return {"nv-tenant-id": self.tenant, **call.headers, **content}

    def _send(self, call: Call) -> dict[str, Any]:
        data = None if call.body is None else json.dumps(call.body).encode()
        request = Request(self.url + call.path, data, self._headers(call), method="POST")
        try:
            with urlopen(request, timeout=10) as response:
                body: dict[str, Any] = json.load(response)
        except HTTPError as error:
            text = error.read().decode()
            raise RequestRejected(f"POST {call.path}: {error.code} {text}", _code(text)) from None
        except URLError as error:
            raise RequestRejected(f"POST {call.path}: {error.reason}") from None
        return body


def claims(token: str) -> dict[str, Any]:
    """Return the claims of a JWT without verifying it. Only a resource server has to verify it."""
    payload = token.split(".")[1]
    result: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return result


def _code(text: str) -> int:
    try:
        return int(json.loads(text)["code"])
    except (ValueError, KeyError, TypeError):
        return 0


def show(app: ClientApp, session_token: str) -> None:
    """Sign on, refresh and sign out; print the responses."""
    print(json.dumps(app.sign_on(session_token), indent=2))
    print(json.dumps(claims(app.tokens["access_token"]), indent=2))
    print(json.dumps(app.refresh(), indent=2))
    app.sign_out()
    print("Signed out.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Sign on to AGS, refresh and sign out, as a client app does."
    )
    parser.add_argument("--url", required=True, help="the URL of AGS, such as http://127.0.0.1:8000")
    parser.add_argument("--tenant", required=True, help="the nv-tenant-id")
    parser.add_argument("--service", required=True, help="the authServiceName of discovery")
    parser.add_argument("--session-token", required=True, help="the content of the QR code")
    arguments = parser.parse_args()
    try:
        show(
            ClientApp(arguments.url.rstrip("/"), arguments.tenant, arguments.service), arguments.session_token
        )
    except RequestRejected as error:
        sys.exit(f"client_app: {error}")


if __name__ == "__main__":
    main()
