"""The forms by which staff look up what the gate keeps about subscribers, and add an account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django import forms
from django.core.validators import RegexValidator
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from ags.sessions.models import Account, Device, SecurityEvent, SessionToken
from ags.sessions.tokens.opaque import token_hashes
from providers.contract import IDENTIFIER
from tenants.admin.forms import TenantChoiceField, TenantScopedForm, TenantScopedModelForm
from tenants.whitespace import strip_whitespace

EXACTLY = "The whole account ID, exactly as the operator writes it."
WHITESPACE_HELP = "White space around it is removed."


def _text(label: str, max_length: int, help_text: str, **options: Any) -> forms.CharField:
    return forms.CharField(
        label=label,
        max_length=max_length,
        help_text=help_text,
        **{"required": False, "widget": UnfoldAdminTextInputWidget, **options},
    )


def _account_id(**options: Any) -> forms.CharField:
    return _text("Account ID", 255, **{"help_text": EXACTLY, "strip": False, **options})


def _spellings(account_id: str) -> set[str]:
    """Return what is looked for: white space may be part of the ID, or come from pasting it."""
    return {account_id, strip_whitespace(account_id)}


class SearchForm(TenantScopedForm):
    """A tenant, and exactly one thing that is known of what is looked for."""

    verbatim_fields = ("account_id",)
    account_field: ClassVar[str] = "account_id"
    """Where the row has the account ID."""

    def clean(self) -> dict[str, Any]:
        """Demand one thing besides the tenant."""
        super().clean()
        known = [name for name in self.fields if name != "tenant"]
        if not self.errors and sum(bool(self.cleaned_data.get(name)) for name in known) != 1:
            labels = [str(self.fields[name].label) for name in known]
            labels = [label[0].lower() + label[1:] for label in labels]
            raise forms.ValidationError(f"Enter one of {', '.join(labels[:-1])} and {labels[-1]}.")
        return self.cleaned_data

    def terms(self) -> dict[str, Any]:
        """Return what is looked for as the session keeps it, in JSON, without secrets."""
        known = {name: value for name, value in self.cleaned_data.items() if value}
        return known | ({"tenant": known["tenant"].pk} if "tenant" in known else {})

    @classmethod
    def condition(cls, terms: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the row must match."""
        condition = dict(terms)
        if account_id := condition.pop("account_id", None):
            condition[f"{cls.account_field}__in"] = _spellings(account_id)
        return condition


class SessionTokenSearchForm(SearchForm):
    """What may be known of a session token."""

    tenant = TenantChoiceField(SessionToken, "Whose subscriber it is.")
    account_id = _account_id()
    correlation_id = _text(
        "Correlation ID", 128, "The x-correlation-id of the answer that brought the token."
    )
    token = _text(
        "Session token",
        128,
        "The token itself, pasted. It is not kept.",
        # Sent in the body of a POST, and never rendered back.
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}, render_value=False),
    )

    def terms(self) -> dict[str, Any]:
        """Return what is looked for, of a token only its hashes."""
        terms = super().terms()
        if token := terms.pop("token", None):
            terms["token_hashes"] = [one.hex() for one in token_hashes(token)]
        return terms

    @classmethod
    def condition(cls, terms: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the row must match: of a token only the hash is stored."""
        condition = super().condition(terms)
        if hashes := condition.pop("token_hashes", None):
            condition["token_hash__in"] = [bytes.fromhex(one) for one in hashes]
        return condition


class AccountSearchForm(SearchForm):
    """What is known of an account."""

    tenant = TenantChoiceField(Account, "Whose subscriber it is.")
    account_id = _account_id(required=True)


class DeviceSearchForm(SearchForm):
    """What may be known of a device."""

    tenant = TenantChoiceField(Device, "Whose subscriber's it is.")
    account_id = _account_id()
    client_id = _text("Client ID", 32, "The client_id that the app was given; deviceId in its tokens.")
    account_field = "account__account_id"


class SecurityEventSearchForm(SearchForm):
    """What the list is narrowed to: a tenant, or one account of it."""

    tenant = TenantChoiceField(SecurityEvent, "Empty: all that you are assigned to.")
    account_id = _account_id()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["tenant"].required = False

    def clean(self) -> dict[str, Any]:
        """Demand a tenant for an account: two operators may have one of the same ID."""
        data = self.cleaned_data
        if not self.errors and data["account_id"] and data["tenant"] is None:
            self.add_error("tenant", "Choose whose account it is.")
        return data


class NewAccount(TenantScopedModelForm):
    """An account that exists before its first sign-on."""

    tenant = TenantChoiceField(Account, "Whose subscriber it is. It cannot be changed later.")
    account_id = _account_id(
        required=True,
        help_text=f"{EXACTLY} {WHITESPACE_HELP}",
        validators=[
            RegexValidator(rf"\A{IDENTIFIER.pattern}\Z", "1 to 255 characters, no control characters.")
        ],
    )

    class Meta:
        model = Account
        fields = ("tenant", "account_id")
