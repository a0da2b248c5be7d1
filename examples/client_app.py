r"""What a client app does: redeem a session token, stay signed on, and sign out.

Copy what you need. It uses the standard library alone.

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


class Refused(Exception):
    """AGS said no; the message is its answer, and `code` the number in it (0 where there is none)."""

    def __init__(self, sentence: str, code: int = 0) -> None:
        super().__init__(sentence)
        self.code = code


class Call(NamedTuple):
    """A request of the app, before the headers that all have."""

    path: str
    headers: dict[str, str]
    body: Any = None


@dataclass
class ClientApp:
    """One app on one device. Keep `client_id` and `tokens` where the system keeps secrets."""

    url: str
    tenant: str
    service: str
    client_id: str | None = None
    tokens: dict[str, Any] = field(default_factory=dict, repr=False)

    def sign_on(self, session_token: str) -> dict[str, Any]:
        """Redeem a session token: as the device that this is, or as a new one. Raises `Refused`."""
        try:
            self.tokens = self._answer(self.sign_on_call(session_token))
        except Refused as refusal:
            if refusal.code != DEVICE_UNKNOWN or self.client_id is None:
                raise
            # The device was deleted. The session token is still good: sign on afresh with it.
            self.client_id = None
            return self.sign_on(session_token)
        self.client_id = self.tokens["client_id"]
        return self.tokens

    def refresh(self) -> dict[str, Any]:
        """Get new tokens in the place of both. Raises `Refused`.

        Where the answer was lost, ask again at once: for a few seconds the old token gets the same answer.
        """
        self.tokens = self._answer(self.refresh_call())
        return self.tokens

    def sign_out(self) -> None:
        """End the sign-on. The device stays known: keep `client_id`. Raises `Refused`."""
        self._answer(self.sign_out_call())
        self.tokens = {}

    def sign_on_call(self, session_token: str) -> Call:
        """Send the device once; from then on the client_id stands for it."""
        device: dict[str, Any] = {"deviceInformation": DEVICE}
        if self.client_id is not None:
            device = {"clientId": self.client_id}
        parameters = [{"name": "sessionToken", "value": session_token}]
        headers = {"x-auth-service-id": self.service}
        return Call("/ags/signOnWithSessionToken", headers, {"parameters": parameters, **device})

    def refresh_call(self) -> Call:
        """The refresh token is all that is needed; there is no body."""
        return Call(
            "/ias/v3/token/actions/refresh", {"Authorization": f"Bearer {self.tokens['refresh_token']}"}
        )

    def sign_out_call(self) -> Call:
        """Here the access token says whose sign-on it is."""
        return Call(
            "/ags/signOut",
            {"x-auth-service-id": self.service, "Authorization": f"Bearer {self.tokens['access_token']}"},
        )

    def curl(self, call: Call) -> str:
        """Return a call as a line for a shell."""
        words = ["curl", "-sS", "-X", "POST", self.url + call.path]
        for name, value in self._headers(call).items():
            words += ["-H", f"{name}: {value}"]
        if call.body is not None:
            words += ["-d", json.dumps(call.body)]
        return shlex.join(words)

    def _headers(self, call: Call) -> dict[str, str]:
        content = {} if call.body is None else {"Content-Type": "application/json"}
        return {"nv-tenant-id": self.tenant, **call.headers, **content}

    def _answer(self, call: Call) -> dict[str, Any]:
        data = None if call.body is None else json.dumps(call.body).encode()
        request = Request(self.url + call.path, data, self._headers(call), method="POST")
        try:
            with urlopen(request, timeout=10) as response:
                answer: dict[str, Any] = json.load(response)
        except HTTPError as refusal:
            text = refusal.read().decode()
            raise Refused(f"POST {call.path}: {refusal.code} {text}", _code(text)) from None
        except URLError as problem:
            raise Refused(f"POST {call.path}: {problem.reason}") from None
        return answer


def claims(token: str) -> dict[str, Any]:
    """Read a JWT without verifying it: whom it is for, the app may believe; others verify it."""
    payload = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return found


def _code(text: str) -> int:
    try:
        return int(json.loads(text)["code"])
    except (ValueError, KeyError, TypeError):
        return 0


def show(app: ClientApp, session_token: str) -> None:
    """Go the whole way, and print what is given."""
    print(json.dumps(app.sign_on(session_token), indent=2))
    print(json.dumps(claims(app.tokens["access_token"]), indent=2))
    print(json.dumps(app.refresh(), indent=2))
    app.sign_out()
    print("Signed out.")


def main() -> None:
    """Read the arguments, and show."""
    parser = argparse.ArgumentParser(
        description="Sign on to AGS, refresh and sign out, as a client app does."
    )
    parser.add_argument("--url", required=True, help="where AGS is, such as http://127.0.0.1:8000")
    parser.add_argument("--tenant", required=True, help="the nv-tenant-id")
    parser.add_argument("--service", required=True, help="the authServiceName of discovery")
    parser.add_argument("--session-token", required=True, help="what the QR code holds")
    arguments = parser.parse_args()
    try:
        show(
            ClientApp(arguments.url.rstrip("/"), arguments.tenant, arguments.service), arguments.session_token
        )
    except Refused as refusal:
        sys.exit(f"client_app: {refusal}")


if __name__ == "__main__":
    main()
