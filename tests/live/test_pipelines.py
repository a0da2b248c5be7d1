"""Random pipelines of requests, some of them aborted: each answer is that of the request in its place."""

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
from tests.conftest import SERVICE, HeadEnd, operator
from tests.live.conftest import warm
from tests.live.server import Answer, ServerProcess, is_uuid
from tests.waiting import PATIENCE

pytestmark = pytest.mark.once

CONNECTIONS = 16
"""Open at once."""

ALIVE = b'{"status":"alive"}'

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: to close is to reset."""

ABORTS = ("half-close", "close", "reset")


@dataclass(frozen=True, slots=True)
class Request:
    """A request and its answer: `content` is that of a 200, `reason` that of a refusal."""

    correlation_id: str
    sent: bytes
    status: int
    content: bytes = b""
    reason: str = ""
    is_head: bool = False

    def is_answered_by(self, answer: Answer) -> bool:
        if (answer.status_code, answer.headers["x-correlation-id"]) != (self.status, self.correlation_id):
            return False
        if self.is_head:
            return (answer.headers["Content-Length"], answer.content) == (str(len(self.content)), b"")
        if self.content:
            return answer.content == self.content
        body = answer.json()
        return (body["reason"], body["correlationId"]) == (self.reason, self.correlation_id)

    def is_refused_by(self, answer: Answer) -> bool:
        """True if it was refused because its end is missing. Its correlation id may not have been read."""
        seen = answer.headers["x-correlation-id"]
        return (
            (answer.status_code, answer.headers["Connection"]) == (400, "close")
            and answer.json()["reason"] == "request_malformed"
            and answer.json()["correlationId"] == seen
            and (seen == self.correlation_id or is_uuid(seen))
        )


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Requests, and what is sent of them. An abort comes after the last write and `awaited` answers."""

    requests: list[Request]
    writes: list[bytes]
    abort: str | None
    awaited: int

    @property
    def sent(self) -> int:
        """The number of bytes."""
        return sum(map(len, self.writes))

    @property
    def whole(self) -> int:
        """The number of requests that are sent to their end."""
        ends = itertools.accumulate(len(request.sent) for request in self.requests)
        return sum(end <= self.sent for end in ends)

    @property
    def has_rest(self) -> bool:
        """True if a request is sent in part."""
        return self.sent > sum(len(request.sent) for request in self.requests[: self.whole])


class Maker:
    """Makes pipelines. The same seed and number make the same pipeline."""

    def __init__(self, seed: int, pages: dict[str, bytes]) -> None:
        self._seed = seed
        self._pages = pages
        self._tenants = sorted(pages)

    def pipeline(self, number: int) -> Pipeline:
        rng = random.Random(f"{self._seed} {number}")
        many = rng.randint(1, 6)
        abort = rng.choice(ABORTS) if rng.random() < 0.4 else None
        makers = [rng.choice((self._get, self._get, self._post)) for _ in range(many)]
        requests = [
            make(rng, f"{number}.{place}", is_last=place == many and abort is None)
            for place, make in enumerate(makers, 1)
        ]
        data = b"".join(request.sent for request in requests)
        if abort:
            data = data[: rng.randint(0, len(data))]
        cuts = sorted(rng.randint(0, len(data)) for _ in range(rng.choice((0, 0, 1, 2, 5, 20))))
        writes = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]
        pipeline = Pipeline(requests, writes, abort, awaited=0)
        return replace(pipeline, awaited=rng.randint(0, pipeline.whole))

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
                (_proof("not a token"), 401, "not_authenticated"),
                (_proof("a").replace(b"Oper", b"No"), 400, "parameter_unknown"),
                (b'{"parameters": []}', 400, "parameter_missing"),
                (b"GET /healthz HTTP/1.1\r\nx-correlation-id: body\r\n\r\n", 400, "body_malformed"),
            )
        )
        if method == "PUT":
            status, reason = 405, "method_not_allowed"
        body += b" " * rng.choice((0, 1, rng.randint(2, 500), rng.randint(2, 20_000)))
        lines = ["Content-Type: application/json"]
        # The connection may end after chunks that nobody needs.
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
    given = [
        f"{start} HTTP/1.1",
        "Host: localhost",
        f"x-correlation-id: {correlation_id}",
        f"nv-tenant-id: {tenant}",
        f"x-auth-service-id: {SERVICE}",
        *lines,
        *(["Connection: close"] if is_last else []),
    ]
    return "".join(f"{line}\r\n" for line in [*given, ""]).encode()


def _proof(token: str) -> bytes:
    return json.dumps({"parameters": [{"name": "OperatorAuthToken", "value": token}]}).encode()


def _in_chunks(rng: random.Random, body: bytes) -> bytes:
    chunks = []
    while body:
        size = rng.choice((1, 10, 100, 10_000)) if len(body) < 1000 else rng.randint(500, 10_000)
        part, body = body[:size], body[size:]
        chunks.append(b"%x%b\r\n%b\r\n" % (len(part), rng.choice((b"", b"", b";a=b")), part))
    trailer = rng.choice((b"", b"", b"X-Trailer: a\r\n"))
    return b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"


