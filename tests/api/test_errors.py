"""The registry of errors: one table, each number and word once."""

from ags.api.errors import NOT_AUTHENTICATED, PROVEN, REGISTRY, as_api_error
from providers.contract import FailureReason, VerificationFailed

UNPROVEN = {
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


def test_a_code_begins_with_its_status() -> None:
    for error in REGISTRY:
        # The numbers below 30000 are those that published client apps know.
        assert error.status == (error.code // 100 if error.code >= 30000 else 403)


def test_every_refusal_is_either_told_or_hidden_and_none_by_accident() -> None:
    assert set(PROVEN) | UNPROVEN == set(FailureReason)
    assert not set(PROVEN) & UNPROVEN
    for refusal in FailureReason:
        answered = as_api_error(VerificationFailed(refusal, "exp"))
        assert answered.why == refusal.value, "the log is precise"
        if refusal in UNPROVEN:
            assert answered.error is NOT_AUTHENTICATED
        else:
            assert answered.error.reason == refusal.value


def test_the_numbers_that_published_clients_know_stay() -> None:
    assert {error.reason: error.code for error in REGISTRY}.items() >= {
        ("not_authenticated", 40100),
        ("token_expired", 40104),
    }
