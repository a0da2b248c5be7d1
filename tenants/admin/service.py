"""The pages of a service: first which tenant and strategy, then what that strategy wants to know."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import URLField
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.views.decorators.debug import sensitive_post_parameters
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from providers.registry import strategies
from tenants.admin.base import Confirmation
from tenants.admin.forms import (
    ServiceStrategyForm,
    declared_settings,
    service_form,
    settings_fields,
    shown_setting,
)
from tenants.admin.revoke_issued_action import IssuingAdmin
from tenants.admin.tenant import STATUS, switch, switch_of
from tenants.models import Service, tenants_of
from tenants.services import upstream_health
from tenants.services.check import check_service


@admin.register(Service)
class ServiceAdmin(IssuingAdmin):
    """A strategy as one tenant offers it."""

    list_display = ("name", "owner", "strategy_label", "status", "display_name")
    search_fields = ("tenant__id__exact", "name__istartswith")
    search_help_text = "A tenant ID, the start of a service's name, or both."
    list_filter = ("enabled",)
    allowed_lookups = ("enabled__exact", "tenant__id__exact")
    ordering = ("tenant_id", "name")
    formfield_overrides = {URLField: {"assume_scheme": "https"}}
    actions_detail = ("check_configuration", "enable", "disable", "revoke_issued")

    # Adding, step one

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Ask for tenant and strategy until both are known, then for the rest."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        chosen = ServiceStrategyForm(
            tenants_of(request.user),
            request.GET if "strategy" in request.GET else None,
            initial=request.GET,
        )
        if chosen.is_valid():
            self._chosen(request, chosen)
            context = {**(extra_context or {}), "title": "Add service, step 2 of 2: the rest"}
            response: HttpResponse = super().add_view(request, form_url, context)
            return response
        context = {
            **self.admin_site.each_context(request),
            "title": "Add service, step 1 of 2: tenant and strategy",
            "form": chosen,
            "media": self.media + chosen.media,
            "opts": self.opts,
            "back": reverse("admin:tenants_service_changelist"),
        }
        return TemplateResponse(request, "tenants/admin/service_strategy.html", context)

    @staticmethod
    def _chosen(request: HttpRequest, chosen: ServiceStrategyForm) -> None:
        data = chosen.cleaned_data
        request.new_service = Service(  # type: ignore[attr-defined] # for the form of this request
            tenant=data["tenant"], strategy=data["strategy"]
        )

    # The form

    @method_decorator(sensitive_post_parameters())
    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Show or take the form. Which of its fields are secrets is for each strategy to say."""
        response: HttpResponse = super().changeform_view(request, *args, **kwargs)
        return response

    def get_form(
        self, request: HttpRequest, obj: Service | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """Return the form that the strategy of this service makes it."""
        return service_form(obj or request.new_service, self, request)  # type: ignore[attr-defined]

    def get_fieldsets(self, request: HttpRequest, obj: Service | None = None) -> list[Any]:
        """What the gate offers, then what the strategy's own form declares."""
        service: Service = obj or request.new_service  # type: ignore[attr-defined]
        strategy = strategies().get(service.strategy)
        # Disabling says what stops, so that an existing one has a button for it.
        switch = "enabled" if obj is None else "status"
        documents = ["documents"] if obj is not None and upstream_health.document_statuses(obj) else []
        offer = (
            None,
            {"fields": ["owner", "strategy_label", "name", "display_name", "logo", switch, *documents]},
        )
        if strategy is None:
            # Said in words, for there is no form to show.
            return [offer, ("Settings", {"fields": [], "description": _gone(service)})]
        if obj is not None and not self.has_change_permission(request, obj):
            return [
                offer,
                (
                    "Settings",
                    {"fields": [shown_setting(*one) for one in declared_settings(strategy).items()]},
                ),
            ]
        return [offer, ("Settings", {"fields": list(settings_fields(service, strategy))})]

    def get_readonly_fields(self, request: HttpRequest, obj: Service | None = None) -> tuple[str, ...]:
        """Tenant and strategy are chosen once; what was fetched is only told."""
        return ("owner", "strategy_label", "status", "documents")

    # What is shown

    @display(description="Strategy")
    def strategy_label(self, service: Service) -> str:
        """What staff call the strategy."""
        strategy = strategies().get(service.strategy)
        return f"{service.strategy} (not installed)" if strategy is None else strategy.label

    @display(description="Status", label=STATUS)
    def status(self, service: Service) -> str:
        """Whether it is enabled."""
        return "enabled" if service.enabled else "disabled"

    @display(description="Documents")
    def documents(self, service: Service) -> SafeString:
        """How fetching the documents of the upstream goes."""
        told = (
            (capfirst(one.name), one.address, one.sentence)
            for one in upstream_health.document_statuses(service)
        )
        return format_html_join(
            "", '<p class="mb-2"><b>{}</b> <span class="break-words">{}</span><br>{}</p>', told
        )

    # Trying it

    @action(description="Try it", url_path="check", permissions=["change"])
    def check_configuration(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Try its configuration against its upstream."""
        service: Service = self.get_object_or_404(request, object_id)
        confirmation = Confirmation(
            title=f"Try service {service} of {service.tenant_id}?",
            consequences=[
                "AGS asks the server that the settings name, if they name one, and tells what it has found. "
                "That can take some seconds.",
                "Nothing is issued, and nothing is changed.",
            ],
            button="Try it",
            done="It was tried.",
            dangerous=False,
        )
        return self.confirm(request, service, confirmation, lambda: self._check_results(request, service))

    def _check_results(self, request: HttpRequest, service: Service) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": f"What trying service {service} of {service.tenant_id} has shown",
            "results": list(check_service(service)),
            "opts": self.opts,
            "original": service,
            "back": reverse("admin:tenants_service_change", args=[service.pk]),
        }
        return TemplateResponse(request, "tenants/admin/check_results.html", context)

    # The switch

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """Offer the one of the two switches that does something."""
        return switch_of(
            self.get_object_or_404(request, object_id), super().get_actions_detail(request, object_id)
        )

    @action(description="Enable", url_path="enable", permissions=["change"], variant=ActionVariant.SUCCESS)
    def enable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Offer the service."""
        service: Service = self.get_object_or_404(request, object_id)
        confirmation = Confirmation(
            title=f"Enable service {service} of {service.tenant_id}?",
            consequences=[
                "It appears in discovery and issues session tokens, within a second.",
                "Sign-ons that it gave rise to before are good again, unless they have ended meanwhile.",
            ],
            button="Enable",
            done=f"Service {service} is enabled.",
            dangerous=False,
        )
        return self.confirm(request, service, confirmation, lambda: switch(service, on=True))

    @action(description="Disable", url_path="disable", permissions=["change"], variant=ActionVariant.DANGER)
    def disable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Stop offering it."""
        service: Service = self.get_object_or_404(request, object_id)
        confirmation = Confirmation(
            title=f"Disable service {service} of {service.tenant_id}?",
            consequences=[
                "It disappears from discovery, and requests for it are refused from this moment on.",
                "Who has signed on through it is refused, too, until it is enabled again.",
            ],
            button="Disable",
            done=f"Service {service} is disabled.",
        )
        return self.confirm(request, service, confirmation, lambda: switch(service, on=False))


def _gone(service: Service) -> SafeString:
    # The template takes a description for markup.
    return format_html(
        "The provider of the strategy {} is not installed here, so this service is not offered, its settings "
        "cannot be shown, and it cannot be enabled. It can be disabled; its settings are kept.",
        service.strategy,
    )
