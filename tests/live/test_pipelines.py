"""Random pipelines of requests, some of them aborted: responses match the requests in order."""

from __future__ import annotations

import asyncio
import http.client
import io
import itertools
import json
import random
import socket
import struct
from dataclasses import dataclass, replace

import pytest

from tenants.models import Service
from tests.support.clients import SERVICE, HeadEnd
from tests.support.live import wait_until_served
from tests.support.operators import create_operator
from tests.support.server import Response, ServerProcess, is_uuid
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.once

CONNECTIONS = 16
"""Concurrent connections."""

ALIVE = b'{"status":"alive"}'

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER value that resets the connection on close."""

ABORTS = ("half-close", "close", "reset")


@dataclass(frozen=True, slots=True)
class Request:
    """A request and its expected response: `content` of a 200, `reason` of an error."""

    correlation_id: str
    sent: bytes
    status: int
    content: bytes = b""
    reason: str = ""
    is_head: bool = False

    def has_response(self, response: Response) -> bool:
        if (response.status_code, response.headers["x-correlation-id"]) != (self.status, self.correlation_id):
            return False
        if self.is_head:
            return (response.headers["Content-Length"], response.content) == (str(len(self.content)), b"")
        if self.content:
            return response.content == self.content
        body = response.json()
        return (body["reason"], body["correlationId"]) == (self.reason, self.correlation_id)

    def is_rejected_as_incomplete(self, response: Response) -> bool:
        """Return True for an error because the request is incomplete; its correlation ID may be unknown."""
        correlation_id = response.headers["x-correlation-id"]
        return (
            (response.status_code, response.headers["Connection"]) == (400, "close")
            and response.json()["reason"] == "request_malformed"
            and response.json()["correlationId"] == correlation_id
            and (correlation_id == self.correlation_id or is_uuid(correlation_id))
        )


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Requests, and the data that is sent. An abort follows the last write and `awaited` responses."""

    requests: list[Request]
    writes: list[bytes]
    abort: str | None
    awaited: int

    @property
    def sent(self) -> int:
        """The number of bytes sent."""
        return sum(map(len, self.writes))

    @property
    def complete(self) -> int:
        """The number of completely sent requests."""
        ends = itertools.accumulate(len(request.sent) for request in self.requests)
        return sum(end <= self.sent for end in ends)

    @property
    def has_partial(self) -> bool:
        """True if a request is sent partly."""
        return self.sent > sum(len(request.sent) for request in self.requests[: self.complete])


