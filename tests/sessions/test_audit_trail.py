"""Reading the audit trail."""

from ags.sessions.audit_trail import Criteria, read, search
from tests.support.clients import HeadEnd


def test_a_session_token_and_its_redemption_are_events(nagra: HeadEnd) -> None:
    assert nagra.present(nagra.token(), x_correlation_id="issued").status_code == 200
    (event,) = search([nagra.tenant_id], Criteria(correlation_id="issued"), 10)
    assert (event.kind, event.kid, event.client_address) == ("session_token_issued", nagra.kid, "127.0.0.1")
    assert list(read(nagra.tenant_id, Criteria())) == [event]
