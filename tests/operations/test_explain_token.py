"""`manage.py explain --token -`: what a token would get now. Nothing is issued, stored or used up."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import Account, Event, SessionToken
from tenants.models import Service, Tenant
from tests.support.clients import SERVICE, TRIAL, ClientApp, HeadEnd
from tests.support.confused_tokens import KEY_SET, RSA
from tests.support.oidc_id_token import WELL_KNOWN, discovery, make_claims
from tests.support.upstream.https import HTTPSServer, as_json

MARKER = "marker4711"


@pytest.fixture
def explain(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that returns the exit status, and all output."""

    def run(token: str, *arguments: str, service: str = SERVICE, tenant: str = "nagra") -> tuple[int, str]:
        output = io.StringIO()
        monkeypatch.setattr("sys.stdin", io.StringIO(token))
        named = arguments or ("--token", "-")
        try:
            call_command("explain", *named, "--tenant", tenant, "--service", service, stdout=output)
        except CommandError as error:
            return 1, output.getvalue() + str(error)
        except SystemExit as end:
            return int(end.code or 0), output.getvalue()
        return 0, output.getvalue()

    return run


def token(head_end: HeadEnd, **claims: Any) -> str:
    return head_end.token(**{"OpfAccountId": f"account-{MARKER}", "jti": f"jti-{MARKER}", **claims})


def test_a_good_token_is_not_used_up(nagra: HeadEnd, explain: Any) -> None:
    good = token(nagra)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        status, text = explain(f"{good}\n")
    assert status == 0
    assert "AGS would issue a session token now." in text
    assert "FAILED" not in text
    assert "Key ID (kid)  nagra-key-1\n" in text
    assert {query["sql"].split()[0] for query in queries} == {"SELECT"}
    assert MARKER not in text
    assert good[:20] not in text
    assert not SessionToken.unscoped.exists()
    assert not Event.unscoped.exists()
    assert nagra.present(good).status_code == 200
    status, text = explain(good)
    assert status == 1
    assert "AGS has accepted a token with this jti before." in text
    assert "FAILED       replay (jti)" in text


# claims, expected text
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"exp": int(time.time()) - 3600}, "before the clock of AGS; a difference of 30 seconds"),
    "another audience": ({"aud": "other"}, "for the audience other, and the service requires ags"),
    "another tenant": ({"OpfTenantId": MARKER}, "OpfTenantId of the token names another tenant"),
    "another type": ({"typ": MARKER}, "typ of the token is not GetSessionTokenAuthN"),
}


@pytest.mark.parametrize(("claims", "expected"), REFUSED.values(), ids=REFUSED)
def test_a_refused_token_is_explained(
    nagra: HeadEnd, explain: Any, claims: dict[str, Any], expected: str
) -> None:
    status, text = explain(token(nagra, **claims))
    assert status == 1
    assert expected in text
    assert "What to do: " in text
    assert MARKER not in text


def test_an_unknown_key_is_named(nagra: HeadEnd, explain: Any) -> None:
    status, text = explain(token(nagra, headers={"kid": "another"}))
    assert status == 1
    assert "The service has no key with the key ID (kid) another." in text


def test_the_input_is_limited(nagra: HeadEnd, explain: Any) -> None:
    status, text = explain(MARKER * 10_000)
    assert status == 1
    assert "is not a string of the declared length" in text
    assert MARKER not in text


def test_a_token_on_the_command_line_is_refused_and_not_repeated(nagra: HeadEnd, explain: Any) -> None:
    status, text = explain("", "--token", MARKER)
    assert (status, "reads the token from standard input only" in text) == (1, True)
    assert MARKER not in text


def test_a_service_without_a_token(nagra: HeadEnd, trial: Service, explain: Any) -> None:
    status, text = explain(MARKER, service=TRIAL)
    assert (status, text) == (
        1,
        "The service verifies no token: its parameters are Account, Passphrase.",
    )


@pytest.mark.parametrize("pair", [f"Nonce={MARKER}", f"operatorauthtoken={MARKER}", MARKER])
def test_a_parameter_that_the_service_does_not_have(nagra: HeadEnd, explain: Any, pair: str) -> None:
    status, text = explain(token(nagra), "--token", "-", "--parameter", pair)
    assert (status, "The service has no further parameter with this name" in text) == (1, True)
    assert MARKER not in text


@pytest.mark.django_db(transaction=True)
def test_an_id_token_with_its_nonce(nagra: HeadEnd, explain: Any) -> None:
    with HTTPSServer() as server:
        server.replies[WELL_KNOWN], server.replies["/keys"] = discovery(server), as_json(KEY_SET)
        settings = {"issuer": server.url, "client_id": "television", **server.settings}
        service = Service(tenant_id="nagra", name="OIDC", strategy="oidc_id_token", display_name="x")
        service.enabled, service.settings = True, settings
        service.save()
        id_token = RSA.token(make_claims(server, sub=MARKER, nonce=MARKER))
        parameter = ("--token", "-", "--parameter")
        status, text = explain(id_token, *parameter, f"nonce={MARKER}", service="OIDC")
        assert (status, "AGS would issue a session token now." in text) == (0, True)
        assert MARKER not in text
        status, text = explain(id_token, *parameter, "Nonce=other", service="OIDC")
        assert (status, "FAILED       nonce" in text) == (1, True)
        status, text = explain(RSA.token(make_claims(server), kid="x"), service="OIDC")
        assert (status, "FAILED       key (kid)" in text) == (1, True)
        status, text = explain(RSA.token(make_claims(server, aud=MARKER * 9)), service="OIDC")
        assert "and the service requires television." in text


def test_tenants_and_services_that_are_not_available(nagra: HeadEnd, explain: Any) -> None:
    assert "FAILED       service" in explain(token(nagra), service="None")[1]
    assert "FAILED       tenant" in explain(token(nagra), tenant="none")[1]
    Service.unscoped.update(settings={"clock_skew": 1000})
    assert "FAILED       service" in explain(token(nagra))[1]
    Service.unscoped.update(settings={}, enabled=False)
    assert "FAILED       service" in explain(token(nagra))[1]
    Tenant.objects.update(enabled=False)
    assert "FAILED       tenant" in explain(token(nagra))[1]


def test_a_suspended_account_is_mentioned(nagra: HeadEnd, explain: Any) -> None:
    ClientApp(nagra).sign_on(f"account-{MARKER}")
    Account.unscoped.update(status="suspended")
    status, text = explain(token(nagra))
    assert status == 0
    assert "The account is suspended, so the session token could not be redeemed." in text
    assert MARKER not in text


@pytest.mark.parametrize(
    "arguments", [(), ("--token", "-"), ("--token", "-", "--tenant", "nagra"), ("some-id", "--token", "-")]
)
def test_the_arguments_must_be_complete(db: None, arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError, match=r"^(Give either a correlation ID|--token needs --tenant)"):
        call_command("explain", *arguments)
