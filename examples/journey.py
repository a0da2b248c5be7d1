"""The sign-on of one subscriber, step by step: the output of `make demo` and `make run`.

Each step has a command to paste into a shell. A command with a token that works once has a token of its own.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import Any

import client_app
import headend
from client_app import ClientApp, claims
from headend import HeadEnd
from resource_server import ResourceServer

ACCOUNT = "SessionTokenSignOnAccount-0001"


def show_journey(head_end: HeadEnd) -> None:
    """Execute and print every step. Raises the exceptions of the examples if AGS rejects a request."""
    service, session_token = headend.show(head_end, ACCOUNT)
    app = ClientApp(head_end.url, head_end.tenant, service)
    # The device of the commands, so that they do not interfere with the steps.
    other = ClientApp(head_end.url, head_end.tenant, service)
    other.sign_on(head_end.session_token(service, ACCOUNT))

    print("5. The client app scans the QR code, and redeems the session token for tokens.")
    print("   (This command has a session token of its own, which works once and for five minutes.)\n")
    print(f"   {app.curl(app.sign_on_call(head_end.session_token(service, ACCOUNT)))}\n")
    print(_indented(_shortened(app.sign_on(session_token))))
    for name in ("access_token", "refresh_token"):
        print(f"   The claims of the {name}:\n")
        print(_indented(claims(app.tokens[name])))

    print("6. A resource server verifies the access token with the key set of the tenant.\n")
    resource_server = ResourceServer(head_end.url, head_end.tenant)
    print(f"   {shlex.join(['curl', '-sS', resource_server.jwks_url])}\n")
    verified = resource_server.verify(app.tokens["access_token"])
    print(f"   The signature is valid. The account is {verified['accountId']}.\n")

    print("7. The app refreshes before the access token expires. Both tokens are replaced.")
    print("   (This command refreshes another device. It works once.)\n")
    print(f"   {other.curl(other.refresh_call())}\n")
    print(_indented(_shortened(app.refresh())))

    print("8. The app signs out.")
    print("   (This command signs out the other device.)\n")
    print(f"   {other.curl(other.sign_out_call())}\n")
    copy_of_app = replace(app)
    app.sign_out()
    print("   Its refresh token is rejected from now on:\n")
    try:
        copy_of_app.refresh()
    except client_app.RequestRejected as error:
        print(f"   {error}\n")


def _shortened(response: dict[str, Any]) -> dict[str, Any]:
    return {name: f"{value[:20]}…" if name.endswith("_token") else value for name, value in response.items()}


def _indented(response: Any) -> str:
    text = json.dumps(response, indent=2, ensure_ascii=False)
    return "\n".join(f"   {line}" for line in text.splitlines()) + "\n"
