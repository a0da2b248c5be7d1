"""The form by which staff look up session tokens."""

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from ags.sessions.models import SessionToken
from ags.sessions.tokens import hashes_of
from tenants.forms import ChoiceOfTenant, FormOfTenants

KEYS = ("account_id", "correlation_id", "token")


class LookUp(FormOfTenants):
    """A tenant and one thing that is known of the token."""

    tenant = ChoiceOfTenant(SessionToken, "Whose subscriber it is.")
    account_id = forms.CharField(
        label="Account ID",
        required=False,
        max_length=255,
        strip=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="The whole account ID, exactly as the operator writes it.",
    )
    correlation_id = forms.CharField(
        label="Correlation ID",
        required=False,
        max_length=128,
        widget=UnfoldAdminTextInputWidget,
        help_text="The x-correlation-id of the answer that brought the token.",
    )
    token = forms.CharField(
        label="Session token",
        required=False,
        max_length=128,
        # Sent in the body of a POST, and never rendered back.
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}, render_value=False),
        help_text="The token itself, pasted. It is not kept.",
    )

    def clean(self) -> dict[str, Any]:
        """Demand exactly one of the three."""
        super().clean()
        given = [name for name in KEYS if self.cleaned_data.get(name)]
        if not self.errors and len(given) != 1:
            raise forms.ValidationError("Enter one of account ID, correlation ID and session token.")
        return self.cleaned_data

    def condition(self) -> dict[str, Any]:
        """Return what the row must match, besides its tenant."""
        data = self.cleaned_data
        if data["token"]:
            return {"token_hash__in": hashes_of(data["token"])}
        return {name: data[name] for name in ("account_id", "correlation_id") if data[name]}
