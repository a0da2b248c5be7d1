"""A signing key has leaked: what four libraries of resource servers accept, and from when they refuse it.

`docs/running/keys.md` has the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from urllib.request import urlopen

import pytest
from django.test import Client

from tenants.models import SigningKey, Tenant
from tests.support.clients import ClientApp, HeadEnd
from tests.support.live import wait_until_served
from tests.support.markers import NOT_HERE
from tests.support.server import ServerProcess
from tests.support.sign_ons import get_kid
from tests.support.upstream.https import HTTPSServer, ReceivedRequest, Reply
from tests.support.verifiers import (
    Verifiers,
    apache_verifier,
    find_missing,
    node_verifiers,
    pyjwt_verifier,
)
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.once

CACHED_FOR = {
    "PyJWKClient": 300,
    "jose": 600,
    "jose, 300 s": 300,
    "jwks-rsa": 600,
    "jwks-rsa, 300 s": 300,
    "mod_auth_openidc": 3600,
    "mod_auth_openidc, 300 s": 300,
}
"""Seconds after which each verifier refuses the tokens of a revoked key, by default and with the setting."""

COOL_DOWN = 30
"""Seconds after a fetch for which jose and PyJWKClient do not fetch the key set for an unknown key."""

MARGIN = 200
"""Seconds that the test may take between two steps."""


@pytest.fixture
def forwarder(server: ServerProcess) -> Iterator[HTTPSServer]:
    """A proxy with TLS in front of AGS, without which mod_auth_openidc fetches no key set."""

    def forward(request: ReceivedRequest) -> Reply:
        with urlopen(server.url + request.path, timeout=PATIENCE) as response:
            headers = {name: response.headers[name] for name in ("Content-Type", "Cache-Control", "ETag")}
            return Reply(200, response.read(), headers)

    with HTTPSServer() as running:
        running.default_reply = forward
        yield running


@pytest.fixture
def verifiers(forwarder: HTTPSServer, nagra: HeadEnd) -> Iterator[list[Verifiers]]:
    if missing := find_missing():
        pytest.skip(f"{NOT_HERE}{missing}")
    audience = nagra.tenant_id
    url = f"{forwarder.url}/.well-known/jwks.json?tenant={audience}"
    with ExitStack() as stack:
        yield [
            stack.enter_context(running)
            for running in (
                node_verifiers(url, audience),
                pyjwt_verifier(url, audience),
                apache_verifier("mod_auth_openidc", url),
                apache_verifier("mod_auth_openidc, 300 s", url, "OIDCJWKSRefreshInterval 300"),
            )
        ]


class Trial:
    """A client app with a token that all verifiers have accepted, so that they have the key set."""

    def __init__(self, server: ServerProcess, head_end: HeadEnd, verifiers: list[Verifiers]) -> None:
        self._verifiers = verifiers
        self._verify = {name: function for some in verifiers for name, function in some.by_name.items()}
        assert self._verify.keys() == CACHED_FOR.keys()
        self._app = ClientApp(wait_until_served(server, head_end))
        self._app.sign_on()
        self.old = self._app.tokens["access_token"]
        assert self.refusals(self.old) == {}

    def refusals(self, token: str) -> dict[str, str]:
        """Return the names of the verifiers that refuse the token, and why."""
        return {name: error for name, function in self._verify.items() if (error := function(token))}

    def shift(self, seconds: int) -> None:
        for verifiers in self._verifiers:
            verifiers.shift(seconds)

    def revoke(self, browser: Client) -> str:
        """Revoke the active key on its page. Return the first token that another key signs."""
        leaked = get_kid(self.old)
        key = SigningKey.unscoped.get(kid=leaked)
        assert browser.post(f"/admin/tenants/signingkey/{key.pk}/revoke/").status_code == 302
        wait_until(
            lambda: (
                self._app.refresh().status_code == 200 and get_kid(self._app.tokens["access_token"]) != leaked
            ),
            "no other key signs",
        )
        return str(self._app.tokens["access_token"])


def test_new_tokens_verify_at_once_and_old_ones_until_the_cache_expires(
    server: ServerProcess,
    nagra: HeadEnd,
    forwarder: HTTPSServer,
    verifiers: list[Verifiers],
    admin_client: Client,
) -> None:
    tenant = Tenant.objects.get(pk=nagra.tenant_id)
    tenant.access_token_ttl = 86_400  # longer than every cache
    tenant.save()
    standby = SigningKey.objects.for_tenant(tenant).get(state="staged").kid
    trial = Trial(server, nagra, verifiers)
    assert len(forwarder.requests) == len(CACHED_FOR), "each has fetched the key set"

    new = trial.revoke(admin_client)
    assert get_kid(new) == standby
    forwarder.requests.clear()
    assert trial.refusals(new) == {}
    assert len(forwarder.requests) == 2, "only jwks-rsa, which caches single keys, fetches the set again"
    assert trial.refusals(trial.old) == {}, "until they fetch the key set again"

    for seconds in sorted({*CACHED_FOR.values()}):
        for ahead in (seconds - MARGIN, seconds + 1):
            trial.shift(ahead)
            assert trial.refusals(new) == {}
            expired = {name for name, cached in CACHED_FOR.items() if cached < ahead}
            assert trial.refusals(trial.old).keys() == expired, ahead


def test_without_a_standby_key_verifiers_with_a_cool_down_refuse_new_tokens(
    server: ServerProcess, nagra: HeadEnd, verifiers: list[Verifiers], admin_client: Client
) -> None:
    SigningKey.objects.for_tenant(nagra.tenant_id).get(state="staged").delete()
    trial = Trial(server, nagra, verifiers)
    new = trial.revoke(admin_client)
    trial.shift(-MARGIN)  # within the cool-down, however long that took
    assert trial.refusals(new).keys() == {"PyJWKClient", "jose", "jose, 300 s"}
    trial.shift(COOL_DOWN + 1)
    assert trial.refusals(new) == {}
