"""Requests that Django raises on, or whose text it logs: each gets an answer, and the log nothing."""

from __future__ import annotations

import pytest

from tests.live.server import ServerProcess, exchange

pytestmark = pytest.mark.once

MARKER = "marker-0815"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"

# The first two raise in Django's constructor, those with a known charset later, where it is used.
CONTENT_TYPES = {
    "a parameter of 4,400 digits": f"{JSON};charset*{'9' * 4400}=a{MARKER}",
    "parts in the wrong order": f"{JSON};charset*0*=utf-8'en'x{MARKER};charset*0=1",
    "a part without a number": f"{JSON};charset*0*=a;charset*={MARKER}''b",
    "an unknown charset of RFC 2231": f"{JSON};charset*={MARKER}''a",
    "no text encoding": f"{FORM};charset=base64;a={MARKER}",
    "an encoding that always raises": f"{FORM};charset=undefined;a={MARKER}",
    "an unknown charset": f"{JSON};charset={MARKER}",
    "a boundary in parts": f"multipart/form-data;boundary*0*=utf-8'en'x;boundary*0={MARKER}",
}
ADDRESSES = {
    "POST /ags/getSessionToken": (415, "unsupported_media_type"),
    "POST /oauth/introspect": (415, "form_expected"),
    "POST /nowhere": (404, "not_found"),
    "GET /.well-known/jwks.json?tenant=%41": (404, "no_key_set"),
    "GET /healthz": (200, None),
    "POST /admin/login/": (400, "Bad request"),
    "GET /admin/login/?next=%41": (400, "Bad request"),
    "GET /static/nothing": (400, "request_malformed"),
}


def sent(line: str, *headers: str, body: str = "", host: str = "localhost") -> bytes:
    """A whole request in Latin-1, the last of its connection."""
    good = [
        "X-Forwarded-Proto: https",
        "Connection: close",
        "nv-tenant-id: nagra",
        "x-auth-service-id: Login",
    ]
    lines = [f"{line} HTTP/1.1", f"Host: {host}", *good, *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", body]).encode("latin-1")


def check(server: ServerProcess, raw: bytes, status: int, reason: str | None) -> None:
    """Check the answer, and that nothing but its own line was logged: the server logs from WARNING."""
    known = len(server.log)
    (answer,) = exchange(server.port, raw)
    assert answer.status_code == status
    if reason is not None and " " in reason:  # the title of a page of the admin
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert f">{reason}</h2>".encode() in answer.content
        assert answer.headers["x-correlation-id"].encode() in answer.content
    elif reason is not None:
        assert answer.json()["reason"] == reason
        assert answer.headers["Content-Type"] == JSON
        assert answer.headers["x-correlation-id"] == answer.json()["correlationId"]
        assert MARKER.encode() not in answer.content
    assert server.log[known:] == ""


@pytest.mark.parametrize("content_type", CONTENT_TYPES.values(), ids=CONTENT_TYPES)
def test_a_content_type_that_nobody_can_read(server: ServerProcess, content_type: str) -> None:
    for line, (status, reason) in ADDRESSES.items():
        check(server, sent(line, f"Content-Type: {content_type}", body="a=b"), status, reason)


def part(disposition: str) -> str:
    """A form of one part with that header."""
    return f"--x\r\nContent-Disposition: form-data; {disposition}\r\n\r\nvalue\r\n--x--\r\n"


FORMS = {
    "a part without a number": (MULTIPART, part(f"name*0*=a; name*={MARKER}")),
    "another charset": (f"{FORM}; charset=latin-1", f"username={MARKER}"),
    "no boundary": ("multipart/form-data", MARKER),
}


@pytest.mark.parametrize(("content_type", "body"), FORMS.values(), ids=FORMS)
def test_a_form_of_staff_that_nobody_can_read(server: ServerProcess, content_type: str, body: str) -> None:
    raw = sent("POST /admin/login/", f"Content-Type: {content_type}", body=body)
    check(server, raw, *BAD_PAGE)


BAD_PAGE = (400, "Bad request")
MALFORMED = (400, "request_malformed")
HOST = (400, "host_invalid")
NOT_FOUND = (404, "not_found")
MANY = "&".join(["a"] * 1100)
ODD = {
    "a path that is not UTF-8": (sent(f"GET /\xff{MARKER}"), *MALFORMED),
    "a path of staff that is not UTF-8": (sent(f"GET /docs/\xff{MARKER}"), *MALFORMED),
    "a percent-encoded path that is not UTF-8": (sent(f"GET /static/%ff%fe{MARKER}"), *NOT_FOUND),
    "a target with half an address": (sent(f"GET http://[::1{MARKER}/"), *MALFORMED),
    "many fields in a query": (sent(f"GET /.well-known/jwks.json?{MANY}"), 413, "body_too_large"),
    "many fields in a query of staff": (sent(f"GET /admin/login/?{MANY}"), *BAD_PAGE),
    "a host of other letters": (sent("GET /docs/", host=f"\xff{MARKER}"), *HOST),
    "a host of other letters, for staff": (
        sent("GET /admin/", host=f"\xff{MARKER}"),
        400,
        "This host is not allowed",
    ),
    "a port that is no number": (sent("GET /nowhere", host=f"localhost:{MARKER}"), *HOST),
    "a user in the host": (sent("GET /static/x", host=f"{MARKER}@localhost"), *HOST),
    "half an address as host": (sent("GET /docs/", host="[::1"), *HOST),
    "a length of 5,000 digits": (sent("POST /admin/login/", f"Content-Length: {'9' * 5000}"), *BAD_PAGE),
    "a length that is no number": (sent("POST /ags/signOn", f"Content-Length: {MARKER}"), *MALFORMED),
    "a session with a NUL": (sent("GET /admin/", rf'Cookie: sessionid="\000aaaaaaaa{MARKER}"'), 302, None),
    "cookies of other letters": (sent("GET /nowhere", f"Cookie: \xff=\xff{MARKER};=;;"), *NOT_FOUND),
    "an origin of another site": (
        sent("POST /admin/login/", f"Origin: https://{MARKER}.example", f"Content-Type: {FORM}", body="a=b"),
        403,
        "The form comes from another address",
    ),
    "a referer with half an address": (
        sent("POST /admin/login/", f"Referer: http://[::1{MARKER}", f"Content-Type: {FORM}", body="a=b"),
        403,
        "The form comes from another address",
    ),
    "credentials of other letters": (
        sent(
            "POST /oauth/revoke",
            f"Authorization: Basic \xff{MARKER}",
            f"Content-Type: {FORM}",
            body="token=a",
        ),
        401,
        "client_not_authenticated",
    ),
    "a script name": (sent(f"GET /{MARKER}", f"SCRIPT_NAME: /{MARKER}", "Script-Name: \xff"), *NOT_FOUND),
}


@pytest.mark.parametrize(("raw", "status", "reason"), ODD.values(), ids=ODD)
def test_an_odd_request_gets_json_or_a_page(
    server: ServerProcess, raw: bytes, status: int, reason: str | None
) -> None:
    check(server, raw, status, reason)
