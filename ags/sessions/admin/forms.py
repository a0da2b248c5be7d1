"""Search forms for data about subscribers, and the form of a new account."""

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

ACCOUNT_ID_HELP = "The complete account ID, exactly as the operator writes it."


def _text_field(label: str, max_length: int, help_text: str, **options: Any) -> forms.CharField:
    return forms.CharField(
        label=label,
        max_length=max_length,
        help_text=help_text,
        **{"required": False, "widget": UnfoldAdminTextInputWidget, **options},
    )


def _account_id_field(**options: Any) -> forms.CharField:
    return _text_field("Account ID", 255, **{"help_text": ACCOUNT_ID_HELP, "strip": False, **options})


class SearchForm(TenantScopedForm):
    """A tenant, and exactly one other criterion."""

    verbatim_fields = ("account_id",)
    account_id_lookup: ClassVar[str] = "account_id"
    """The path from the model to the account ID."""

    def clean(self) -> dict[str, Any]:
        super().clean()
        criteria = [name for name in self.fields if name != "tenant"]
        if not self.errors and sum(bool(self.cleaned_data.get(name)) for name in criteria) != 1:
            labels = [str(self.fields[name].label) for name in criteria]
            labels = [label[0].lower() + label[1:] for label in labels]
            raise forms.ValidationError(f"Enter exactly one: {', '.join(labels[:-1])} or {labels[-1]}.")
        return self.cleaned_data

    def search_terms(self) -> dict[str, Any]:
        """Return the criteria for the staff session: serializable as JSON, without secrets."""
        terms = {name: value for name, value in self.cleaned_data.items() if value}
        return terms | ({"tenant": terms["tenant"].pk} if "tenant" in terms else {})

    @classmethod
    def filters(cls, terms: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of `QuerySet.filter` for the result of `search_terms`."""
        filters = dict(terms)
        if account_id := filters.pop("account_id", None):
            # Surrounding whitespace may be part of the ID, or come from pasting it.
            filters[f"{cls.account_id_lookup}__in"] = {account_id, strip_whitespace(account_id)}
        return filters


class SessionTokenSearchForm(SearchForm):
    tenant = TenantChoiceField(SessionToken, "The tenant of the subscriber.")
    account_id = _account_id_field()
    correlation_id = _text_field(
        "Correlation ID", 128, "The x-correlation-id header of the response that contained the token."
    )
    token = _text_field(
        "Session token",
        128,
        "The token itself. It is not stored.",
        # Sent in the body of a POST request, and never rendered.
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}, render_value=False),
    )

    def search_terms(self) -> dict[str, Any]:
        terms = super().search_terms()
        if token := terms.pop("token", None):
            terms["token_hashes"] = [token_hash.hex() for token_hash in token_hashes(token)]
        return terms

    @classmethod
    def filters(cls, terms: Mapping[str, Any]) -> dict[str, Any]:
        filters = super().filters(terms)
        if hashes := filters.pop("token_hashes", None):
            filters["token_hash__in"] = [bytes.fromhex(token_hash) for token_hash in hashes]
        return filters


class AccountSearchForm(SearchForm):
    tenant = TenantChoiceField(Account, "The tenant of the subscriber.")
    account_id = _account_id_field(required=True)


class DeviceSearchForm(SearchForm):
    tenant = TenantChoiceField(Device, "The tenant of the subscriber.")
    account_id = _account_id_field()
    client_id = _text_field("Client ID", 32, "The client_id that the app received; deviceId in its tokens.")
    account_id_lookup = "account__account_id"


class SecurityEventSearchForm(SearchForm):
    tenant = TenantChoiceField(SecurityEvent, "Leave empty for all tenants that you are assigned to.")
    tenant.required = False
    account_id = _account_id_field()

    def clean(self) -> dict[str, Any]:
        """Require a tenant with an account ID: two operators may use the same ID."""
        data = self.cleaned_data
        if not self.errors and data["account_id"] and data["tenant"] is None:
            self.add_error("tenant", "Choose the tenant of the account.")
        return data


class AccountCreationForm(TenantScopedModelForm):
    tenant = TenantChoiceField(Account, "The tenant of the subscriber. It cannot be changed later.")
    account_id = _account_id_field(
        required=True,
        help_text=f"{ACCOUNT_ID_HELP} Surrounding whitespace is removed.",
        validators=[
            RegexValidator(rf"\A{IDENTIFIER.pattern}\Z", "1 to 255 characters, no control characters.")
        ],
    )

    class Meta:
        model = Account
        fields = ("tenant", "account_id")
