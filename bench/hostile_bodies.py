"""What JSON costs that is made to cost as much as it can: `python -m bench.hostile_bodies`.

A string of escaped quotation marks that never ends, inside more brackets than are allowed. It is the body of
a request, the header of a JWT, the answer of an upstream, and a key set, each as large as AGS reads it.
Printed is the CPU time that it takes to refuse it, the median of some calls. More than 20 ms is a failure.
"""

from __future__ import annotations

import base64
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator

CALLS = 25
AT_MOST = 20.0
"""Milliseconds of CPU."""


def hostile(size: int) -> bytes:
    """Return it, of so many bytes or one less."""
    begin = b'{"parameters":' + b"[" * 33 + b'"'
    return begin + b'\\"' * ((size - len(begin)) // 2)


def main() -> int:
    """Measure, print, and fail if one takes too long."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    from bench.in_process import discard_stderr

    django.setup()
    slow = 0
    for what, size, refuse in _refusals():
        with discard_stderr():
            milliseconds = _cpu(refuse)
        slow += milliseconds > AT_MOST
        print(f"{what:32} {size:7,} bytes {milliseconds:6.2f} ms", flush=True)
    return 1 if slow else 0


def _refusals() -> Iterator[tuple[str, int, Callable[[], None]]]:
    """Yield what is read, how large it is, and what reads it and demands that it is refused."""
    from ags.api.request.body import MAX_BYTES
    from bench.in_process import started
    from providers.contract import PARAMETER_MAX_LENGTH, KeyRing, UpstreamUnavailable, VerificationFailed
    from providers.jose import verify_jws
    from providers.jwks import JWKSetReader
    from providers.upstream import Response, documents, http

    body = hostile(MAX_BYTES)
    head = f"POST /ags/getSessionToken HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
    request = f"{head}\r\nContent-Type: application/json\r\nnv-tenant-id: a\r\nx-auth-service-id: a\r\n\r\n"
    with started() as running:

        def post() -> None:
            if running.respond(request.encode() + body).status != 400:
                raise AssertionError("the body was not refused as malformed")

        yield "the body of a request", len(body), post

    header = hostile(PARAMETER_MAX_LENGTH * 3 // 4 - 12)
    token = f"{base64.urlsafe_b64encode(header).rstrip(b'=').decode()}.e30.AAAA"
    yield (
        "the header of a JWT",
        len(token),
        _refused(VerificationFailed, lambda: verify_jws(token, KeyRing("a", {}), 0.0)),
    )

    said = Response(200, {}, hostile(http.LIMIT))
    yield "the answer of an upstream", len(said.body), _refused(UpstreamUnavailable, said.json_object)

    keys, reader = hostile(documents.LIMIT), JWKSetReader("a", ("RS256",))
    yield "a key set", len(keys), _refused(UpstreamUnavailable, lambda: reader(keys))


def _refused(by: type[Exception], read: Callable[[], object]) -> Callable[[], None]:
    def refuse() -> None:
        try:
            read()
        except by:
            return
        raise AssertionError("it was not refused")

    return refuse


def _cpu(call: Callable[[], None]) -> float:
    """Return the CPU that a call takes, in milliseconds."""
    call()
    taken = []
    for _ in range(CALLS):
        began = time.process_time()
        call()
        taken.append((time.process_time() - began) * 1000)
    return statistics.median(taken)


if __name__ == "__main__":
    sys.exit(main())
