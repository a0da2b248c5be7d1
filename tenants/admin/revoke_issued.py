"""The transition "Revoke everything issued" of tenants, services, keys and accounts."""

from typing import Any

from django.http import HttpRequest

from tenants.admin.transitions import OFFLINE, Transition, TransitionAdmin
from tenants.revocation import revoke_issued


class RevokeIssuedAdmin(TransitionAdmin):
    def perform_revoke_issued(self, request: HttpRequest, row: Any, transition: Transition) -> None:
        revoke_issued(row)


def revoke_issued_transition(what: str, *consequences: str, **fields: Any) -> Transition:
    """Return the transition of a row, called `what`, that revokes everything that it issued."""
    return Transition(
        **{
            "name": "revoke_issued",
            "label": "Revoke everything issued",
            "method": "perform_revoke_issued",
            "title": f"Revoke everything that {what} issued?",
            "done": f"Everything that {what} issued is revoked.",
            "revokes_issued": True,
            **fields,
        },
        consequences=(
            "Every session token, every choice of an account and every sign-on issued until now becomes "
            "invalid: devices have to sign on again, with new credentials.",
            OFFLINE,
            *consequences,
            "This cannot be undone.",
        ),
    )
