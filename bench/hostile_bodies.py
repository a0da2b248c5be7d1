"""The CPU time to reject expensive JSON: `python -m bench.hostile_bodies`.

The input is an unterminated string of escaped quotation marks, nested more deeply than is allowed. It is used
as the body of a request, the header of a JWT, the response of an upstream, and a JWK set, in the largest size
that AGS reads. Prints the median CPU time of each. More than 20 ms is a failure.
"""

from __future__ import annotations

import base64
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator

CALLS = 25
MAX_MILLISECONDS = 20.0
"""Of CPU time."""


def hostile_json(size: int) -> bytes:
    """Return JSON of `size` bytes, or one less."""
    begin = b'{"parameters":' + b"[" * 33 + b'"'
    return begin + b'\\"' * ((size - len(begin)) // 2)


def main() -> int:
    """Measure and print; fail if an input takes too long."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    from bench.in_process import discard_stderr

    django.setup()
    slow = 0
    for what, size, refuse in _inputs():
        with discard_stderr():
            milliseconds = _cpu(refuse)
        slow += milliseconds > MAX_MILLISECONDS
        print(f"{what:32} {size:7,} bytes {milliseconds:6.2f} ms", flush=True)
    return 1 if slow else 0


def _inputs() -> Iterator[tuple[str, int, Callable[[], None]]]:
    """Yield the name of each input, its size, and a function that reads it and checks that it is rejected."""
    from ags.api.request.body import MAX_BYTES
    from bench.in_process import start_application
    from providers.contract import PARAMETER_MAX_LENGTH, KeyRing, UpstreamUnavailable, VerificationFailed
    from providers.jose import verify_jws
    from providers.jwks import JWKSetReader
    from providers.upstream import Response, documents, http

    body = hostile_json(MAX_BYTES)
    head = f"POST /ags/getSessionToken HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
    request = f"{head}\r\nContent-Type: application/json\r\nnv-tenant-id: a\r\nx-auth-service-id: a\r\n\r\n"
    with start_application() as running:

        def post() -> None:
            if running.respond(request.encode() + body).status != 400:
                raise AssertionError("the body was not rejected as malformed")

        yield "body of a request", len(body), post

    header = hostile_json(PARAMETER_MAX_LENGTH * 3 // 4 - 12)
    token = f"{base64.urlsafe_b64encode(header).rstrip(b'=').decode()}.e30.AAAA"
    yield (
        "header of a JWT",
        len(token),
        _expect_error(VerificationFailed, lambda: verify_jws(token, KeyRing("a", {}), 0.0)),
    )

    response = Response(200, {}, hostile_json(http.LIMIT))
    yield (
        "response of an upstream",
        len(response.body),
        _expect_error(UpstreamUnavailable, response.json_object),
    )

    keys, reader = hostile_json(documents.LIMIT), JWKSetReader("a", ("RS256",))
    yield "JWK set", len(keys), _expect_error(UpstreamUnavailable, lambda: reader(keys))


def _expect_error(by: type[Exception], read: Callable[[], object]) -> Callable[[], None]:
    def refuse() -> None:
        try:
            read()
        except by:
            return
        raise AssertionError("the input was not rejected")

    return refuse


def _cpu(call: Callable[[], None]) -> float:
    """Return the median CPU time of a call in milliseconds."""
    call()
    taken = []
    for _ in range(CALLS):
        began = time.process_time()
        call()
        taken.append((time.process_time() - began) * 1000)
    return statistics.median(taken)


if __name__ == "__main__":
    sys.exit(main())