class PipelineGenerator:
    """Generates pipelines, deterministically from seed and number."""

    def __init__(self, seed: int, pages: dict[str, bytes]) -> None:
        self._seed = seed
        self._pages = pages
        self._tenants = sorted(pages)

    def pipeline(self, number: int) -> Pipeline:
        rng = random.Random(f"{self._seed} {number}")
        count_ = rng.randint(1, 6)
        abort = rng.choice(ABORTS) if rng.random() < 0.4 else None
        methods = [rng.choice((self._get, self._get, self._post)) for _ in range(count_)]
        requests = [
            method(rng, f"{number}.{position}", is_last=position == count_ and abort is None)
            for position, method in enumerate(methods, 1)
        ]
        data = b"".join(request.sent for request in requests)
        if abort:
            data = data[: rng.randint(0, len(data))]
        cuts = sorted(rng.randint(0, len(data)) for _ in range(rng.choice((0, 0, 1, 2, 5, 20))))
        writes = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]
        pipeline = Pipeline(requests, writes, abort, awaited=0)
        return replace(pipeline, awaited=rng.randint(0, pipeline.complete))

    def _get(self, rng: random.Random, correlation_id: str, *, is_last: bool) -> Request:
        method = rng.choice(("GET", "GET", "HEAD"))
        tenant = rng.choice(self._tenants)
        path, status, content, reason = rng.choice(
            (
                ("/healthz", 200, ALIVE, ""),
                ("/ags/servicediscovery", 200, self._pages[tenant], ""),
                ("/ags/servicediscovery", 200, self._pages[tenant], ""),
                (f"/nowhere/{correlation_id}", 404, b"", "not_found"),
                ("/ags/getSessionToken", 405, b"", "method_not_allowed"),
            )
        )
        if status != 200:
            method = "GET"
        sent = _head(f"{method} {path}", correlation_id, tenant, is_last=is_last)
        return Request(correlation_id, sent, status, content, reason, method == "HEAD")

    def _post(self, rng: random.Random, correlation_id: str, *, is_last: bool) -> Request:
        method, path = rng.choice((("POST", "/ags/getSessionToken"),) * 4 + (("PUT", "/healthz"),))
        body, status, reason = rng.choice(
            (
                (_body("not a token"), 401, "not_authenticated"),
                (_body("a").replace(b"Oper", b"No"), 400, "parameter_unknown"),
                (b'{"parameters": []}', 400, "parameter_missing"),
                (b"GET /healthz HTTP/1.1\r\nx-correlation-id: body\r\n\r\n", 400, "body_malformed"),
            )
        )
        if method == "PUT":
            status, reason = 405, "method_not_allowed"
        body += b" " * rng.choice((0, 1, rng.randint(2, 500), rng.randint(2, 20_000)))
        lines = ["Content-Type: application/json"]
        # The server may close the connection after unread chunks.
        if method == "PUT" or rng.random() < 0.5:
            lines.append(f"Content-Length: {len(body)}")
        else:
            lines.append("Transfer-Encoding: chunked")
            body = _in_chunks(rng, body)
        if rng.random() < 0.1:
            lines.append("Expect: 100-continue")
        tenant = rng.choice(self._tenants)
        sent = _head(f"{method} {path}", correlation_id, tenant, *lines, is_last=is_last) + body
        return Request(correlation_id, sent, status, reason=reason)


def _head(start: str, correlation_id: str, tenant: str, *lines: str, is_last: bool) -> bytes:
    head = [
        f"{start} HTTP/1.1",
        "Host: localhost",
        f"x-correlation-id: {correlation_id}",
        f"nv-tenant-id: {tenant}",
        f"x-auth-service-id: {SERVICE}",
        *lines,
        *(["Connection: close"] if is_last else []),
    ]
    return "".join(f"{line}\r\n" for line in [*head, ""]).encode()


def _body(token: str) -> bytes:
    return json.dumps({"parameters": [{"name": "OperatorAuthToken", "value": token}]}).encode()


def _in_chunks(rng: random.Random, body: bytes) -> bytes:
    chunks = []
    while body:
        size = rng.choice((1, 10, 100, 10_000)) if len(body) < 1000 else rng.randint(500, 10_000)
        part, body = body[:size], body[size:]
        chunks.append(b"%x%b\r\n%b\r\n" % (len(part), rng.choice((b"", b"", b";a=b")), part))
    trailer = rng.choice((b"", b"", b"X-Trailer: a\r\n"))
    return b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"


async def _read_response(reader: asyncio.StreamReader, request: Request | None) -> Response | None:
    """Return the next response to `request`, or None at the end of the connection."""
    status = 100
    while status < 200:  # skip informational responses
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None
        line, _, fields = head.partition(b"\r\n")
        status = int(line.split()[1])
    headers = http.client.parse_headers(io.BytesIO(fields))
    # The method of an incomplete request may be unknown.
    has_body = not (request and request.is_head and status == request.status)
    content = await reader.readexactly(int(headers["Content-Length"])) if has_body else b""
    return Response(status, headers, content)


