"""The button that ends everything that a tenant, a service or a key has given rise to."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from unfold.decorators import action
from unfold.enums import ActionVariant

from tenants.admin.base import ConfigurationAdmin, Confirmation
from tenants.models import Tenant
from tenants.revocation import revoke_issued

OFFLINE = (
    "AGS refuses the access tokens at once. Whoever verifies them without asking AGS accepts them until they "
    "expire."
)
"""What no revocation can reach."""


class IssuingAdmin(ConfigurationAdmin):
    """Base of the pages of what gives rise to session tokens and sign-ons."""

    @action(
        description="Revoke everything issued",
        url_path="revoke-issued",
        permissions=["change"],
        variant=ActionVariant.DANGER,
    )
    def revoke_issued(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """End all that it gave rise to, and not the row itself."""
        row: Any = self.get_object_or_404(request, object_id)
        kind = row._meta.verbose_name
        what = f"{kind} {row}" if isinstance(row, Tenant) else f"{kind} {row} of {row.tenant_id}"
        consequence = f"The {kind} itself stays as it is: what it gives rise to from now on is good."
        return self.confirm(
            request, row, revoke_issued_confirmation(what, consequence), lambda: revoke_issued(row)
        )


def revoke_issued_confirmation(what: str, *consequences: str) -> Confirmation:
    """Return the question before everything is revoked that this gave rise to."""
    return Confirmation(
        title=f"Revoke everything that {what} gave rise to?",
        consequences=[
            "Every session token, every choice of an account and every sign-on up to this moment is dead: "
            "devices have to sign on again, with a new proof.",
            OFFLINE,
            *consequences,
            "This cannot be undone.",
        ],
        button="Revoke everything",
        done=f"Everything that {what} gave rise to is revoked.",
        revokes_issued=True,
    )
