"""What version 1 promised to a provider, beyond what the three providers use of it."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from pkgutil import resolve_name

import pytest

from providers.contract import (
    Endpoint,
    Finding,
    KeyRing,
    Outage,
    Refusal,
    Refused,
    SecretField,
    SessionTokenSettings,
    Strategy,
    TrustedKey,
    Unavailable,
    UpstreamFailure,
    UpstreamUnavailable,
    VerificationFailed,
)
from providers.registry import strategies
from providers.version_1 import load_strategy
from providers.version_1.names import KEYWORDS, MEMBERS

TABLES = (*MEMBERS.values(), *KEYWORDS.values())

# Every public name of the contract and its tools at version 1, with the parameters of what can be called.
NAMES = (Path(__file__).parent / "names.txt").read_text().split()


@pytest.mark.parametrize("name", NAMES)
def test_each_name_that_version_1_had_is_there(name: str) -> None:
    path, _, arguments = name.rstrip(")").partition("(")
    there = resolve_name(path)
    accepted = signature(there).parameters.keys() if arguments else {}
    for argument in filter(None, arguments.split(",")):
        spellings = {argument, *(names[argument] for names in TABLES if argument in names)}
        assert spellings & accepted, argument


def test_an_old_name_is_another_name_of_the_same_class() -> None:
    assert Refused is VerificationFailed
    assert Unavailable is UpstreamUnavailable
    assert Outage.REFUSES_US is UpstreamFailure.CREDENTIALS_REJECTED


def test_old_attributes_and_keyword_arguments_work() -> None:
    refused = Refused(refusal=Refusal.MALFORMED, claim="exp")
    assert (refused.refusal, refused.claim) == (Refusal.MALFORMED, "exp")
    unavailable = Unavailable(outage=Outage.WRONG)
    assert (unavailable.outage, str(unavailable)) == (Outage.WRONG, str(UpstreamUnavailable(Outage.WRONG)))
    finding = Finding(good=None, sentence="It answers.")
    assert (finding.good, finding.sentence) == (None, "It answers.")
    key = TrustedKey(id=7, kid="k", algorithm="HS256", material=None)
    assert key.refusal(0.0) is Refusal.KEY_UNREADABLE
    assert KeyRing("nagra", {}, decoy=key).decoy is key
    secret = SecretField(sent_to=("url",), lines=True)
    assert (secret.sent_to, secret.lines) == (("url",), True)


class OldSettings(SessionTokenSettings):
    api_key = SecretField()
    signing_secret = SecretField(sent_to=())
    proxy_password = SecretField(sent_to=("api_key",))


class OtherSettings(SessionTokenSettings):
    api_key = OldSettings.base_fields["api_key"]


class Old(Strategy):
    slug = "old"
    label = "Old"
    endpoints = (Endpoint.GET_SESSION_TOKEN,)
    is_nonblocking = True
    Settings = OldSettings

    def documents(self, settings, keys):  # noqa: ANN001, ANN201
        return {**super().documents(settings, keys), "key set": "https://login.example/keys"}


class Other(Strategy):
    Settings = OtherSettings


def test_what_a_strategy_declares_is_translated() -> None:
    old, other = load_strategy(f"{__name__}.Old"), load_strategy(f"{__name__}.Other")
    assert (old.blocking, other.blocking) == (False, True)
    assert old.document_urls({}, KeyRing("nagra", {})) == {"key set": "https://login.example/keys"}
    assert other.document_urls({}, KeyRing("nagra", {})) == {}


def test_a_secret_without_a_declaration_belongs_to_all_other_settings() -> None:
    fields = load_strategy(f"{__name__}.Old").Settings.base_fields
    assert {name: getattr(field, "destination_settings", None) for name, field in fields.items()} == {
        "session_token_ttl": None,
        "api_key": ("session_token_ttl", "signing_secret", "proxy_password"),
        "signing_secret": (),
        "proxy_password": ("api_key",),
    }
    fields = load_strategy(f"{__name__}.Other").Settings.base_fields
    assert fields["api_key"].destination_settings == ("session_token_ttl",)


def test_a_declared_opposite_reaches_the_event_loop() -> None:
    assert {slug: strategies()[slug].blocking for slug in ("voucher", "line", "partner_jwt")} == {
        "voucher": False,
        "line": True,
        "partner_jwt": True,
    }
