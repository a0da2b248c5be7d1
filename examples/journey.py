"""The whole way of one subscriber, told step by step: what `make demo` and `make run` show.

Each step has a line to paste into a shell. What works only once is in it once more, for the line alone.
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


def tell(head_end: HeadEnd) -> None:
    """Go the whole way, and print every step. Raises what the examples raise when AGS says no."""
    service, session_token = headend.show(head_end, ACCOUNT)
    app = ClientApp(head_end.url, head_end.tenant, service)
    # A device of the lines that are pasted, so that they and the story do not get into each other's way.
    other = ClientApp(head_end.url, head_end.tenant, service)
    other.sign_on(head_end.session_token(service, ACCOUNT))

    print("5. The client app has scanned it, and redeems it for tokens.")
    print("   (This line has a session token of its own, which works once and for five minutes.)\n")
    print(f"   {app.curl(app.sign_on_call(head_end.session_token(service, ACCOUNT)))}\n")
    print(_indented(_shortened(app.sign_on(session_token))))
    for name in ("access_token", "refresh_token"):
        print(f"   What the {name} says:\n")
        print(_indented(claims(app.tokens[name])))

    print("6. A service that is called with the access token verifies it with the key set of the tenant.\n")
    resource_server = ResourceServer(head_end.url, head_end.tenant)
    print(f"   {shlex.join(['curl', '-sS', resource_server.key_set])}\n")
    verified = resource_server.verified(app.tokens["access_token"])
    print(f"   The signature is right. The account is {verified['accountId']}.\n")

    print("7. The app refreshes before the access token expires. Both tokens are replaced.")
    print("   (This line is that of another device. It works once.)\n")
    print(f"   {other.curl(other.refresh_call())}\n")
    print(_indented(_shortened(app.refresh())))

    print("8. The app signs out.")
    print("   (This line signs the other device out.)\n")
    print(f"   {other.curl(other.sign_out_call())}\n")
    who_kept_the_tokens = replace(app)
    app.sign_out()
    print("   From then on its refresh token is refused:\n")
    try:
        who_kept_the_tokens.refresh()
    except client_app.Refused as refusal:
        print(f"   {refusal}\n")


def _shortened(bundle: dict[str, Any]) -> dict[str, Any]:
    """The tokens are long, and are shown by what they say."""
    return {name: f"{value[:20]}…" if name.endswith("_token") else value for name, value in bundle.items()}


def _indented(answer: Any) -> str:
    text = json.dumps(answer, indent=2, ensure_ascii=False)
    return "\n".join(f"   {line}" for line in text.splitlines()) + "\n"
