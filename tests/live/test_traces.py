"""Traces: spans of requests, statements and upstream calls reach a collector, and nothing depends on it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from django.db import connection

from tests.support.clients import SERVICE, ClientApp, HeadEnd
from tests.support.live import use_server, wait_until_served
from tests.support.markers import skip_unless_installed
from tests.support.server import ServerProcess
from tests.support.upstream.https import HTTPSServer, Reply, as_json
from tests.support.upstream.otlp import Collector, Span, collector
from tests.support.upstream.process import reserved_port
from tests.support.upstream.signer import signer
from tests.support.upstream_services import SIGNED, add_introspection, add_signed_jwt, introspect
from tests.support.waiting import wait_until

LIBRARY = "opentelemetry"

needs_library = skip_unless_installed(
    modules={LIBRARY: "pip install --require-hashes -r requirements/opentelemetry.txt"}
)

PROVIDERS = "providers.operator_token,providers.token_introspection,providers.signed_jwt"

SERVER, CLIENT = 2, 3
"""Kinds of spans, as OTLP numbers them."""

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"

MALFORMED = [
    "",
    "nonsense",
    f"00-{TRACE}-{PARENT}",
    f"00-{TRACE.upper()}-{PARENT}-01",
    f"00-{'0' * 32}-{PARENT}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"ff-{TRACE}-{PARENT}-01",
    f"00-{TRACE}-{PARENT}-01-more",
    f"00-{TRACE}-{PARENT}-\xff",
]

"""The name of a service that calls an upstream."""

FAILING, WORKING = '"traces cannot be sent"', '"traces are sent again"'


@pytest.fixture
def receiver() -> Iterator[Collector]:
    with collector() as its:
        yield its


@pytest.fixture
def traced(transactional_db: None, receiver: Collector) -> Iterator[ServerProcess]:
    with ServerProcess(
        AGS_TRUSTED_PROXIES="1",
        AGS_PROVIDERS=PROVIDERS,
        **receiver.environment(),
    ) as server:
        yield server


def token_with(head_end: HeadEnd, **headers: str) -> str:
    """Send a valid request, and return its correlation ID."""
    correlation_id = str(uuid.uuid4())
    response = head_end.present(head_end.token(), x_correlation_id=correlation_id, **headers)
    assert response.status_code == 200
    return correlation_id


@needs_library
def test_a_request_continues_the_trace_of_its_caller(
    traced: ServerProcess, nagra: HeadEnd, receiver: Collector
) -> None:
    here = wait_until_served(traced, nagra)
    span = receiver.wait_for(token_with(here, traceparent=TRACEPARENT, tracestate="vendor=value"))
    assert (span.trace, span.parent, span.kind) == (TRACE, PARENT, SERVER)
    assert span.name == "POST /ags/getSessionToken"
    assert not span.is_error
    expected = {
        "http.request.method": "POST",
        "url.scheme": "http",
        "http.route": "/ags/getSessionToken",
        "url.path": "/ags/getSessionToken",
        "http.response.status_code": 200,
        "ags.tenant": nagra.tenant_id,
        "ags.service": SERVICE,
        "ags.outcome": "answered",
        "ags.correlation_id": span.attributes["ags.correlation_id"],
    }
    assert span.attributes == expected
    assert span.resource["service.name"] == "ags"
    (insert,) = (each for each in receiver.children(span) if "INSERT" in each.name)
    assert (insert.trace, insert.kind) == (TRACE, CLIENT)
    assert insert.name == "INSERT ags_sessions_sessiontoken"
    assert insert.attributes["db.system.name"] == connection.vendor
    assert insert.attributes["db.query.text"].startswith("INSERT INTO ags_sessions_sessiontoken")


@needs_library
def test_a_refused_request_has_its_reason(traced: ServerProcess, nagra: HeadEnd, receiver: Collector) -> None:
    here = wait_until_served(traced, nagra)
    refused = here.present("x.y.z")
    span = receiver.wait_for(refused.headers["x-correlation-id"])
    assert span.attributes["http.response.status_code"] == 401
    assert span.attributes["ags.outcome"] == "refused"
    assert span.attributes["ags.reason"] == "malformed"
    assert not span.is_error, "by the semantic conventions, it is that of the client"
    repeated = here.present(here.token(), traceparent=f"{TRACEPARENT},{TRACEPARENT}")
    assert repeated.status_code == 400
    span = receiver.wait_for(repeated.headers["x-correlation-id"])
    assert (span.parent, span.attributes["ags.reason"]) == ("", "header_repeated")
    unknown = traced.get("/somewhere?secret=1")
    assert receiver.wait_for(unknown.headers["x-correlation-id"]).name == "GET"


@needs_library
def test_an_invalid_traceparent_begins_a_trace(
    traced: ServerProcess, nagra: HeadEnd, receiver: Collector
) -> None:
    here = wait_until_served(traced, nagra)
    for header in MALFORMED:
        span = receiver.wait_for(token_with(here, traceparent=header))
        assert span.parent == "", header
        assert span.trace not in {TRACE, "0" * 32}, header


@needs_library
def test_a_caller_can_leave_a_request_out(traced: ServerProcess, nagra: HeadEnd, receiver: Collector) -> None:
    here = wait_until_served(traced, nagra)
    left_out = token_with(here, traceparent=TRACEPARENT.removesuffix("01") + "00")
    receiver.wait_for(token_with(here))
    assert receiver.find(left_out) == []
    assert [span for span in receiver.spans if span.trace == TRACE] == []


@needs_library
def test_a_call_of_an_upstream_is_a_child_and_the_upstream_gets_no_trace(
    traced: ServerProcess, nagra: HeadEnd, receiver: Collector
) -> None:
    with HTTPSServer() as upstream:
        upstream.replies["/introspect"] = as_json(
            {"active": True, "sub": "account-1", "token_type": "Bearer"}
        )
        add_introspection(nagra, upstream)
        here = wait_until_served(traced, nagra)
        response = introspect(here)
        assert response.status_code == 200
        span = receiver.wait_for(response.headers["x-correlation-id"])
        (call,) = (each for each in receiver.children(span) if "server.address" in each.attributes)
        assert (call.kind, call.trace, call.is_error) == (CLIENT, span.trace, False)
        assert call.attributes == {
            "server.address": "127.0.0.1",
            "server.port": upstream.port,
            "ags.outcome": "answered",
        }
        upstream.replies["/introspect"] = Reply(200, b"no JSON")
        response = introspect(here)
        assert response.status_code == 503
        assert receiver.wait_for(response.headers["x-correlation-id"]).is_error
        for request in upstream.requests:
            assert not {"traceparent", "tracestate", "baggage"} & request.headers.keys()


@needs_library
@pytest.mark.once
@pytest.mark.full  # it waits until AGS may fetch the keys again
def test_the_fetch_of_a_document_is_a_child_of_the_request_that_needs_it(
    traced: ServerProcess, nagra: HeadEnd, receiver: Collector
) -> None:
    with HTTPSServer() as upstream:
        upstream.replies["/keys"] = as_json({"keys": [signer("ES256").jwk()]})
        add_signed_jwt(nagra, upstream)
        here = wait_until_served(traced, nagra)
        unknown = replace(signer("ES256"), kid="another").token({"iss": "https://a.example"})
        body = {"parameters": [{"name": "Token", "value": unknown}]}
        requests: dict[str, str] = {}

        def find_fetch() -> list[Span]:
            response = here.post(body, x_auth_service_id=SIGNED)
            requests[receiver.wait_for(response.headers["x-correlation-id"]).id] = response.json()["reason"]
            return [
                span for span in receiver.spans if span.parent in requests and span.name.startswith("call")
            ]

        wait_until(find_fetch, "no request fetches the keys")
        assert find_fetch()[0].attributes["server.port"] == upstream.port


@needs_library
@pytest.mark.postgresql
def test_a_statement_for_several_requests_is_a_child_of_one_and_linked_to_the_others(
    traced: ServerProcess, nagra: HeadEnd, receiver: Collector
) -> None:
    wait_until_served(traced, nagra)
    with ThreadPoolExecutor(8) as callers:

        def present_together() -> list[Span]:
            list(callers.map(lambda _: token_with(use_server(traced, nagra)), range(8)))
            return [span for span in receiver.spans if span.links]

        wait_until(present_together, "no requests had a statement together")
    span = next(span for span in receiver.spans if span.links)
    requests = (span.parent, *span.links)
    assert len(set(requests)) == len(requests)

    def named() -> list[str]:
        return [each.name for each in receiver.spans if each.id in requests]

    wait_until(lambda: len(named()) == len(requests), "a request has no span")
    assert set(named()) == {"POST /ags/getSessionToken"}


@needs_library
def test_no_span_has_a_token_an_account_or_a_secret(
    traced: ServerProcess, nagra: HeadEnd, receiver: Collector
) -> None:
    here = wait_until_served(traced, nagra)
    app = ClientApp(here)
    token = here.token(OpfAccountId="marker-account")
    session_token = here.present(token).json()["sessionToken"]
    assert app.redeem(session_token).status_code == 201
    device = app.tokens = app.redeem(app.session_token("marker-account")).json()
    assert app.refresh().status_code == 200
    response = traced.get(f"/ags/servicediscovery?marker={session_token}", headers=here.headers())
    receiver.wait_for(response.headers["x-correlation-id"])
    sent = b"".join(receiver.bodies)
    assert b"/ags/signOnWithSessionToken" in sent
    assert b"UPDATE ags_sessions_device" in sent
    secrets = [nagra.secret, b"marker", token.encode(), session_token.encode()]
    secrets += [
        str(value).encode() for name, value in device.items() if "oken" in name and name != "token_type"
    ]
    assert len(secrets) > 5
    for secret in secrets:
        assert secret not in sent


@needs_library
@pytest.mark.once
def test_a_page_of_staff_has_a_span_and_a_probe_has_none(
    traced: ServerProcess, nagra: HeadEnd, receiver: Collector
) -> None:
    probe = traced.get("/readyz")
    page = traced.get("/admin/login/?next=/marker", headers={"X-Forwarded-Proto": "https"})
    assert page.status_code == 200
    span = receiver.wait_for(page.headers["x-correlation-id"])
    assert (span.name, span.attributes["url.path"]) == ("GET /admin/", "/admin/")
    assert receiver.find(probe.headers["x-correlation-id"]) == []


@needs_library
@pytest.mark.once
def test_an_unreachable_collector_costs_its_traces_only(transactional_db: None, nagra: HeadEnd) -> None:
    with reserved_port() as port:
        environment = Collector(port).environment(OTEL_EXPORTER_OTLP_TIMEOUT="1")
        with ServerProcess(AGS_LOG_LEVEL="INFO", **environment) as server:
            here = wait_until_served(server, nagra)
            for _ in range(50):
                token_with(here)
            wait_until(lambda: FAILING in server.log, "the outage is not logged")
            token_with(here)
            log = server.log
        assert log.count(FAILING) == 1
        assert "Traceback" not in log
        assert f"127.0.0.1:{port}" not in log
        loggers = {json.loads(line)["logger"] for line in log.splitlines() if line.startswith("{")}
        assert loggers == {"ags.request", "ags.serve", "ags.tracing"}


@needs_library
@pytest.mark.once
def test_traces_continue_after_an_outage_of_the_collector(
    transactional_db: None, nagra: HeadEnd, receiver: Collector
) -> None:
    receiver.status = 500
    with ServerProcess(AGS_LOG_LEVEL="INFO", **receiver.environment()) as server:
        here = wait_until_served(server, nagra)
        wait_until(lambda: token_with(here) and receiver.refused > 3, "nothing is sent")
        wait_until(lambda: FAILING in server.log, "the outage is not logged")
        receiver.status = 200
        receiver.wait_for(token_with(here))
        wait_until(lambda: WORKING in server.log, "the end of the outage is not logged")
        assert server.log.count(FAILING) == 1


@needs_library
@pytest.mark.once
def test_the_server_sends_the_last_spans_when_it_stops(
    transactional_db: None, nagra: HeadEnd, receiver: Collector
) -> None:
    with ServerProcess(**receiver.environment(OTEL_BSP_SCHEDULE_DELAY="600000")) as server:
        here = wait_until_served(server, nagra)
        correlation_id = token_with(here)
        assert receiver.spans == []
    receiver.wait_for(correlation_id)


@needs_library
@pytest.mark.once
def test_the_server_stops_while_the_collector_hangs(
    transactional_db: None, nagra: HeadEnd, receiver: Collector
) -> None:
    receiver.respond.clear()
    with ServerProcess(AGS_DRAIN_SECONDS="0", **receiver.environment()) as server:
        token_with(wait_until_served(server, nagra))
        server.terminate()
        assert server.wait() == 0
        assert '"the last traces were not sent"' in server.log
        assert "Traceback" not in server.log


@needs_library
@pytest.mark.once
def test_an_invalid_setting_turns_traces_off(
    transactional_db: None, nagra: HeadEnd, receiver: Collector
) -> None:
    with ServerProcess(**receiver.environment(OTEL_BSP_MAX_QUEUE_SIZE="0")) as server:
        token_with(wait_until_served(server, nagra))
        assert '"traces are off"' in server.log
        assert '"cause": "ValueError"' in server.log


@needs_library
@pytest.mark.once
def test_an_invalid_header_is_not_logged(transactional_db: None, nagra: HeadEnd, receiver: Collector) -> None:
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization: Bearer a-secret"}
    with ServerProcess(**receiver.environment(**headers)) as server:
        wait_until_served(server, nagra)
        assert '"headers of traces are not NAME=VALUE"' in server.log
        assert '"variable": "OTEL_EXPORTER_OTLP_HEADERS"' in server.log
        assert "a-secret" not in server.log
