"""The pages of a key: its secret goes in, or is shown once, and its revocation says what stops."""

import base64
import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import SessionToken
from tenants.models import Key, KeyState, Service
from tests.support.change_form import submit_change
from tests.support.clients import HeadEnd
from tests.support.operators import add_key
from tests.support.staff import NEW_KEY_FORM as NEW
from tests.support.staff import SECRET_MARKER as MARKER
from tests.support.staff import person

LIST = "/admin/tenants/key/"
ADD = LIST + "add/"


def test_a_generated_secret_is_shown_and_works(admin_client: Client, nagra: HeadEnd) -> None:
    shown = admin_client.post(ADD, NEW)
    assert shown.status_code == 200
    assert "no-store" in shown["Cache-Control"]
    assert '<button type="button" hidden data-copies="secret"' in shown.content.decode(), "without scripts"
    secret = base64.b64decode(_shown(shown, "secret"))
    assert len(secret) == 32
    head_end = HeadEnd("nagra", _shown(shown, "kid"), secret)
    assert head_end.kid == "new-key"
    assert head_end.present(head_end.token()).status_code == 200


@pytest.mark.parametrize(("algorithm", "length"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_generated_secret_has_the_length_of_its_algorithm(
    admin_client: Client, nagra: HeadEnd, algorithm: str, length: int
) -> None:
    shown = admin_client.post(ADD, NEW | {"algorithm": algorithm})
    assert len(base64.b64decode(_shown(shown, "secret"))) == length


def test_a_generated_secret_is_nowhere_else(
    admin_client: Client, nagra: HeadEnd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        shown = admin_client.post(ADD, NEW)
    text = _shown(shown, "secret")
    assert shown.content.decode().count(text) == 1
    key = Key.unscoped.get(kid="new-key")
    spellings = _spellings(base64.b64decode(text))
    pages = [
        admin_client.get(address, follow=True)
        for address in (
            "/admin/",
            ADD,
            LIST,
            f"{LIST}{key.pk}/change/",
            f"{LIST}{key.pk}/history/",
            f"{LIST}{key.pk}/revoke/",
        )
    ]
    places = [
        *(page.content.decode() for page in pages),
        *(str(cookie) for page in (shown, *pages) for cookie in page.cookies.values()),
        *(str(value) for value in shown.headers.values()),
        *(str(session.get_decoded()) for session in Session.objects.all()),
        *(str(vars(entry)) for entry in LogEntry.objects.all()),
        *(str(vars(record)) for record in Key.history.all()),
        *(query["sql"] for query in queries),
        *(str(vars(record)) for record in caplog.records),
    ]
    for place in places:
        assert not any(spelling in place for spelling in spellings)


def test_a_page_that_is_sent_again_makes_no_second_key(admin_client: Client, nagra: HeadEnd) -> None:
    form = admin_client.get(ADD + "?tenant=nagra").context["adminform"].form
    filled = {**NEW, "kid": form["kid"].value()}
    assert _shown(admin_client.post(ADD, filled), "secret")
    again = admin_client.post(ADD, filled)
    assert "already exists" in again.content.decode()
    assert 'id="secret"' not in again.content.decode()
    assert Key.unscoped.count() == 2


def test_a_generated_key_without_a_kid_gets_a_uuid(admin_client: Client, nagra: HeadEnd) -> None:
    shown = admin_client.post(ADD, NEW | {"kid": ""})
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", _shown(shown, "kid")
    )


@pytest.mark.parametrize(
    ("encoding", "text", "secret"),
    [
        ("text", MARKER, MARKER.encode()),
        ("base64", base64.b64encode(b"\xff" * 16 + b"\xfe" * 16).decode(), b"\xff" * 16 + b"\xfe" * 16),
        (
            "base64url",
            base64.urlsafe_b64encode(b"\xff" * 16 + b"\xfe" * 16).decode(),
            b"\xff" * 16 + b"\xfe" * 16,
        ),
    ],
)
def test_an_entered_secret_is_read_as_it_is_said_to_be_written(
    admin_client: Client, nagra: HeadEnd, encoding: str, text: str, secret: bytes
) -> None:
    entered = admin_client.post(ADD, NEW | {"source": "enter", "encoding": encoding, "secret": text})
    assert entered.status_code == 302
    head_end = HeadEnd("nagra", "new-key", secret)
    assert head_end.present(head_end.token()).status_code == 200


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"source": ""}, {"source"}),
        ({"encoding": ""}, {"encoding"}),
        ({"kid": ""}, {"kid"}),
        ({"kid": "not a kid"}, {"kid"}),
        ({"tenant": "nobody"}, {"tenant"}),
        ({"state": "revoked"}, {"state"}),
        ({"algorithm": "RS256"}, {"algorithm"}),
        ({"algorithm": "HS512"}, {"secret"}),
        ({"encoding": "base64"}, {"secret"}),
        ({"source": "generate"}, {"secret"}),
        (
            {
                "not_before_0": "2027-01-02",
                "not_before_1": "0:00",
                "not_after_0": "2027-01-01",
                "not_after_1": "0:00",
            },
            {"not_after"},
        ),
    ],
)
def test_a_refused_form_comes_back_without_the_secret(
    admin_client: Client, nagra: HeadEnd, change: dict[str, str], fields: set[str]
) -> None:
    sent = NEW | {"source": "enter", "encoding": "text", "secret": MARKER + "."} | change
    page = admin_client.post(ADD, sent)
    assert page.status_code == 200
    assert set(page.context["adminform"].form.errors) == fields
    assert MARKER not in page.content.decode()
    assert "sealed" not in page.content.decode()
    assert Key.unscoped.count() == 1


