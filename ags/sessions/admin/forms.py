"""Search forms for data about subscribers, and the form of a new account."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from django import forms
from django.core.validators import RegexValidator
from django.db.models import QuerySet
from unfold.widgets import (
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from ags.sessions.audit_trail import KINDS, Criteria
from ags.sessions.models import Account, Device, Event, SecurityEvent, SessionToken
from ags.sessions.tokens.opaque import token_hashes
from providers.contract import IDENTIFIER, current_time
from tenants.admin.forms import TenantChoiceField, TenantScopedForm, TenantScopedModelForm
from tenants.models import Tenant
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


DEFAULT_PERIOD = timedelta(hours=24)
"""The time that a search in the audit trail covers if it has to read all events of a tenant."""

FIRST_TIME = datetime(2000, 1, 1, tzinfo=UTC)
"""There are no earlier events."""

MAX_TENANTS = 1000
"""Tenants in which a search without a tenant searches."""


def _time_field(label: str, help_text: str) -> forms.SplitDateTimeField:
    widget = UnfoldAdminSplitDateTimeWidget()
    return forms.SplitDateTimeField(label=label, help_text=help_text, required=False, widget=widget)


class EventSearchForm(SearchForm):
    """Any combination of criteria. Without a tenant, it searches all tenants of the user."""

    tenant = TenantChoiceField(Event, "Can be empty if a correlation ID is entered.")
    tenant.required = False
    without_tenant = forms.BooleanField(
        label="Events of no tenant",
        help_text="Instead of a tenant: requests for unknown tenants, and other events that concern none.",
        required=False,
        widget=UnfoldBooleanWidget,
    )
    account_id = _account_id_field()
    client_id = _text_field("Client ID (device)", 128, "The client_id that the app received.")
    correlation_id = _text_field("Correlation ID", 128, "The x-correlation-id header of the response.")
    kid = _text_field("Key ID", 128, "The kid of the token in the request.")
    kind = forms.ChoiceField(
        choices=[("", "All kinds"), *KINDS.items()], required=False, widget=UnfoldAdminSelectWidget
    )
    since = _time_field(
        "From (UTC)",
        "This time is included. Empty: 24 hours ago, or without limit if an account ID, client ID or "
        "correlation ID is entered.",
    )
    until = _time_field("Until (UTC)", "This time is not included. Empty: now.")

    def __init__(self, tenants: QuerySet[Tenant], *args: Any, sees_all: bool = False, **kwargs: Any) -> None:
        """`sees_all`: events of no tenant, too."""
        super().__init__(tenants, *args, **kwargs)
        if not sees_all:
            del self.fields["without_tenant"]

    def get_initial_for_field(self, field: forms.Field, field_name: str) -> Any:
        """Return the term of an earlier search, as it is kept in the session."""
        value = super().get_initial_for_field(field, field_name)
        is_time = isinstance(field, forms.SplitDateTimeField)
        return datetime.fromisoformat(value) if is_time and value else value

    def clean(self) -> dict[str, Any]:
        data = self.cleaned_data
        if self.errors:
            return data
        if data.get("without_tenant"):
            if data["tenant"] is not None:
                self.add_error("without_tenant", "Choose a tenant, or events of no tenant.")
        elif data["tenant"] is None:
            self._check_tenants(data)
        since, until = data["since"], data["until"]
        if since is not None and until is not None and since >= until:
            self.add_error("until", "Enter a time after the start.")
        return data

    def _check_tenants(self, data: Mapping[str, Any]) -> None:
        if not data["correlation_id"]:
            self.add_error("tenant", "Choose a tenant, or enter a correlation ID.")
        elif self.fields["tenant"].queryset[: MAX_TENANTS + 1].count() > MAX_TENANTS:  # type: ignore[attr-defined]
            self.add_error("tenant", f"Choose a tenant: there are more than {MAX_TENANTS}.")

    def search_terms(self) -> dict[str, Any]:
        terms = super().search_terms()
        if not terms.keys() & {"since", "account_id", "client_id", "correlation_id"}:
            now = datetime.fromtimestamp(int(current_time()), UTC)
            terms["since"] = max(terms.get("until", now), FIRST_TIME) - DEFAULT_PERIOD
        times = {name: terms[name].isoformat() for name in ("since", "until") if name in terms}
        return terms | times

    @classmethod
    def criteria(cls, terms: Mapping[str, Any]) -> list[Criteria]:
        """Return the criteria of the terms, of which an event must match one."""
        names = ("client_id", "correlation_id", "kid", "kind")
        others: dict[str, Any] = {name: terms[name] for name in names if name in terms}
        others |= {name: datetime.fromisoformat(terms[name]) for name in ("since", "until") if name in terms}
        account_id = terms.get("account_id", "")
        # Surrounding whitespace may be part of the ID, or come from pasting it.
        account_ids = dict.fromkeys([account_id, strip_whitespace(account_id)])
        return [Criteria(account_id=account_id, **others) for account_id in account_ids]


class ExplanationSearchForm(SearchForm):
    """A correlation ID, which is searched in all tenants of the user."""

    correlation_id = _text_field(
        "Correlation ID",
        128,
        "correlationId in the body of an error, or the x-correlation-id header of any response.",
        required=True,
    )


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
