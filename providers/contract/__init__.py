"""The contract between the gate and a provider: what a strategy declares, is given, and answers.

Read `strategy.py` first, then `verdict.py`. A provider is a Django app with one `Strategy`; it declares what
it wants from the caller (`Parameters`) and from staff (`Settings`), and does one thing: `verify`.
"""

from providers.contract.keys import KeyRing, TrustedKey
from providers.contract.parameters import PARAMETER_MAX_LENGTH, Declaration, Parameter
from providers.contract.settings import (
    CertificatesField,
    HostField,
    HTTPSField,
    SecretField,
    SecretLines,
    SessionTokenSettings,
    UpstreamSettings,
)
from providers.contract.strategy import Endpoint, Example, Finding, Strategy
from providers.contract.verdict import (
    ACCOUNTS_AT_MOST,
    MEANING,
    TEXT,
    Account,
    Choice,
    Identity,
    Outage,
    Refusal,
    Refused,
    Unavailable,
    account_id_of,
)

VERSION = 1
"""Counted up when a provider that was made for the version before would no longer work."""

__all__ = [
    "ACCOUNTS_AT_MOST",
    "MEANING",
    "PARAMETER_MAX_LENGTH",
    "TEXT",
    "VERSION",
    "Account",
    "CertificatesField",
    "Choice",
    "Declaration",
    "Endpoint",
    "Example",
    "Finding",
    "HTTPSField",
    "HostField",
    "Identity",
    "KeyRing",
    "Outage",
    "Parameter",
    "Refusal",
    "Refused",
    "SecretField",
    "SecretLines",
    "SessionTokenSettings",
    "Strategy",
    "TrustedKey",
    "Unavailable",
    "UpstreamSettings",
    "account_id_of",
]
