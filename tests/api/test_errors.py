"""The registry of errors, and the conversion of exceptions."""

from ags.api.errors import ERRORS_BY_FAILURE_REASON, NOT_AUTHENTICATED, REGISTRY, as_api_error
from providers.contract import FailureReason, VerificationFailed

UNAUTHENTICATED = {
    FailureReason.MALFORMED,
    FailureReason.HEADER_MEMBER_FORBIDDEN,
    FailureReason.KEY_UNKNOWN,
    FailureReason.KEY_NOT_IN_FORCE,
    FailureReason.KEY_UNREADABLE,
    FailureReason.ALGORITHM_MISMATCH,
    FailureReason.SIGNATURE_INVALID,
    FailureReason.CREDENTIAL_UNKNOWN,
    FailureReason.TOKEN_INACTIVE,
    FailureReason.IDENTITY_INVALID,
}


def test_codes_and_reasons_are_unique_and_in_order() -> None:
    codes = [error.code for error in REGISTRY]
    assert codes == sorted(set(codes))
    assert len({error.reason for error in REGISTRY}) == len(REGISTRY)


def test_code_begins_with_its_status() -> None:
    for error in REGISTRY:
        # Codes below 30000 are handled by published client apps.
        assert error.status == (error.code // 100 if error.code >= 30000 else 403)


def test_every_failure_reason_has_its_own_error_or_is_not_authenticated() -> None:
    assert set(ERRORS_BY_FAILURE_REASON) | UNAUTHENTICATED == set(FailureReason)
    assert not set(ERRORS_BY_FAILURE_REASON) & UNAUTHENTICATED
    for reason in FailureReason:
        api_error = as_api_error(VerificationFailed(reason, "exp"))
        assert api_error.log_reason == reason.value, "the log contains the exact reason"
        if reason in UNAUTHENTICATED:
            assert api_error.error is NOT_AUTHENTICATED
        else:
            assert api_error.error.reason == reason.value


def test_codes_of_published_client_apps_do_not_change() -> None:
    assert {error.reason: error.code for error in REGISTRY}.items() >= {
        ("not_authenticated", 40100),
        ("token_expired", 40104),
    }
