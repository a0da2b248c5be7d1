"""Opening links that explain one request: without an account, and only while they are valid."""

from __future__ import annotations

import html
import io
import logging
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core import signing
from django.core.management import call_command
from django.test import Client

from ags.api.views import explanation as views
from ags.database.clock import get_database_time
from ags.explanations.links import build_path
from ags.explanations.models import ExplanationLink
from ags.limits import EXPLANATION_OPENINGS
from ags.server.logs import JSONFormatter, TextFormatter
from ags.sessions.models import Event
from tenants.models import Tenant
from tests.support.audit_search import add_event
from tests.support.clients import HeadEnd
from tests.support.explanation_pages import (
    ADD,
    create_explanation_link,
    create_link_to_refusal,
    explain_on_page,
)
from tests.support.staff import person

NOT_OPEN = "The link is incomplete, has expired or was revoked, or the request is no longer stored."
TAMPERED = "A" * 43


@pytest.fixture
def link(nagra: HeadEnd) -> ExplanationLink:
    """A link to a refusal."""
    return create_link_to_refusal()


def get_openings() -> list[Event]:
    return list(Event.unscoped.filter(kind="explanation_opened").order_by("pk"))


def check_headers(response: Any) -> None:
    assert response["X-Robots-Tag"] == "noindex, nofollow"
    assert response["Referrer-Policy"] == "no-referrer"
    assert response["Cache-Control"] == "no-store"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"
    assert re.fullmatch(
        "default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
        response["Content-Security-Policy"],
    )
    assert not response.cookies
    assert "Vary" not in response


def test_the_page_is_neither_indexed_nor_kept_and_sets_no_cookie(
    link: ExplanationLink, admin_client: Client
) -> None:
    for browser in (Client(), admin_client):
        response = browser.get(build_path(link))
        check_headers(response)
        text = response.content.decode()
        assert '<meta name="robots" content="noindex, nofollow">' in text
        assert '<meta name="referrer" content="no-referrer">' in text
        for part in ("<script", "src=", "href=", "<form", "url(", "@import"):
            assert part not in text
    check_headers(Client().get("/explanations/nothing"))


