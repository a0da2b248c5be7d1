"""The contract between AGS and its providers: start with `strategy.py`, then `results.py`."""

from providers.contract.clock import current_time
from providers.contract.context import LogContext, log_context
from providers.contract.facts import clean_fact, json_type
from providers.contract.keys import KeyKind, KeyRing, TrustedKey
from providers.contract.parameters import PARAMETER_MAX_LENGTH, Parameter, ParameterSchema
from providers.contract.results import (
    IDENTIFIER,
    MAX_ACCOUNTS,
    UPSTREAM_FAILURE_MESSAGES,
    Account,
    Choice,
    FailureReason,
    Identity,
    UpstreamFailure,
    UpstreamUnavailable,
    VerificationFailed,
    parse_account_id,
)
from providers.contract.settings import (
    MAX_PASSWORD_FAILURES,
    CertificatesField,
    HostField,
    HTTPSField,
    PasswordSettings,
    SecretField,
    SecretTextarea,
    SessionTokenSettings,
    UpstreamSettings,
)
from providers.contract.steps import Step
from providers.contract.strategy import CheckResult, Endpoint, Example, Strategy

VERSION = 2
"""Incremented by each change that breaks providers made for the previous version."""

__all__ = [
    "IDENTIFIER",
    "MAX_ACCOUNTS",
    "MAX_PASSWORD_FAILURES",
    "PARAMETER_MAX_LENGTH",
    "UPSTREAM_FAILURE_MESSAGES",
    "VERSION",
    "Account",
    "CertificatesField",
    "CheckResult",
    "Choice",
    "Endpoint",
    "Example",
    "FailureReason",
    "HTTPSField",
    "HostField",
    "Identity",
    "KeyKind",
    "KeyRing",
    "LogContext",
    "Parameter",
    "ParameterSchema",
    "PasswordSettings",
    "SecretField",
    "SecretTextarea",
    "SessionTokenSettings",
    "Step",
    "Strategy",
    "TrustedKey",
    "UpstreamFailure",
    "UpstreamSettings",
    "UpstreamUnavailable",
    "VerificationFailed",
    "clean_fact",
    "current_time",
    "json_type",
    "log_context",
    "parse_account_id",
]
