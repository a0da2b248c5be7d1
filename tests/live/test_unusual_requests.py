"""Requests that make Django raise or log input: they get an error, and the log contains nothing of them."""

from __future__ import annotations

import pytest

from tests.support.server import ServerProcess, exchange_bytes

pytestmark = pytest.mark.once

MARKER = "marker-0815"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"

# The first two raise in Django's constructor, known charsets later, when they are used.
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
URLS = {
    "POST /ags/getSessionToken": (415, "unsupported_media_type"),
    "POST /oauth/introspect": (415, "form_expected"),
    "POST /nowhere": (404, "not_found"),
    "GET /.well-known/jwks.json?tenant=%41": (404, "no_key_set"),
    "GET /healthz": (200, None),
    "POST /admin/login/": (400, "Bad request"),
    "GET /admin/login/?next=%41": (400, "Bad request"),
    "GET /static/nothing": (400, "request_malformed"),
}


def build_request(line: str, *headers: str, body: str = "", host: str = "localhost") -> bytes:
    """Return a complete request in Latin-1 with `Connection: close`."""
    headers_ = [
        "X-Forwarded-Proto: https",
        "Connection: close",
        "nv-tenant-id: nagra",
        "x-auth-service-id: Login",
    ]
    lines = [f"{line} HTTP/1.1", f"Host: {host}", *headers_, *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", body]).encode("latin-1")


def check(server: ServerProcess, raw: bytes, status: int, reason: str | None) -> None:
    """Check the response, and that nothing was logged: the log level of the server is WARNING."""
    logged = len(server.log)
    (response,) = exchange_bytes(server.port, raw)
    assert response.status_code == status
    if reason is not None and " " in reason:  # the title of an error page
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert f">{reason}</h2>".encode() in response.content
        assert response.headers["x-correlation-id"].encode() in response.content
    elif reason is not None:
        assert response.json()["reason"] == reason
        assert response.headers["Content-Type"] == JSON
        assert response.headers["x-correlation-id"] == response.json()["correlationId"]
        assert MARKER.encode() not in response.content
    assert server.log[logged:] == ""


@pytest.mark.parametrize("content_type", CONTENT_TYPES.values(), ids=CONTENT_TYPES)
def test_malformed_content_type(server: ServerProcess, content_type: str) -> None:
    for line, (status, reason) in URLS.items():
        check(server, build_request(line, f"Content-Type: {content_type}", body="a=b"), status, reason)


def part(disposition: str) -> str:
    """Return a multipart form with one part."""
    return f"--x\r\nContent-Disposition: form-data; {disposition}\r\n\r\nvalue\r\n--x--\r\n"


FORMS = {
    "a part without a number": (MULTIPART, part(f"name*0*=a; name*={MARKER}")),
    "another charset": (f"{FORM}; charset=latin-1", f"username={MARKER}"),
    "no boundary": ("multipart/form-data", MARKER),
}


@pytest.mark.parametrize(("content_type", "body"), FORMS.values(), ids=FORMS)
def test_malformed_staff_form(server: ServerProcess, content_type: str, body: str) -> None:
    raw = build_request("POST /admin/login/", f"Content-Type: {content_type}", body=body)
    check(server, raw, *BAD_PAGE)


BAD_PAGE = (400, "Bad request")
MALFORMED = (400, "request_malformed")
HOST = (400, "host_invalid")
NOT_FOUND = (404, "not_found")
MANY_FIELDS = "&".join(["a"] * 1100)
UNUSUAL = {
    "a path that is not UTF-8": (build_request(f"GET /\xff{MARKER}"), *MALFORMED),
    "a path of staff that is not UTF-8": (build_request(f"GET /docs/\xff{MARKER}"), *MALFORMED),
    "a percent-encoded path that is not UTF-8": (build_request(f"GET /static/%ff%fe{MARKER}"), *NOT_FOUND),
    "a target with half an address": (build_request(f"GET http://[::1{MARKER}/"), *MALFORMED),
    "many fields in a query": (
        build_request(f"GET /.well-known/jwks.json?{MANY_FIELDS}"),
        413,
        "body_too_large",
    ),
    "many fields in a query of staff": (build_request(f"GET /admin/login/?{MANY_FIELDS}"), *BAD_PAGE),
    "a host of other letters": (build_request("GET /docs/", host=f"\xff{MARKER}"), *HOST),
    "a host of other letters, for staff": (
        build_request("GET /admin/", host=f"\xff{MARKER}"),
        400,
        "This host is not allowed",
    ),
    "a port that is no number": (build_request("GET /nowhere", host=f"localhost:{MARKER}"), *HOST),
    "a user in the host": (build_request("GET /static/x", host=f"{MARKER}@localhost"), *HOST),
    "half an address as host": (build_request("GET /docs/", host="[::1"), *HOST),
    "a length of 5,000 digits": (
        build_request("POST /admin/login/", f"Content-Length: {'9' * 5000}"),
        *BAD_PAGE,
    ),
    "a length that is no number": (
        build_request("POST /ags/signOn", f"Content-Length: {MARKER}"),
        *MALFORMED,
    ),
    "a session with a NUL": (
        build_request("GET /admin/", rf'Cookie: sessionid="\000aaaaaaaa{MARKER}"'),
        302,
        None,
    ),
    "cookies of other letters": (build_request("GET /nowhere", f"Cookie: \xff=\xff{MARKER};=;;"), *NOT_FOUND),
    "an origin of another site": (
        build_request(
            "POST /admin/login/", f"Origin: https://{MARKER}.example", f"Content-Type: {FORM}", body="a=b"
        ),
        403,
        "The form comes from another origin",
    ),
    "a referer with half an address": (
        build_request(
            "POST /admin/login/", f"Referer: http://[::1{MARKER}", f"Content-Type: {FORM}", body="a=b"
        ),
        403,
        "The form comes from another origin",
    ),
    "credentials of other letters": (
        build_request(
            "POST /oauth/revoke",
            f"Authorization: Basic \xff{MARKER}",
            f"Content-Type: {FORM}",
            body="token=a",
        ),
        401,
        "client_not_authenticated",
    ),
    "a script name": (
        build_request(f"GET /{MARKER}", f"SCRIPT_NAME: /{MARKER}", "Script-Name: \xff"),
        *NOT_FOUND,
    ),
}


@pytest.mark.parametrize(("raw", "status", "reason"), UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_request(server: ServerProcess, raw: bytes, status: int, reason: str | None) -> None:
    check(server, raw, status, reason)