def test_the_redirect_to_https_is_not_kept(link: ExplanationLink, settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = True
    response = Client().get(build_path(link))
    assert (response.status_code, response["Cache-Control"]) == (301, "no-store")
    assert get_openings() == []


def test_each_opening_is_stored(link: ExplanationLink) -> None:
    for number in range(2):
        headers = {"x-correlation-id": f"opening-{number}"}
        assert Client(REMOTE_ADDR="203.0.113.9").get(build_path(link), headers=headers).status_code == 200
    for number, event in enumerate(get_openings()):
        assert (event.tenant_id, event.client_address) == ("nagra", "203.0.113.9")
        assert event.correlation_id == f"opening-{number}"
        assert event.details == {"link": link.pk, "explained_correlation_id": "call-9"}
        assert (event.account_id, event.actor) == ("", "")
    assert len(get_openings()) == 2


def test_the_page_does_not_say_what_is_configured_now(nagra: HeadEnd) -> None:
    event = add_event(
        correlation_id="staged",
        kid=nagra.kid,
        reason="key_not_in_force",
        details={"method": "POST", "route": "/ags/getSessionToken", "status": 401},
    )
    assert "The key is active now" in explain_on_page(person("support", "nagra"), "staged").text
    response = Client().get(build_path(create_explanation_link("nagra", f"event:{event.pk}")))
    assert "Why this request was refused" in response.content.decode()
    assert "active now" not in response.content.decode()


def test_a_head_is_not_an_opening(link: ExplanationLink) -> None:
    response = Client().head(build_path(link))
    assert (response.status_code, response.content) == (200, b"")
    check_headers(response)
    assert get_openings() == []


def test_an_opening_does_not_take_the_place_of_its_request(link: ExplanationLink) -> None:
    for _ in range(3):
        Client().get(build_path(link), headers={"x-correlation-id": "call-9"})
    page = explain_on_page(person("support", "nagra"), "call-9")
    assert [shown.fault["At fault"] for shown in page.explanations] == ["head-end"]
    (opening, *_) = get_openings()
    assert person("operator staff", "nagra").post(ADD, {"event": f"event:{opening.pk}"}).status_code == 404


def expire(link: ExplanationLink) -> str:
    ExplanationLink.unscoped.update(expires_at=get_database_time() - timedelta(seconds=1))
    return build_path(link)


def revoke(link: ExplanationLink) -> str:
    ExplanationLink.unscoped.update(revoked_at=get_database_time())
    return build_path(link)


def disable_tenant(link: ExplanationLink) -> str:
    Tenant.objects.update(enabled=False)
    return build_path(link)


def purge_event(link: ExplanationLink) -> str:
    Event.unscoped.all().delete()
    return build_path(link)


def delete_link(link: ExplanationLink) -> str:
    path = build_path(link)
    link.delete()
    return path


def reuse_primary_key(link: ExplanationLink) -> str:
    ExplanationLink.unscoped.update(created_at=link.created_at + timedelta(seconds=1))
    return build_path(link)


def change_tenant_of_event(link: ExplanationLink) -> str:
    Event.unscoped.update(tenant="sunrise")
    return build_path(link)


def sign_for_another_purpose(link: ExplanationLink) -> str:
    return f"/explanations/{signing.Signer(sep='.').sign(build_path(link)[14:-44])}"


CLOSED: dict[str, Callable[[ExplanationLink], str]] = {
    "expired": expire,
    "revoked": revoke,
    "tenant disabled": disable_tenant,
    "event purged": purge_event,
    "link purged": delete_link,
    "event of another tenant": change_tenant_of_event,
    "another salt": sign_for_another_purpose,
    "another key": lambda link: build_path(ExplanationLink(pk=link.pk + 1, created_at=link.created_at)),
    "another number": lambda link: build_path(link).replace(f"/{link.pk}-", f"/{link.pk + 1}-"),
    "of a database before a restored backup": reuse_primary_key,
    "no number": lambda link: "/explanations/." + build_path(link).partition(".")[2],
    "tampered": lambda link: build_path(link)[:-43] + TAMPERED,
    "truncated": lambda link: build_path(link)[:-1],
    "longer": lambda link: build_path(link) + "A",
    "10,000 characters": lambda link: "/explanations/" + "1" * 9956 + "-1." + TAMPERED,
    "a slash": lambda link: build_path(link) + "/",
    "another part": lambda link: build_path(link) + "/change",
    "a line end": lambda link: build_path(link) + "%0A",
    "other digits": lambda link: "/explanations/٣-1." + TAMPERED,
    "not UTF-8": lambda link: "/explanations/%FF-1." + TAMPERED,
    "nothing": lambda link: "/explanations/",
}


@pytest.mark.parametrize("close", CLOSED.values(), ids=CLOSED)
def test_a_link_that_does_not_open_has_one_page(
    link: ExplanationLink, sunrise: HeadEnd, close: Callable[[ExplanationLink], str]
) -> None:
    assert Client().get(build_path(link)).status_code == 200
    Event.unscoped.filter(kind="explanation_opened").delete()
    path = close(link)
    for method in (Client().get, Client().head):
        response = method(path)
        assert response.status_code == 404
        check_headers(response)
        assert response["Content-Type"] == "text/html; charset=utf-8"
        assert get_openings() == []
    text = html.unescape(Client().get(path).content.decode())
    assert NOT_OPEN in text
    for hidden in ("nagra", "call-9", "anna", "token"):
        assert hidden not in text.partition("</style>")[2]


@pytest.mark.parametrize("name", ["tampered", "another number", "truncated", "10,000 characters"])
def test_without_a_valid_signature_the_database_is_not_queried(
    link: ExplanationLink, django_assert_num_queries: Any, name: str
) -> None:
    path = CLOSED[name](link)
    with django_assert_num_queries(0):
        assert Client().get(path).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(link: ExplanationLink, method: str) -> None:
    response = Client(enforce_csrf_checks=True).generic(method, build_path(link))
    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")
    check_headers(response)
    assert get_openings() == []


def test_a_flood_of_openings_stores_no_more_than_the_maximum(
    link: ExplanationLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "MAX_OPENINGS", 3)
    before = EXPLANATION_OPENINGS.refusals.total()
    statuses = []
    for number in range(6):
        response = Client(REMOTE_ADDR=f"203.0.113.{number}").get(build_path(link))
        statuses.append(response.status_code)
    assert statuses == [200, 200, 200, 429, 429, 429]
    assert 1 <= int(response["Retry-After"]) <= 60
    check_headers(response)
    assert f"Try again in {response['Retry-After']} seconds." in response.content.decode()
    assert len(get_openings()) == 3
    assert EXPLANATION_OPENINGS.refusals.total() == before + 3
    other = create_explanation_link("nagra", link.event)
    assert Client().get(build_path(other)).status_code == 200


def test_the_log_contains_no_token(link: ExplanationLink, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    path = build_path(link)
    token = path.rpartition("/")[2]
    for sent in (path, path + "/", path[:-1]):
        for method in (Client().get, Client().head, Client().post):
            method(sent)
    formats: list[logging.Formatter] = [JSONFormatter(), TextFormatter()]
    lines = [formatter.format(record) for record in caplog.records for formatter in formats]
    requests = [line for line in lines if '"ags.request"' in line]
    assert len(requests) == 9
    assert all('"route": "/explanations/"' in line for line in requests)
    assert sum('"tenant": "nagra"' in line for line in requests) == 2
    for line in lines:
        assert token not in line
        assert token[:-10] not in line


def test_the_purge_deletes_a_link_thirty_days_after_its_end(nagra: HeadEnd) -> None:
    now = get_database_time()
    for days in (29, 31):
        create_explanation_link("nagra", created_by=str(days), expires_at=now - timedelta(days=days))
    output = io.StringIO()
    call_command("purge", stdout=output)
    assert "1 explanation links" in output.getvalue()
    assert [link.created_by for link in ExplanationLink.unscoped.all()] == ["29"]
