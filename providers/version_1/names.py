"""The names of version 1 of the contract, and what each is called in version 2."""

from collections.abc import Mapping

MODULES: Mapping[str, str] = {
    "providers.contract.verdict": "providers.contract.results",
    "providers.key_set": "providers.jwks",
    "providers.key_set.entered": "providers.jwks.static_keys",
    "providers.key_set.jwk": "providers.jwks.jwk",
    "providers.key_set.key_set": "providers.jwks.jwk_set",
    "providers.key_set.proof": "providers.jwks.refetch",
    "providers.key_set.settings": "providers.jwks.settings",
    "providers.key_set.strength": "providers.jwks.strength",
    "providers.upstream.answer": "providers.upstream.response",
    "providers.upstream.room": "providers.upstream.bulkhead",
}

NAMES: Mapping[str, Mapping[str, str]] = {
    "providers.contract": {
        "ACCOUNTS_AT_MOST": "MAX_ACCOUNTS",
        "Declaration": "ParameterSchema",
        "Finding": "CheckResult",
        "MEANING": "UPSTREAM_FAILURE_MESSAGES",
        "Outage": "UpstreamFailure",
        "Refusal": "FailureReason",
        "Refused": "VerificationFailed",
        "SecretLines": "SecretTextarea",
        "TEXT": "IDENTIFIER",
        "Unavailable": "UpstreamUnavailable",
        "account_id_of": "parse_account_id",
    },
    "providers.jose": {
        "FOREIGN_KID": "EXTERNAL_KID",
        "PUBLIC_KEYS": "PUBLIC_KEY_TYPES",
        "Proven": "VerifiedJWS",
        "canonical": "decode_base64url",
        "prove": "verify_jws",
    },
    "providers.claims": {
        "LIFETIME_AT_MOST": "MAX_LIFETIME",
        "account": "get_account_id",
        "demand_issuer": "check_issuer",
        "demand_no_events": "check_no_events",
        "expiry": "check_times",
        "identity": "create_identity",
        "moment": "numeric_date",
        "present": "require",
        "text": "string",
    },
    "providers.jwks": {
        "KEYS_AT_MOST": "MAX_KEYS",
        "KeySet": "JWKSet",
        "KeySetReader": "JWKSetReader",
        "Unusable": "UnusableKey",
        "demand_strength": "check_strength",
        "entered": "parse_static_keys",  # the function: the package also has a module of this name
        "key_of": "parse_jwk",
        "key_set": "parse_jwk_set",  # the function, as above
        "prove_by": "verify_with_jwks",
        "ring": "create_key_ring",
        "trusted": "create_trusted_key",
    },
    "providers.upstream": {
        "Answer": "Response",
        "BUSY_GAP": "OVERLOAD_RETRY_INTERVAL",
        "EARLY": "REFRESH_AGE",
        "FRESH_FOR": "MAX_AGE",
        "GAP": "MIN_FETCH_INTERVAL",
        "KEPT_FOR": "MAX_STALE_AGE",
        "PLACES": "MAX_CONCURRENT_CALLS",
        "PLACES_OF_ONE": "MAX_CALLS_PER_UPSTREAM",
        "Room": "Bulkhead",
        "addresses_of": "resolve_addresses",
        "ask": "request",
        "requests": "foreground",
        "trusting": "tls_context",
        "within": "run",
    },
}
"""What a package, or a module of it, has under another name."""

MEMBERS: Mapping[str, Mapping[str, str]] = {
    "providers.contract.CheckResult": {"good": "passed", "sentence": "message"},
    "providers.contract.KeyRing": {"decoy": "dummy_key"},
    "providers.contract.ParameterSchema": {"declared": "fields", "parameters": "serializer"},
    "providers.contract.SecretField": {"lines": "multiline", "sent_to": "destination_settings"},
    "providers.contract.Strategy": {
        "declaration": "parameter_schema",
        "documents": "document_urls",
        "is_nonblocking": "blocking",  # its opposite
    },
    "providers.contract.TrustedKey": {"refusal": "failure_reason"},
    "providers.contract.UpstreamFailure": {
        "AWAY": "UNREACHABLE",
        "BUSY": "OVERLOADED",
        "FORBIDDEN": "ADDRESS_FORBIDDEN",
        "REFUSES_US": "CREDENTIALS_REJECTED",
        "SLOW": "TIMEOUT",
        "TOO_LARGE": "RESPONSE_TOO_LARGE",
        "UNTRUSTED": "CERTIFICATE_UNTRUSTED",
        "WRONG": "RESPONSE_INVALID",
    },
    "providers.contract.UpstreamUnavailable": {"outage": "failure"},
    "providers.contract.VerificationFailed": {"refusal": "reason"},
    "providers.jwks.JWKSet": {"findings": "check_results", "ring": "key_ring"},
    "providers.upstream.Bulkhead": {"place": "slot", "within": "run"},
    "providers.upstream.Document": {"newer": "refresh"},
    "providers.upstream.Health": {"outage": "failure"},
    "providers.upstream.Response": {"outage": "unavailable"},
}
"""Attributes of classes of version 2, and keyword arguments of their constructors."""

KEYWORDS: Mapping[str, Mapping[str, str]] = {
    "providers.claims.create_identity": {"once": "replay_id"},
    "providers.jose.verify_jws": {"kids": "kid_pattern"},
    "providers.jwks.check_results": {"whose": "subject"},
    "providers.upstream.refresh": {"than": "outdated"},
    "providers.upstream.request": {"room": "bulkhead"},
    "providers.upstream.tls_context": {"authorities": "ca_certificates"},
}
"""Keyword arguments of functions and methods of version 2."""