@pytest.mark.parametrize("secret", ["short", "a" * 32, "-----BEGIN PUBLIC KEY-----" + "x" * 40])
def test_the_rules_for_secrets_hold_here_too(admin_client: Client, nagra: HeadEnd, secret: str) -> None:
    sent = NEW | {"source": "enter", "encoding": "text", "secret": secret}
    page = admin_client.post(ADD, sent)
    assert list(page.context["adminform"].form.errors) == ["secret"]


def test_state_and_dates_change_and_nothing_else_does(
    admin_client: Client, nagra: HeadEnd, sunrise: HeadEnd
) -> None:
    key = Key.objects.for_tenant("nagra").get()
    before = key.immutable_values()
    sent = submit_change(
        admin_client,
        f"{LIST}{key.pk}/change/",
        {
            **NEW,
            "tenant": "sunrise",
            "kid": "other",
            "algorithm": "HS512",
            "state": "retiring",
            "not_after_0": "2099-01-01",
            "not_after_1": "12:00:00",
            "secret": MARKER,
            "encoding": "text",
            "sealed_secret": "x",
        },
    )
    assert sent.status_code == 302
    key.refresh_from_db()
    assert key.immutable_values() == before
    assert key.state == KeyState.RETIRING
    assert f"{key.not_after:%Y-%m-%d %H:%M %Z}" == "2099-01-01 12:00 UTC"


@pytest.mark.parametrize("state", ["active", "retiring", "staged"])
def test_the_form_of_a_key_in_force_does_not_stop_it(
    admin_client: Client, nagra: HeadEnd, state: str
) -> None:
    Key.unscoped.update(state=state)
    submit_change(admin_client, f"{LIST}{Key.unscoped.get().pk}/change/", {"state": "staged"})
    assert Key.unscoped.get().state == state
    submit_change(admin_client, f"{LIST}{Key.unscoped.get().pk}/change/", {"state": "retiring"})
    assert Key.unscoped.get().state == "retiring"


def test_revoking_says_what_stops_and_then_stops_it(admin_client: Client, nagra: HeadEnd) -> None:
    key = Key.unscoped.get()
    for _ in range(3):
        assert nagra.present(nagra.token()).status_code == 200
    _tokens(nagra, 5, expired=True)
    question = admin_client.get(f"{LIST}{key.pk}/revoke/").content.decode()
    assert "Revoke key nagra-key-1 of nagra?" in question
    assert "Live session tokens: 3." in question
    assert "Other shared secrets of nagra in force: none." in question
    assert "No other shared secret of nagra is in force" in question
    assert nagra.present(nagra.token()).status_code == 200

    add_key(HeadEnd("nagra", "second", bytes(range(50, 90))), state="retiring")
    add_key(HeadEnd("nagra", "third", bytes(range(50, 90))), state="staged")
    question = admin_client.get(f"{LIST}{key.pk}/revoke/").content.decode()
    assert "Other shared secrets of nagra in force: second (never used)." in question
    assert "No other shared secret" not in question

    revoked = admin_client.post(f"{LIST}{key.pk}/revoke/", follow=True)
    assert "is revoked" in revoked.content.decode()
    assert nagra.present(nagra.token()).json()["reason"] == "not_authenticated"


ON_KEYS = ("operator_token", "Customer Auth Service")
BY_ITSELF = ("dummy", "Trial")


@pytest.mark.parametrize(
    ("services", "warning"),
    [
        ([ON_KEYS], "in force: no subscriber can sign on."),
        (
            [ON_KEYS, ("operator_token", "Box"), BY_ITSELF],
            "no subscriber can sign on through Box, Customer Auth Service. "
            "The other services need no shared secret.",
        ),
        ([BY_ITSELF], None),
        ([ON_KEYS, ("not_installed", "Old")], "in force: no subscriber can sign on."),
        ([("not_installed", "Old")], None),
        ([], None),
    ],
)
def test_the_warning_looks_at_the_strategies_of_the_enabled_services(
    admin_client: Client, nagra: HeadEnd, services: list[tuple[str, str]], warning: str | None
) -> None:
    Service.unscoped.update(name="Off", enabled=False)
    Service.unscoped.bulk_create(
        Service(tenant_id="nagra", strategy=strategy, name=name, enabled=True) for strategy, name in services
    )
    question = admin_client.get(f"{LIST}{Key.unscoped.get().pk}/revoke/")
    assert question.context["warning"] == ("" if warning is None else question.context["warning"])
    assert (warning or "Other shared secrets of nagra in force: none.") in question.content.decode()


