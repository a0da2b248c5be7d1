"""Refused requests in the audit trail, on real servers."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from itertools import count

import pytest
from django.db.models import F

from ags.sessions.models import Event
from ags.sessions.services.refusals import MAX_PER_ADDRESS
from tenants.models import Tenant
from tests.support.audit_trail import ADDRESS, find_refusal, reject_events, sum_omitted
from tests.support.batches import other_transaction
from tests.support.clients import ClientApp, HeadEnd
from tests.support.live import ForwardingProxy, use_server, wait_until_served
from tests.support.operators import create_platform
from tests.support.server import Client, Response, ServerProcess, exchange_bytes
from tests.support.waiting import wait_until

pytestmark = pytest.mark.once

WINDOW = 60
"""Seconds in which refusals are counted."""

OMITTED = "ags_omitted_refusals_total"


def read_metric(port: int) -> int:
    operations = Client(port)
    lines = operations.get("/metrics").content.decode().splitlines()
    operations.close()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{OMITTED} ")]
    return int(float(value))


def forward(server: ServerProcess, head_end: HeadEnd) -> HeadEnd:
    """Return a head-end with an address of its own: other tests use up the refusals of theirs."""
    here = wait_until_served(server, head_end)
    return replace(here, client=ForwardingProxy(server, f"198.51.100.{next(_numbers)}"))


_numbers = count(1)


# What is stored


def test_a_refusal_is_stored_with_its_reason(server: ServerProcess, nagra: HeadEnd) -> None:
    head_end = forward(server, nagra)
    refused = head_end.present(head_end.token(headers={"kid": "another"}), x_correlation_id="unknown-kid")
    event = find_refusal("unknown-kid")
    assert event.tenant_id == nagra.tenant_id
    assert (event.kind, event.reason, event.kid) == ("refused", "key_unknown", "another")
    assert (event.client_address, event.service) == (head_end.client.address, "Customer Auth Service")
    assert (event.account_id, event.client_id, event.actor) == ("", "", "")
    answer = refused.json()
    assert event.details == {
        "method": "POST",
        "route": "/ags/getSessionToken",
        "status": 401,
        "code": answer["code"],
        "message": answer["message"],
        "facts": event.details["facts"],
    }


def test_a_refusal_has_account_and_device_if_they_are_known(server: ServerProcess, nagra: HeadEnd) -> None:
    app = ClientApp(forward(server, nagra))
    token = app.session_token()
    body = {"parameters": [{"name": "sessionToken", "value": token}], "clientId": "another"}
    refused = app.call("/ags/signOnWithSessionToken", body, x_correlation_id="unknown-device")
    assert refused.status_code == 403
    event = find_refusal("unknown-device")
    assert (event.account_id, event.client_id, event.reason) == ("account-1", "another", "device_unknown")


def test_the_refusal_of_an_unknown_tenant_is_of_no_tenant(server: ServerProcess, nagra: HeadEnd) -> None:
    head_end = forward(server, nagra)
    assert head_end.present("x.y.z", nv_tenant_id="nobody", x_correlation_id="nobody").status_code == 403
    event = find_refusal("nobody")
    assert (event.tenant_id, event.details["tenant"], event.details["status"]) == (None, "nobody", 403)
    assert head_end.present("x.y.z", nv_tenant_id="no body", x_correlation_id="no-body").status_code == 400
    event = find_refusal("no-body")
    assert event.tenant_id is None
    assert "tenant" not in event.details, "the name is invalid"


def test_the_refusal_of_a_disabled_tenant_is_of_the_tenant(server: ServerProcess, nagra: HeadEnd) -> None:
    head_end = forward(server, nagra)
    Tenant.objects.filter(pk=nagra.tenant_id).update(enabled=False, version=F("version") + 1)
    # With valid tokens: the refusals of an address are limited.
    wait_until(lambda: head_end.present(head_end.token()).status_code == 403, "the tenant is still served")
    head_end.present(head_end.token(), x_correlation_id="disabled")
    event = find_refusal("disabled")
    assert (event.tenant_id, event.details["status"]) == (nagra.tenant_id, 403)
    assert "tenant" not in event.details


def test_the_refusal_of_a_resource_server_is_of_the_tenant_in_its_client_id(
    server: ServerProcess, nagra: HeadEnd
) -> None:
    here = forward(server, nagra)
    platform = replace(create_platform(nagra.tenant_id), client=here.client, secret="wrong")
    assert platform.introspect("x", x_correlation_id="wrong-secret").status_code == 401
    assert find_refusal("wrong-secret").tenant_id == nagra.tenant_id
    platform = replace(platform, client_id="nobody~x")
    assert platform.introspect("x", x_correlation_id="unknown-server").status_code == 401
    assert find_refusal("unknown-server").tenant_id is None


def test_failed_probes_are_not_stored(server: ServerProcess, nagra: HeadEnd) -> None:
    client = server.client()
    for path in ("/healthz", "/readyz", "/metrics"):
        headers = {"x-correlation-id": f"probe{path.replace('/', '-')}"}
        assert client.generic("DELETE", path, b"", headers=headers).status_code in (404, 405)
    head_end = forward(server, nagra)
    head_end.present("x.y.z", x_correlation_id="after-the-probes")
    find_refusal("after-the-probes")
    assert not Event.unscoped.filter(correlation_id__startswith="probe").exists()


def test_granted_requests_are_not_stored_as_refusals(server: ServerProcess, nagra: HeadEnd) -> None:
    head_end = forward(server, nagra)
    assert head_end.present(head_end.token(), x_correlation_id="granted").status_code == 200
    head_end.present("x.y.z", x_correlation_id="after-the-grant")
    find_refusal("after-the-grant")
    assert not Event.unscoped.filter(correlation_id="granted").exists()


# Hostile values

UNUSUAL = ["\x01\x1b[31m", "\x7f", "\x85", "\u2028", "\u202e", "\ufeff", "\U000e0001", "\ud800", "\x00"]
"""Control and format characters, half of a surrogate pair, and NUL."""


def test_unusual_characters_do_not_prevent_storing(server: ServerProcess, nagra: HeadEnd) -> None:
    app = ClientApp(forward(server, nagra))
    expected = set()
    for number, unusual in enumerate(UNUSUAL):
        header = nagra.token(headers={"kid": f"a{unusual}"})
        parameters = [{"name": "sessionToken", "value": app.session_token()}]
        refused = {
            "kid": app.head_end.present(header, x_correlation_id=f"kid-{number}"),
            "body": app.head_end.present(unusual, x_correlation_id=f"body-{number}"),
            "device": app.call(
                "/ags/signOnWithSessionToken",
                {"parameters": parameters, "clientId": f"a{unusual}"},
                x_correlation_id=f"device-{number}",
            ),
        }
        for name, response in refused.items():
            assert 400 <= response.status_code < 500
            expected.add(f"{name}-{number}")
    for correlation_id in expected:
        event = find_refusal(correlation_id)
        for value in (event.service, event.kid, event.client_id, event.reason):
            assert value.isprintable()
        assert json.dumps(event.details)


@pytest.mark.parametrize(
    "name", [b"nv-tenant-id", b"x-auth-service-id", b"x-correlation-id", b"Authorization"]
)
def test_unusual_bytes_in_headers_do_not_prevent_storing(server: ServerProcess, name: bytes) -> None:
    for value in (b"a\x01b", b"a\x00b", b"a\x7fb", b"\xff\xfe", b"\xed\xa0\x80", b"a" * 5000):
        request = (
            b"POST /ags/getSessionToken HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"X-Forwarded-For: 198.51.100.200\r\n"
            b"Content-Type: application/json\r\nContent-Length: 2\r\n" + name + b": " + value + b"\r\n\r\n{}"
        )
        (response,) = exchange_bytes(server.port, request)
        assert 400 <= response.status_code < 500
        event = find_refusal(response.headers["x-correlation-id"])
        assert event.details["status"] == response.status_code
        assert event.service.isprintable()


def test_an_event_that_the_database_rejects_is_only_counted(
    transactional_db: None, nagra: HeadEnd, port: int
) -> None:
    with ServerProcess(AGS_OPERATIONS_BIND=f"127.0.0.1:{port}") as server:
        head_end = wait_until_served(server, nagra)
        with reject_events("correlation_id", "rejected"):
            for correlation_id in ("before", "rejected", "after"):
                head_end.present("x.y.z", x_correlation_id=correlation_id)
            for correlation_id in ("before", "after"):
                assert find_refusal(correlation_id).tenant_id == nagra.tenant_id
        assert read_metric(port) == 1
        server.terminate()
        server.wait()
        assert '"events were not stored"' in server.log
    assert sum_omitted(nagra.tenant_id) == 1
    assert not Event.unscoped.filter(correlation_id="rejected").exists()


@pytest.mark.postgresql
def test_a_lock_on_the_table_delays_neither_requests_nor_the_configuration(
    server: ServerProcess, nagra: HeadEnd
) -> None:
    head_end = forward(server, nagra)
    tenants = Tenant.objects.filter(pk=nagra.tenant_id)

    def get_status() -> int:
        """Present a valid token, while the server waits for no lock."""
        assert other.waiting() == 0
        return int(head_end.present(head_end.token()).status_code)

    with other_transaction() as other:
        other.execute("LOCK TABLE ags_sessions_event IN ACCESS EXCLUSIVE MODE")
        rollbacks = other.rollbacks()
        head_end.present("x.y.z", x_correlation_id="during-the-lock")
        wait_until(lambda: get_status() == 200 and other.rollbacks() > rollbacks, "nothing is stored")
        tenants.update(enabled=False, version=F("version") + 1)
        wait_until(lambda: get_status() == 403, "the tenant is still served")
        tenants.update(enabled=True, version=F("version") + 1)
        wait_until(lambda: get_status() == 200, "the tenant is not served")
    assert find_refusal("during-the-lock").tenant_id == nagra.tenant_id


# How many are stored


def test_only_so_many_refusals_of_an_address_are_stored_and_the_others_are_counted(
    transactional_db: None, nagra: HeadEnd, port: int
) -> None:
    processes, requests = 2, 3 * MAX_PER_ADDRESS
    changes = {"AGS_WORKERS": str(processes), "AGS_OPERATIONS_BIND": f"127.0.0.1:{port}"}
    began = time.monotonic()
    with ServerProcess(AGS_TRUSTED_PROXIES="1", **changes) as server:

        def refuse(number: int, address: str) -> None:
            """Over a new connection, of either process."""
            connection = Client(server.port)
            head_end = replace(nagra, client=connection)
            name = f"{address}-{number}"
            assert (
                head_end.present("x.y.z", x_correlation_id=name, x_forwarded_for=address).status_code == 401
            )
            connection.close()

        for number in range(requests):
            refuse(number, ADDRESS)
        omitted = read_metric(port)
        windows = 1 + int(time.monotonic() - began) // WINDOW
        for number in range(MAX_PER_ADDRESS // 2):
            refuse(number, "192.0.2.2")
    stored = Event.unscoped.filter(tenant=nagra.tenant_id, kind="refused")
    from_address = stored.filter(client_address=ADDRESS).count()
    assert MAX_PER_ADDRESS <= from_address <= MAX_PER_ADDRESS * processes * windows
    assert from_address + omitted == requests
    assert stored.filter(client_address="192.0.2.2").count() == MAX_PER_ADDRESS // 2, "another address"
    assert sum_omitted(nagra.tenant_id) == omitted, "stored at the end"


def test_addresses_of_a_client_are_counted_together(transactional_db: None, nagra: HeadEnd) -> None:
    """One client has a /64 network of IPv6."""
    began = time.monotonic()
    with ServerProcess(AGS_TRUSTED_PROXIES="1") as server:
        head_end = use_server(server, nagra)
        for number in range(2 * MAX_PER_ADDRESS):
            head_end.present("x.y.z", x_forwarded_for=f"2001:db8:1:2::{number:x}")
        windows = 1 + int(time.monotonic() - began) // WINDOW
        head_end.present("x.y.z", x_forwarded_for="2001:db8:1:3::1", x_correlation_id="another-network")
    stored = Event.unscoped.filter(tenant=nagra.tenant_id, kind="refused")
    assert stored.filter(correlation_id="another-network").exists()
    assert stored.count() - 1 <= MAX_PER_ADDRESS * windows
    assert stored.count() - 1 + sum_omitted(nagra.tenant_id) == 2 * MAX_PER_ADDRESS


def test_a_stopping_server_stores_what_is_queued(transactional_db: None, nagra: HeadEnd) -> None:
    with ServerProcess() as server:
        head_end = use_server(server, nagra)
        for number in range(20):
            assert head_end.present("x.y.z", x_correlation_id=f"last-{number}").status_code == 401
        server.terminate()
        assert server.wait() == 0
    assert Event.unscoped.filter(correlation_id__startswith="last-").count() == 20


# Secrets

MARKER = "marker0815"


def test_events_contain_no_secrets(transactional_db: None, nagra: HeadEnd) -> None:
    # A server of its own: the refusal of a request that cannot be parsed counts for its peer, 127.0.0.1, as
    # those of other tests do.
    with ServerProcess(AGS_TRUSTED_PROXIES="1") as server:
        secrets, refused = refuse_secrets(ClientApp(forward(server, nagra)))
    rows = json.dumps(list(Event.unscoped.values()), default=str)
    stored = set(Event.unscoped.values_list("correlation_id", flat=True))
    assert [response for response in refused if response.headers["x-correlation-id"] not in stored] == []
    assert '"sign_on_ended"' in rows
    assert [secret for secret in secrets if secret in rows] == []


def refuse_secrets(app: ClientApp) -> tuple[list[str], list[Response]]:
    """Return secrets, and the responses to refused requests that contain them."""
    here = app.head_end
    platform = replace(create_platform(here.tenant_id), client=here.client)
    session_token = app.session_token()
    assert app.redeem(session_token).status_code == 201
    app.sign_on()
    secrets = [
        MARKER,
        session_token,
        platform.secret,
        platform.basic,
        *(app.tokens[name].rpartition(".")[2] for name in ("access_token", "refresh_token")),
    ]
    replayed = here.token(jti=f"jti-{MARKER}")
    secrets.append(replayed)
    assert here.present(replayed).status_code == 200
    refused = [
        here.present(replayed),
        here.present(here.token(OpfTenantId=MARKER)),
        here.present(here.token(typ=MARKER, aud=MARKER, iss=MARKER)),
        here.present(here.token(exp=1, sub=MARKER)),
        here.present(MARKER),
        here.present(here.token(headers={"typ": MARKER})),
        here.post({"parameters": [{"name": MARKER, "value": MARKER}]}),
        here.post('{"' + MARKER + '": 1, "' + MARKER + '": 1}'),
        here.post(MARKER, content_type=f"text/{MARKER}"),
        here.present(MARKER, authorization=f"Bearer {MARKER}", cookie=f"a={MARKER}", user_agent=MARKER),
        here.client.get(f"/{MARKER}?a={MARKER}"),
        here.client.get(f"/ags/servicediscovery?token={MARKER}", headers={"host": f"{MARKER}.example"}),
        here.client.get(f"/ags/getSessionToken?{MARKER}"),
        here.client.generic(MARKER.upper(), "/ags/getSessionToken", ""),
        app.redeem(session_token),
        app.redeem(MARKER),
        app.redeem(app.session_token(), deviceInformation=MARKER),
        app.refresh(MARKER),
        app.refresh(app.tokens["access_token"]),
        app.sign_out(MARKER),
        app.sign_out(app.tokens["refresh_token"]),
        platform.introspect(MARKER, authorization=f"Basic {MARKER}"),
        platform.post(
            "/oauth/revoke", {"token": MARKER, "client_id": platform.client_id, "client_secret": MARKER}
        ),
        platform.post("/oauth/revoke", {"token": MARKER, "client_secret": platform.secret}),
    ]
    assert platform.revoke(app.tokens["access_token"]).status_code == 200
    assert app.sign_out().status_code == 401
    assert platform.revoke(app.tokens["refresh_token"]).status_code == 200
    assert {response.status_code for response in refused} >= {400, 401, 404, 405, 415}
    assert all(response.status_code >= 400 for response in refused)
    return secrets, refused