async def _send(port: int, pipeline: Pipeline) -> list[Response]:
    """Send a pipeline and abort it if requested; return the responses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    responses: list[Response] = []
    try:
        for data in pipeline.writes:
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0)
        if pipeline.abort == "half-close":
            writer.write_eof()
        maximum = pipeline.awaited if pipeline.abort in {"close", "reset"} else None
        expected = itertools.chain(pipeline.requests, itertools.repeat(None))
        while maximum is None or len(responses) < maximum:
            response = await _read_response(reader, next(expected))
            if response is None:
                break
            responses.append(response)
        if pipeline.abort == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    finally:
        writer.transport.abort()
    return responses


def find_error(pipeline: Pipeline, responses: list[Response]) -> str | None:
    """Return an error message if the responses are errors, otherwise None."""
    for position, (request, response) in enumerate(zip(pipeline.requests, responses, strict=False)):
        if position >= pipeline.complete and request.is_rejected_as_incomplete(response):
            continue
        if not request.has_response(response):
            return f"request {request.correlation_id} has a errors response"
    # An incomplete request may have a response, an error, or neither.
    minimum = pipeline.awaited if pipeline.abort in {"close", "reset"} else pipeline.complete
    maximum = minimum + (pipeline.abort == "half-close" and pipeline.has_partial)
    if not minimum <= len(responses) <= maximum:
        return f"{len(responses)} responses to {pipeline.complete} complete requests"
    return None


async def _check(port: int, generator: PipelineGenerator, number: int) -> str | None:
    """Send the pipeline with this number; return an error message or None."""
    pipeline = generator.pipeline(number)
    responses: list[Response] = []
    try:
        async with asyncio.timeout(PATIENCE):
            responses = await _send(port, pipeline)
        errors = find_error(pipeline, responses)
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        errors = repr(error)
    if errors is None:
        return None
    sent = [(request.correlation_id, request.sent[:40]) for request in pipeline.requests]
    received = [
        (response.headers["x-correlation-id"], response.status_code, response.content[:40])
        for response in responses
    ]
    writes = [len(data) for data in pipeline.writes]
    return f"pipeline {number}: {errors}\nwrites {writes}, then {pipeline.abort}\n{sent}\n{received}"


async def _check_all(port: int, generator: PipelineGenerator, count: int) -> list[str]:
    """Send pipelines over concurrent connections until the first error; return the error messages."""
    numbers = iter(range(count))
    errors: list[str] = []

    async def send_pipelines() -> None:
        for number in numbers:
            if errors:
                return
            if message := await _check(port, generator, number):
                errors.append(message)

    await asyncio.gather(*(send_pipelines() for _ in range(CONNECTIONS)))
    return errors


@pytest.fixture
def pages(server: ServerProcess, nagra: HeadEnd) -> dict[str, bytes]:
    """The discovery responses of three operators by tenant ID; they differ."""
    others = [
        create_operator(f"{nagra.tenant_id}-{letter}", bytes(range(32)), is_limited=False) for letter in "bc"
    ]
    pages_by_tenant = {}
    for head_end in (nagra, *others):
        service = Service.objects.for_tenant(head_end.tenant_id).get()
        service.display_name = head_end.tenant_id
        service.save()
        pages_by_tenant[head_end.tenant_id] = wait_until_served(server, head_end).discover().content
    assert len({*pages_by_tenant.values()}) == len(pages_by_tenant)
    return pages_by_tenant


@pytest.mark.parametrize(
    "count", [300, pytest.param(30_000, marks=[pytest.mark.full, pytest.mark.timeout(30 * PATIENCE)])]
)
def test_responses_match_their_requests(server: ServerProcess, pages: dict[str, bytes], count: int) -> None:
    seed = random.getrandbits(32)  # reproducible with the seed of pytest-randomly
    logged = len(server.log)
    errors = asyncio.run(_check_all(server.port, PipelineGenerator(seed, pages), count))
    assert not errors, f"seed {seed}\n" + "\n\n".join(errors)
    assert '"ERROR"' not in server.log[logged:], server.log
    assert server.get("/readyz").status_code == 200
