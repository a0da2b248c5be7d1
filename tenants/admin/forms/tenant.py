"""The form of a tenant."""

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminTextareaWidget

from tenants.admin.forms.version import VersionedModelForm
from tenants.models import Tenant
from tenants.models.tenant import MAX_NETWORKS, MAX_ORIGINS, NETWORK_MAX_LENGTH, ORIGIN_MAX_LENGTH
from tenants.whitespace import strip_whitespace


class LinesField(forms.CharField):
    """A list of strings, one on each line."""

    def to_python(self, value: Any) -> Any:
        lines = (strip_whitespace(line) for line in (super().to_python(value) or "").splitlines())
        return [line for line in lines if line]

    def prepare_value(self, value: Any) -> Any:
        """Return the lines as text; submitted text is shown again as it is."""
        return "\n".join(value) if isinstance(value, list) else value


class TenantForm(VersionedModelForm):
    allowed_origins = LinesField(
        required=False,
        max_length=MAX_ORIGINS * (ORIGIN_MAX_LENGTH + len("\r\n")),
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 4}),
        help_text="Web sites whose pages may call the API from a browser: one origin on each line, such as "
        "https://tv.example or, for an app, capacitor://localhost.",
    )

    exempt_networks = LinesField(
        required=False,
        max_length=MAX_NETWORKS * (NETWORK_MAX_LENGTH + len("\r\n")),
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 4}),
        help_text="Networks whose addresses are never limited, such as those of head-ends: one on each line, "
        "in CIDR notation, such as 10.1.0.0/16.",
    )

    class Meta:
        model = Tenant
        fields = ("allowed_origins", "exempt_networks")  # the page adds others
        labels = {
            "access_token_ttl": "Access token TTL",
            "refresh_token_ttl": "Refresh token TTL",
            "sign_on_ttl": "Sign-on TTL",
        }
