"""Direct sign-ons."""

from __future__ import annotations

from typing import Any

from ags.sessions.models import SessionToken
from tests.support.clients import TRIAL, ClientApp
from tests.support.responses import CORRELATION_ID


def sign_on_directly(app: ClientApp, account: str = "account-1", **members: Any) -> Any:
    """Sign on with the trial service and a fixed correlation ID."""
    device = members or {"deviceInformation": {}}
    body = {"parameters": [{"name": "Account", "value": account}], **device}
    return app.call("/ags/signOn", body, x_auth_service_id=TRIAL, x_correlation_id=CORRELATION_ID)


def sign_on_with_operator_token(app: ClientApp, token: str, **members: Any) -> Any:
    """Sign on with an OperatorAuthToken."""
    device = members or {"deviceInformation": {}}
    body = {"parameters": [{"name": "OperatorAuthToken", "value": token}], **device}
    return app.call("/ags/signOn", body, x_correlation_id=CORRELATION_ID)


def get_session_tokens() -> list[SessionToken]:
    return list(SessionToken.objects.for_tenant("nagra").order_by("pk"))
