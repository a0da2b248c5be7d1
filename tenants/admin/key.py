"""The pages of a key: made or entered once, then only its state and dates change."""

from __future__ import annotations

import base64
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from providers.registry import strategies
from tenants.admin.base import Confirmation, LabelledValue
from tenants.admin.forms import GENERATE, KeyChangeForm, NewKeyForm, restricted_to
from tenants.admin.revoke_issued_action import IssuingAdmin
from tenants.models import IN_FORCE, Key, KeyState, Service, SigningKey, tenants_of

OTHERS_NAMED = 20
"""Other keys that the question before a revocation names."""

SERVICES_NAMED = 20
"""Services that it names where they are not all."""

STATES = {"staged": "info", "active": "success", "retiring": "warning", "revoked": "danger"}
"""How each is coloured."""


@admin.register(Key)
class KeyAdmin(IssuingAdmin):
    """A secret that a tenant signs with."""

    list_display = ("kid", "owner", "algorithm", "state_label", "not_before", "not_after", "created_at")
    search_fields = ("tenant__id__exact", "kid__startswith")
    search_help_text = "A tenant ID, the start of a key ID, or both."
    list_filter = ("state",)
    allowed_lookups = ("state__exact", "tenant__id__exact")
    ordering = ("tenant_id", "kid")
    actions_detail = ("revoke", "revoke_issued")

    # The forms

    def get_form(
        self, request: HttpRequest, obj: Key | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """Return the form of a new key, or of what can still be changed."""
        new = obj is None
        kwargs["form"] = restricted_to(NewKeyForm, tenants_of(request.user)) if new else KeyChangeForm
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Key | None = None) -> list[Any]:
        """A new key needs everything; later only state and dates are fields."""
        dates = ["not_before", "not_after"]
        if obj is None:
            return [
                (None, {"fields": ["tenant", "kid", "algorithm", "state", *dates]}),
                ("Secret", {"fields": ["source", "encoding", "secret"]}),
            ]
        return [(None, {"fields": ["owner", "kid", "algorithm", "created_at", "state", *dates]})]

    def get_readonly_fields(self, request: HttpRequest, obj: Key | None = None) -> tuple[str, ...]:
        """Rotation is a new key."""
        return () if obj is None else ("owner", "kid", "algorithm", "created_at")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A revoked key stays as it is."""
        if isinstance(obj, Key) and obj.state == KeyState.REVOKED:
            return False
        return bool(super().has_change_permission(request, obj))

    @method_decorator(sensitive_post_parameters("secret"))
    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show or take the form of a new key."""
        response: HttpResponse = super().add_view(request, form_url, extra_context)
        return response

    def response_add(
        self, request: HttpRequest, obj: Key, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show a generated secret, here and never again: it is in this answer only."""
        if request.POST.get("source") != GENERATE:
            response: HttpResponse = super().response_add(request, obj, post_url_continue)
            return response
        page = reverse("admin:tenants_key_change", args=[obj.pk])
        return self.show_once(
            request, "Key added: copy its secret now", key_values(obj), secret_value(obj), page
        )

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Show or store the form. One that was opened before a revocation is no lack of permission."""
        if request.method == "POST" and object_id is not None and super().has_change_permission(request):
            key: Key = self.get_object_or_404(request, object_id)
            if key.state == KeyState.REVOKED:
                messages.error(request, "Not saved: the key has been revoked meanwhile, and stays revoked.")
                return redirect(request.get_full_path())
        response: HttpResponse = super().changeform_view(request, object_id, *args, **kwargs)
        return response

    # What is shown

    @display(description="State", label=STATES)
    def state_label(self, key: Key) -> str:
        """The state in one word."""
        return key.state

    # Revoking

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """A revoked key cannot be revoked; what it gave rise to can."""
        key: Key = self.get_object_or_404(request, object_id)
        actions: list[Any] = super().get_actions_detail(request, object_id)
        if key.state != KeyState.REVOKED:
            return actions
        return [one for one in actions if not one.action_name.endswith("_revoke")]

    @action(description="Revoke", url_path="revoke", permissions=["change"], variant=ActionVariant.DANGER)
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Never accept it again."""
        key: Key = self.get_object_or_404(request, object_id)
        return self.confirm(request, key, revocation(key), lambda: _revoke(key))


def key_values(key: Key | SigningKey) -> list[LabelledValue]:
    """Return what is told of a key beside its secret."""
    return [
        LabelledValue("Tenant", key.tenant_id),
        LabelledValue("Key ID (kid)", key.kid, "kid"),
        LabelledValue("Algorithm", key.algorithm),
        LabelledValue("State", key.get_state_display()),
    ]


def secret_value(key: Key | SigningKey) -> LabelledValue:
    """Return the secret of a key that was generated just now."""
    return LabelledValue("Secret, in base64", base64.b64encode(key.secret()).decode("ascii"), "secret")


def revocation(key: Key) -> Confirmation:
    """Return the question that says what stops."""
    others = Key.objects.for_tenant(key.tenant_id).filter(state__in=IN_FORCE).exclude(pk=key.pk)
    kids = list(others.order_by("kid").values_list("kid", flat=True)[: OTHERS_NAMED + 1])
    named = ", ".join(kids[:OTHERS_NAMED]) + (" and more" if len(kids) > OTHERS_NAMED else "")
    return Confirmation(
        title=f"Revoke key {key.kid} of {key.tenant_id}?",
        consequences=[
            f"Every token that {key.tenant_id} signs with {key.kid} is refused from this moment on.",
            f"Other keys of {key.tenant_id} in force: {named or 'none'}.",
            "Sign-ons that it gave rise to go on: who has signed on stays signed on. To end these as well, "
            "choose Revoke everything issued afterwards.",
            "This cannot be undone: a revoked key stays revoked.",
        ],
        warning="" if kids else _left_without_keys(key.tenant_id),
        button="Revoke",
        done=f"Key {key.kid} of {key.tenant_id} is revoked.",
    )


def _left_without_keys(tenant_id: str) -> str:
    """Say which services let nobody in where the tenant has no other key in force."""
    strategy_map = strategies()
    services = Service.objects.for_tenant(tenant_id).filter(enabled=True, strategy__in=list(strategy_map))
    with_keys = [slug for slug, strategy in strategy_map.items() if strategy.uses_keys]
    names = list(
        services.filter(strategy__in=with_keys)
        .order_by("name")
        .values_list("name", flat=True)[: SERVICES_NAMED + 1]
    )
    if not names:
        return ""
    warning = f"No other key of {tenant_id} is in force: without one nobody can sign on "
    if not services.exclude(strategy__in=with_keys).exists():
        return f"{warning}there."
    name_list = ", ".join(names[:SERVICES_NAMED]) + (" and others" if len(names) > SERVICES_NAMED else "")
    return f"{warning}through {name_list}. Its other services need no key."


def _revoke(key: Key) -> None:
    key.state = KeyState.REVOKED
    key.save(update_fields=["state"])
