"""The pages of services. A new one is added in two steps: tenant and strategy, then the settings."""

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
from unfold.decorators import display
from unfold.enums import ActionVariant

from providers.contract import Strategy
from providers.registry import strategies
from tenants.admin.base import ConfigurationAdmin
from tenants.admin.forms import (
    ServiceStrategyForm,
    declared_settings,
    service_form,
    setting_display,
    setting_fields,
)
from tenants.admin.revoke_issued import RevokeIssuedAdmin, revoke_issued_transition
from tenants.admin.transitions import (
    EnabledAdmin,
    Transition,
    disable_transition,
    enable_transition,
)
from tenants.models import Service, tenants_for_user
from tenants.services import upstream_health
from tenants.services.check import check_service

NAME = "service {row} of {row.tenant_id}"


@admin.register(Service)
@method_decorator(sensitive_post_parameters(), name="changeform_view")  # each strategy has its own secrets
class ServiceAdmin(ConfigurationAdmin, EnabledAdmin, RevokeIssuedAdmin):
    list_display = ("name", "tenant_link", "strategy_label", "status_label", "display_name")
    search_fields = ("tenant__id__exact", "name__istartswith")
    search_help_text = "A tenant ID, the start of a service's name, or both."
    list_filter = ("enabled",)
    allowed_lookups = ("enabled__exact", "tenant__id__exact")
    ordering = ("tenant_id", "name")
    formfield_overrides = {URLField: {"assume_scheme": "https"}}
    readonly_fields = ("tenant_link", "strategy_label", "status_label", "get_document_statuses")
    transitions = (
        Transition(
            name="check_configuration",
            label="Check configuration",
            method="show_check_results",
            variant=ActionVariant.DEFAULT,
            title=f"Check the configuration of {NAME}?",
            consequences=(
                "AGS connects to the upstream server in the settings, if any, and shows the results. That "
                "can take some seconds.",
                "Nothing is issued and nothing is changed.",
            ),
            done="The configuration was checked.",
        ),
        enable_transition(
            NAME,
            "Within a second, discovery lists it and it issues session tokens.",
            "Sign-ons that it issued before are valid again, unless they have ended in the meantime.",
        ),
        disable_transition(
            NAME,
            "Discovery no longer lists it, and requests for it are refused from now on.",
            "Devices that have signed on through it are refused as well, until it is enabled again.",
        ),
        revoke_issued_transition(
            NAME, "The service itself is not changed; anything it issues from now on is valid."
        ),
    )

    # Adding, step 1

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the form of step 1 until it is valid, then that of step 2."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = ServiceStrategyForm(
            tenants_for_user(request.user),
            request.GET if "strategy" in request.GET else None,
            initial=request.GET,
        )
        if form.is_valid():
            request.new_service = Service(**form.cleaned_data)  # type: ignore[attr-defined] # for get_form
            context = {**(extra_context or {}), "title": "Add service, step 2 of 2: settings"}
            return super().add_view(request, form_url, context)
        context = {
            **self.admin_site.each_context(request),
            "title": "Add service, step 1 of 2: tenant and strategy",
            "form": form,
            "media": self.media + form.media,
            "opts": self.opts,
            "back": reverse("admin:tenants_service_changelist"),
        }
        return TemplateResponse(request, "tenants/admin/service_strategy.html", context)

    # The form

    def get_form(
        self, request: HttpRequest, obj: Service | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        kwargs["form"] = service_form(obj or request.new_service)  # type: ignore[attr-defined]
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Service | None = None) -> list[Any]:
        """Return the fields of the service, then its settings, read-only without permission to change."""
        service: Service = obj or request.new_service  # type: ignore[attr-defined]
        names = ["tenant_link", "strategy_label", "name", "display_name", "logo"]
        if obj is None:
            names.append("enabled")
        else:
            names.append("status_label")
            if upstream_health.get_document_statuses(obj):
                names.append("get_document_statuses")
        strategy = strategies().get(service.strategy)
        return [(None, {"fields": names}), ("Settings", self._settings(request, obj, service, strategy))]

    def _settings(
        self, request: HttpRequest, obj: Service | None, service: Service, strategy: Strategy | None
    ) -> dict[str, Any]:
        if strategy is None:
            return {"fields": [], "description": _explain_missing_provider(service)}
        if obj is not None and not self.has_change_permission(request, obj):
            settings = declared_settings(strategy).items()
            return {"fields": [setting_display(name, field) for name, field in settings]}
        return {"fields": list(setting_fields(service, strategy))}

    # Display

    @display(description="Strategy")
    def strategy_label(self, service: Service) -> str:
        strategy = strategies().get(service.strategy)
        return f"{service.strategy} (not installed)" if strategy is None else strategy.label

    @display(description="Documents")
    def get_document_statuses(self, service: Service) -> SafeString:
        return format_html_join(
            "",
            '<p class="mb-2"><b>{}</b> <span class="break-words">{}</span><br>{}</p>',
            (
                (capfirst(status.name), status.address, status.message)
                for status in upstream_health.get_document_statuses(service)
            ),
        )

    # Checking

    def show_check_results(self, request: HttpRequest, service: Service, _: Transition) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": f"Configuration of service {service} of {service.tenant_id}",
            "results": list(check_service(service)),
            "opts": self.opts,
            "original": service,
            "back": reverse("admin:tenants_service_change", args=[service.pk]),
        }
        return TemplateResponse(request, "tenants/admin/check_results.html", context)


def _explain_missing_provider(service: Service) -> SafeString:
    # The template renders a description as markup.
    return format_html(
        "The provider of the strategy {} is not installed. Discovery does not list this service, and it "
        "cannot be enabled. Its settings are kept, but cannot be shown. It can be disabled.",
        service.strategy,
    )
