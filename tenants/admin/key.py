"""The pages of keys: only the state and the dates of a key change."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Exists, OuterRef
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.views.decorators.debug import sensitive_post_parameters
from unfold.decorators import display

from tenants.admin.forms import GENERATE, KeyChangeForm, NewKeyForm, UsedKeyChangeForm, restricted_to
from tenants.admin.key_secret import KeyListAdmin
from tenants.admin.key_use import (
    describe_last_accepted,
    describe_last_refused,
    describe_token_ages,
    describe_traffic_at_risk,
    describe_usage,
)
from tenants.admin.revoke_issued import RevokeIssuedAdmin, revoke_issued_transition
from tenants.admin.transitions import Transition
from tenants.models import IN_FORCE, Key, KeyState, KeyUse, tenants_for_user
from tenants.models.key import ALGORITHMS
from tenants.secrets.key_material import public_key_fingerprint
from tenants.services.key_use import get_use
from tenants.services.key_users import enabled_services, key_users

MAX_NAMES_LISTED = 20

USE_FIELDS = ("last_accepted", "last_refused", "last_hour", "last_day", "token_ages")

PUBLIC_KEY_FIELDS = ("fingerprint", "public_key_pem")


def _other_keys(key: Key) -> dict[str, bool]:
    """Return the IDs of the other keys of its kind in force, and whether each was ever used."""
    algorithms = [name for name in ALGORITHMS if Key(algorithm=name).kind is key.kind]
    others = Key.objects.for_tenant(key.tenant_id).filter(state__in=IN_FORCE, algorithm__in=algorithms)
    others = others.exclude(pk=key.pk)
    is_used = Exists(KeyUse.objects.for_tenant(key.tenant_id).filter(key=OuterRef("pk")))
    return dict(others.order_by("kid").values_list("kid", is_used)[: MAX_NAMES_LISTED + 1])


def _describe_other_keys(key: Key) -> list[str]:
    names = [kid if is_used else f"{kid} (never used)" for kid, is_used in _other_keys(key).items()]
    return [f"Other {key.kind.value}s of {key.tenant_id} in force: {_format_names(names) or 'none'}."]


def _confirm_traffic(key: Any) -> tuple[str, str] | None:
    traffic = key.traffic_at_risk
    return (traffic, "Revoke it, although these requests are refused then.") if traffic else None


def _warn_of_last_key(key: Key) -> str:
    """Return which enabled services need a key, if the tenant has no other key in force."""
    if _other_keys(key):
        return ""
    services, with_keys = enabled_services(key.tenant_id), key_users(key.kind)
    names = services.filter(with_keys).order_by("name").values_list("name", flat=True)
    listed = list(names[: MAX_NAMES_LISTED + 1])
    if not listed:
        return ""
    warning = f"No other {key.kind.value} of {key.tenant_id} is in force: no subscriber can sign on"
    if not services.exclude(with_keys).exists():
        return f"{warning}."
    return f"{warning} through {_format_names(listed)}. The other services need no {key.kind.value}."


def _format_names(names: list[str]) -> str:
    return ", ".join(names[:MAX_NAMES_LISTED]) + (" and more" if len(names) > MAX_NAMES_LISTED else "")


@admin.register(Key)
@method_decorator(sensitive_post_parameters("secret", "entered_public_key"), name="add_view")
class KeyAdmin(KeyListAdmin, RevokeIssuedAdmin):
    form = KeyChangeForm
    list_display = ("kid", "tenant_link", "algorithm", "state_label", "not_before", "not_after", "created_at")
    transitions = (
        Transition(
            name="revoke",
            label="Revoke",
            sources=set(KeyState) - {KeyState.REVOKED},
            target=KeyState.REVOKED,
            title="Revoke key {row.kid} of {row.tenant_id}?",
            consequences=(
                "Every token that {row.tenant_id} signs with {row.kid} is refused from now on.",
                "Sign-ons with tokens that it signed continue. To end them as well, choose “Revoke "
                "everything issued” afterwards.",
                "This cannot be undone: a revoked key stays revoked.",
            ),
            details=_describe_other_keys,
            warning=_warn_of_last_key,
            second_confirmation=_confirm_traffic,
            done="Key {row.kid} of {row.tenant_id} is revoked.",
        ),
        revoke_issued_transition(
            "key {row} of {row.tenant_id}",
            "The key itself is not changed; anything issued with it from now on is valid.",
        ),
    )

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Key | None:
        """Set `use` and `traffic_at_risk` of the key once, so that all parts of a page agree."""
        key: Any = super().get_object(request, object_id, from_field)
        if key is not None:
            key.use = get_use(key)
            key.traffic_at_risk = describe_traffic_at_risk(key, key.use)
        return key

    def _needs_confirmation(self, request: HttpRequest, key: Any) -> bool:
        return self.has_change_permission(request, key) and bool(key.traffic_at_risk)

    def get_form(
        self, request: HttpRequest, obj: Key | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        if obj is None:
            kwargs["form"] = restricted_to(NewKeyForm, tenants_for_user(request.user))
        elif self._needs_confirmation(request, obj):
            kwargs["form"] = UsedKeyChangeForm
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Key | None = None) -> list[Any]:
        dates = ["not_before", "not_after"]
        if obj is None:
            return [
                (None, {"fields": ["tenant", "kid", "algorithm", "state", *dates]}),
                ("Secret or public key", {"fields": ["source", "encoding", "secret", "entered_public_key"]}),
            ]
        public = [("Public key", {"fields": PUBLIC_KEY_FIELDS})] if obj.public_key else []
        confirm = ["confirm"] if self._needs_confirmation(request, obj) else []
        return [
            (None, {"fields": ["tenant_link", "kid", "algorithm", "created_at", "state", *dates, *confirm]}),
            *public,
            ("Use", {"fields": USE_FIELDS}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Key | None = None) -> tuple[str, ...]:
        """Return the fields that never change: to rotate is to add a key."""
        return (
            ()
            if obj is None
            else ("tenant_link", "kid", "algorithm", "created_at", *PUBLIC_KEY_FIELDS, *USE_FIELDS)
        )

    @display(description="Fingerprint")
    def fingerprint(self, key: Key) -> str:
        try:
            return f"SHA-256 {public_key_fingerprint(key.public_key)}"
        except ValueError:  # not stored by AGS; the check tenants.W003 names the key
            return "The key cannot be read"

    @display(description="Public key")
    def public_key_pem(self, key: Key) -> str:
        return format_html("<pre>{}</pre>", key.public_key)

    @display(description="Last accepted token")
    def last_accepted(self, key: Any) -> str:
        return describe_last_accepted(key.use.last)

    @display(description="Last refused token")
    def last_refused(self, key: Any) -> str:
        return describe_last_refused(key, key.use.last)

    @display(description="Last hour")
    def last_hour(self, key: Any) -> str:
        return describe_usage(key, key.use.hour)

    @display(description="Last 24 hours")
    def last_day(self, key: Any) -> str:
        return describe_usage(key, key.use.day)

    @display(description="Age of tokens")
    def token_ages(self, key: Any) -> str:
        return describe_token_ages(key, key.use.hour)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if isinstance(obj, Key) and obj.state == KeyState.REVOKED:
            return False
        return bool(super().has_change_permission(request, obj))

    def response_add(
        self, request: HttpRequest, obj: Key, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show a generated secret, in this response only."""
        if request.POST.get("source") != GENERATE:
            return super().response_add(request, obj, post_url_continue)
        return self.show_key_secret(request, obj, "Key added: copy its secret now")

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Show or save the form. Explain why the form of a key that was revoked since is refused."""
        if request.method == "POST" and object_id is not None and super().has_change_permission(request):
            key: Key = self.get_object_or_404(request, object_id)
            if key.state == KeyState.REVOKED:
                messages.error(request, "Not saved: the key was revoked in the meantime, and stays revoked.")
                return redirect(request.get_full_path())
        return super().changeform_view(request, object_id, *args, **kwargs)