async def _read_answer(reader: asyncio.StreamReader, request: Request | None) -> Answer | None:
    """Return the next answer, or None at the end of the connection. `request` is the one in its place."""
    status = 100
    while status < 200:  # what comes before the answer proper says only that it will come
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None
        line, _, fields = head.partition(b"\r\n")
        status = int(line.split()[1])
    headers = http.client.parse_headers(io.BytesIO(fields))
    # Where the end of a request is missing, its method may not have been read.
    has_body = not (request and request.is_head and status == request.status)
    content = await reader.readexactly(int(headers["Content-Length"])) if has_body else b""
    return Answer(status, headers, content)


async def _send(port: int, pipeline: Pipeline) -> list[Answer]:
    """Send a pipeline, abort it as it says; return the answers that came before the connection ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    wire = writer.get_extra_info("socket")
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answers: list[Answer] = []
    try:
        for data in pipeline.writes:
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0)
        if pipeline.abort == "half-close":
            writer.write_eof()
        at_most = pipeline.awaited if pipeline.abort in {"close", "reset"} else None
        places = itertools.chain(pipeline.requests, itertools.repeat(None))
        while at_most is None or len(answers) < at_most:
            answer = await _read_answer(reader, next(places))
            if answer is None:
                break
            answers.append(answer)
        if pipeline.abort == "reset":
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    finally:
        writer.transport.abort()
    return answers


def explain(pipeline: Pipeline, answers: list[Answer]) -> str | None:
    """Return what is wrong with these answers, or None."""
    for place, (request, answer) in enumerate(zip(pipeline.requests, answers, strict=False)):
        if place >= pipeline.whole and request.is_refused_by(answer):
            continue
        if not request.is_answered_by(answer):
            return f"request {request.correlation_id} has another answer"
    # A request that is not all there may have its answer, or a refusal, or none.
    at_least = pipeline.awaited if pipeline.abort in {"close", "reset"} else pipeline.whole
    at_most = at_least + (pipeline.abort == "half-close" and pipeline.has_rest)
    if not at_least <= len(answers) <= at_most:
        return f"{len(answers)} answers to {pipeline.whole} whole requests"
    return None


async def _check(port: int, maker: Maker, number: int) -> str | None:
    """Send the pipeline of that number; return what is wrong, or None."""
    pipeline = maker.pipeline(number)
    answers: list[Answer] = []
    try:
        async with asyncio.timeout(PATIENCE):
            answers = await _send(port, pipeline)
        wrong = explain(pipeline, answers)
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        wrong = repr(error)
    if wrong is None:
        return None
    sent = [(request.correlation_id, request.sent[:40]) for request in pipeline.requests]
    received = [
        (answer.headers["x-correlation-id"], answer.status_code, answer.content[:40]) for answer in answers
    ]
    writes = [len(data) for data in pipeline.writes]
    return f"pipeline {number}: {wrong}\nwrites {writes}, then {pipeline.abort}\n{sent}\n{received}"


async def _check_all(port: int, maker: Maker, count: int) -> list[str]:
    """Send that many pipelines over several connections at once; return what is wrong with the first."""
    numbers = iter(range(count))
    wrong: list[str] = []

    async def take_turns() -> None:
        for number in numbers:
            if wrong:
                return
            if why := await _check(port, maker, number):
                wrong.append(why)

    await asyncio.gather(*(take_turns() for _ in range(CONNECTIONS)))
    return wrong


@pytest.fixture
def pages(server: ServerProcess, nagra: HeadEnd) -> dict[str, bytes]:
    """What three operators offer: each has a page of its own, by its tenant."""
    others = [operator(f"{nagra.tenant_id}-{letter}", bytes(range(32))) for letter in "bc"]
    found = {}
    for head_end in (nagra, *others):
        service = Service.objects.for_tenant(head_end.tenant_id).get()
        service.display_name = head_end.tenant_id
        service.save()
        found[head_end.tenant_id] = warm(server, head_end).discover().content
    assert len({*found.values()}) == len(found)
    return found


@pytest.mark.parametrize(
    "count", [300, pytest.param(30_000, marks=[pytest.mark.full, pytest.mark.timeout(30 * PATIENCE)])]
)
def test_no_answer_crosses(server: ServerProcess, pages: dict[str, bytes], count: int) -> None:
    seed = random.getrandbits(32)  # of pytest-randomly, which repeats it
    logged = len(server.log)
    wrong = asyncio.run(_check_all(server.port, Maker(seed, pages), count))
    assert not wrong, f"seed {seed}\n" + "\n\n".join(wrong)
    assert '"ERROR"' not in server.log[logged:], server.log
    assert server.get("/readyz").status_code == 200