def test_many_live_tokens_are_not_all_counted(admin_client: Client, nagra: HeadEnd) -> None:
    _tokens(nagra, 1500)
    with CaptureQueriesContext(connection) as queries:
        question = admin_client.get(f"{LIST}{Key.unscoped.get().pk}/revoke/").content.decode()
    assert "Live session tokens: more than 1000." in question
    (count,) = [q["sql"] for q in queries if "ags_sessions_sessiontoken" in q["sql"]]
    assert "LIMIT 1001" in count


@pytest.mark.postgresql
def test_what_would_stop_is_counted_without_compiling_the_statement(
    admin_client: Client, nagra: HeadEnd
) -> None:
    """Just-in-time compilation takes longer than the limit on counting, so no number would be shown."""
    with CaptureQueriesContext(connection) as queries:
        admin_client.get(f"{LIST}{Key.unscoped.get().pk}/revoke/")
    statements = [query["sql"] for query in queries]
    (count,) = [number for number, sql in enumerate(statements) if "ags_sessions_sessiontoken" in sql]
    assert "SET LOCAL jit = off" in statements[count - 1]
    assert "SET LOCAL jit TO DEFAULT" in statements[count + 1]


def test_a_revoked_key_cannot_be_brought_back(admin_client: Client, nagra: HeadEnd) -> None:
    key = Key.unscoped.get()
    admin_client.post(f"{LIST}{key.pk}/revoke/")
    page = admin_client.get(f"{LIST}{key.pk}/change/").content.decode()
    assert 'name="state"' not in page
    assert "/revoke/" not in page
    told = submit_change(admin_client, f"{LIST}{key.pk}/change/", {"state": "active"}, follow=True)
    assert "Not saved: the key was revoked in the meantime" in told.content.decode()
    auditor = person("auditor", "nagra")
    assert submit_change(auditor, f"{LIST}{key.pk}/change/", {"state": "active"}).status_code == 403
    assert Key.unscoped.get().state == KeyState.REVOKED


def test_a_form_is_refused_if_the_key_is_revoked_while_it_is_saved(
    admin_client: Client, nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Key.unscoped.get()
    save = Key.save

    def late(self: Key, *args: Any, **kwargs: Any) -> None:
        Key.unscoped.update(state=KeyState.REVOKED)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Key, "save", late)
    page = submit_change(admin_client, f"{LIST}{key.pk}/change/", {"state": "active"}, follow=True)
    assert page.status_code == 200
    assert "Not saved. Changed by a command at " in page.content.decode()


def _tokens(head_end: HeadEnd, count: int, *, expired: bool = False) -> None:
    """Store session tokens as the gate does, but many at once."""
    moment = "2001-01-01T00:00:00Z" if expired else "2099-01-01T00:00:00Z"
    key = Key.objects.for_tenant(head_end.tenant_id).get(kid=head_end.kid)
    service = Service.objects.for_tenant(head_end.tenant_id).get()
    SessionToken.unscoped.bulk_create(
        SessionToken(
            tenant_id=head_end.tenant_id,
            service=service,
            key=key,
            token_hash=f"{moment}{number}".encode(),
            account_id="many",
            correlation_id="many",
            expires_at=moment,
            dead_after=moment,
        )
        for number in range(count)
    )


def _shown(response: Any, name: str) -> str:
    found = re.search(rf'<code id="{name}"[^>]*>([^<]+)</code>', response.content.decode())
    assert found is not None
    return found.group(1)


def _spellings(secret: bytes) -> list[str]:
    standard = base64.b64encode(secret).decode().rstrip("=")
    return [standard, base64.urlsafe_b64encode(secret).decode().rstrip("="), secret.hex(), repr(secret)[2:-1]]


def test_a_leaked_key_is_revoked_whatever_else_is_wrong_with_its_row(
    admin_client: Client, nagra: HeadEnd
) -> None:
    now = datetime.now(UTC)
    Key.objects.for_tenant("nagra").update(
        algorithm="XS256", not_before=now, not_after=now - timedelta(days=1)
    )
    key = Key.objects.for_tenant("nagra").get()
    admin_client.post(f"/admin/tenants/key/{key.pk}/revoke/")
    assert Key.objects.for_tenant("nagra").get().state == "revoked"
