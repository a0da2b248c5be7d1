"""The LDAP strategy: searches for the entry of a username, and binds as it (RFC 4513, section 5.1)."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ldap.filter import escape_filter_chars
from rest_framework import serializers

from providers.contract import (
    IDENTIFIER,
    Account,
    CheckResult,
    Choice,
    Endpoint,
    Example,
    FailureReason,
    Identity,
    KeyRing,
    Parameter,
    Step,
    Strategy,
    VerificationFailed,
)
from providers.ldap.directory import Entry, open_directory
from providers.ldap.settings import USERNAME, LDAPSettings
from providers.upstream import run

_UNKNOWN_ENTRY = "cn=nobody that AGS knows"
"""AGS binds as this entry if the username is unknown, so that it takes as long as a wrong password."""

_PASSWORD = re.compile("[^\0\ud800-\udfff]++")
"""Not empty: some servers accept a bind without a password (RFC 4513, section 5.1.2)."""


class LDAPParameters(serializers.Serializer[Any]):
    Username = Parameter(
        description="The username in the operator's directory.", max_length=255, username=True
    )
    Password = Parameter(description="The password.", max_length=1024, password=True)


class LDAP(Strategy):
    slug = "ldap"
    label = "LDAP directory"
    endpoints = (Endpoint.SIGNON, Endpoint.SUBSEQUENT_SIGNON, Endpoint.SIGNOUT)
    steps = (Step.UPSTREAM, Step.CREDENTIALS, Step.ACCOUNT, Step.IDENTITY)
    Parameters = LDAPParameters
    Settings = LDAPSettings
    example = Example(
        settings={
            "host": "{host}",
            "port": "{port}",
            "bind_dn": "cn=ags,ou=services,dc=operator,dc=example",
            "bind_password": "the-password-of-the-service-account",
            "search_base": "ou=people,dc=operator,dc=example",
        },
        parameters={"Username": "subscriber-1", "Password": "the-password-of-the-subscriber"},
    )

    def verify(
        self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing
    ) -> Identity | Choice:
        username, password = parameters["Username"], parameters["Password"]
        if not IDENTIFIER.fullmatch(username) or not _PASSWORD.fullmatch(password):
            raise VerificationFailed(FailureReason.CREDENTIAL_UNKNOWN)
        authenticate = partial(_authenticate, username, password, settings)
        entry = run(settings["deadline"], _server(settings), authenticate)
        if entry is None:
            raise VerificationFailed(FailureReason.CREDENTIAL_UNKNOWN)
        return _get_accounts(entry, settings)

    def check(self, settings: Mapping[str, Any], keys: KeyRing) -> Iterator[CheckResult]:
        messages: list[str] = []
        try:
            run(settings["deadline"], _server(settings), partial(_check_steps, settings, messages))
        finally:
            yield from (CheckResult(True, message) for message in messages)


def _server(settings: Mapping[str, Any]) -> str:
    return f"{settings['host']}:{settings['port']}"


def _filter(username: str, settings: Mapping[str, Any]) -> str:
    user_filter: str = settings["user_filter"]
    return user_filter.replace(USERNAME, escape_filter_chars(username))


def _authenticate(username: str, password: str, settings: Mapping[str, Any]) -> Entry | None:
    attributes = dict.fromkeys(filter(None, (settings["account_attribute"], settings["status_attribute"])))
    with open_directory(settings) as directory:
        entries = directory.search(settings["search_base"], _filter(username, settings), list(attributes))
        entry = entries[0] if len(entries) == 1 else None
        dn = f"{_UNKNOWN_ENTRY},{settings['search_base']}" if entry is None else entry.dn
        is_correct = directory.check_password(dn, password)
    return entry if is_correct else None


def _get_accounts(entry: Entry, settings: Mapping[str, Any]) -> Identity | Choice:
    suspended = settings["suspended_value"].casefold()
    if suspended in (status.casefold() for status in _decode_values(entry, settings["status_attribute"])):
        raise VerificationFailed(FailureReason.ACCOUNT_SUSPENDED)
    accounts = sorted(_decode_values(entry, settings["account_attribute"]))
    if not accounts:
        raise VerificationFailed(FailureReason.IDENTITY_INVALID, settings["account_attribute"])
    if len(accounts) == 1:
        return Identity(accounts[0])
    return Choice(tuple(Account(account, account) for account in accounts))


def _decode_values(entry: Entry, attribute: str) -> list[str]:
    try:
        return [value.decode() for value in entry.attributes.get(attribute.lower(), [])]
    except UnicodeDecodeError:
        raise VerificationFailed(FailureReason.IDENTITY_INVALID, attribute) from None


def _check_steps(settings: Mapping[str, Any], messages: list[str]) -> None:
    """Append a message for each step that succeeds. Raises `UpstreamUnavailable`."""
    with open_directory(settings) as directory:
        messages.append(f"{_server(settings)} uses TLS with a trusted certificate for this name.")
        searcher = "The service account" if settings["bind_dn"] else "An anonymous client"
        directory.search(settings["search_base"], _filter("nobody that AGS knows", settings), ["1.1"])
        messages.append(f"{searcher} may search under {settings['search_base']}.")
