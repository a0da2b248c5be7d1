"""Tenants (the operators), and which staff may work with them."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models, transaction
from simple_history.models import HistoricalRecords

from tenants.models.configuration import ConfigurationModel
from tenants.scoping import TenantScoped

TENANT_ID = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_TENANT_ID = RegexValidator(TENANT_ID, "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first.")

MAX_ORIGINS = 100
ORIGIN_MAX_LENGTH = 300
_ORIGIN = re.compile(r"\A[a-z][a-z0-9+.-]*+://([a-z0-9-]++(\.[a-z0-9-]++)*+|\[[0-9a-f:]++\])(:[0-9]{1,5})?\Z")


def check_origins(value: Any) -> None:
    """Check that each is an origin as a browser serializes it (RFC 6454, section 6.2).

    Raises ValidationError.
    """
    if not isinstance(value, list) or len(value) > MAX_ORIGINS:
        raise ValidationError(f"Must be a list of at most {MAX_ORIGINS} origins.")
    for origin in value:
        if not isinstance(origin, str) or len(origin) > ORIGIN_MAX_LENGTH:
            raise ValidationError(f"An origin must be a string of at most {ORIGIN_MAX_LENGTH} characters.")
        if origin == "null" or origin.startswith("file:"):
            raise ValidationError(
                f"{origin!r} cannot be listed: every local file or sandboxed page has this origin. "
                "Serve the page from an origin of its own, such as https://host or capacitor://localhost."
            )
        if not _ORIGIN.fullmatch(origin) or not _is_port_canonical(origin):
            raise ValidationError(
                f"{origin!r} is not an origin: write it as scheme://host or scheme://host:port."
            )


MAX_NETWORKS = 100
NETWORK_MAX_LENGTH = 100


def check_networks(value: Any) -> None:
    """Check that each is a network in CIDR notation, or an address. Raises ValidationError."""
    if not isinstance(value, list) or len(value) > MAX_NETWORKS:
        raise ValidationError(f"Must be a list of at most {MAX_NETWORKS} networks.")
    for network in value:
        if not isinstance(network, str) or len(network) > NETWORK_MAX_LENGTH:
            raise ValidationError(f"A network must be a string of at most {NETWORK_MAX_LENGTH} characters.")
        try:
            ip_network(network)
        except ValueError:
            raise ValidationError(
                f"{network!r} is not a network in CIDR notation, e.g. 10.1.0.0/16 or 2001:db8::/32."
            ) from None


DEFAULT_MAX_FAILURES = 5000
"""A head-end whose key is wrong, with 300 requests per second, has 3,000 in 10 seconds."""


def _is_port_canonical(origin: str) -> bool:
    """Return whether the port is valid and, as in a browser, omitted if it is the default port."""
    try:
        parts = urlsplit(origin)
        return parts.port != {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        return False


def _seconds(default: int, least: int, most: int, help_text: str) -> models.PositiveIntegerField[int, int]:
    bounds = [MinValueValidator(least), MaxValueValidator(most)]
    return models.PositiveIntegerField(
        default=default, validators=bounds, help_text=f"Seconds, {least} to {most}. {help_text}"
    )


class Algorithm(models.TextChoices):
    ES256 = "ES256", "ES256: verified with the published JWKS"
    HS256 = "HS256", "HS256: verified with a secret that AGS shares with the platform"


class Tenant(ConfigurationModel):
    """An operator, identified by the `nv-tenant-id` header."""

    id = models.CharField(
        "tenant ID",
        primary_key=True,
        max_length=64,
        validators=[_TENANT_ID],
        help_text="The value of the nv-tenant-id header.",
    )
    name = models.CharField(max_length=200)
    enabled = models.BooleanField(default=True, help_text="Off: every request for this tenant is rejected.")
    device_limit = models.PositiveIntegerField(
        null=True, blank=True, help_text="Maximum number of enabled devices of an account. Empty: no limit."
    )
    access_token_ttl = _seconds(3600, 60, 86_400, "Lifetime of an access token.")
    refresh_token_ttl = _seconds(172_800, 300, 31_536_000, "Lifetime of an unused refresh token.")
    sign_on_ttl = _seconds(
        7_776_000, 300, 157_680_000, "Lifetime of a sign-on. Refreshing does not extend it."
    )
    refresh_grace = _seconds(10, 0, 60, "How long a used refresh token is accepted again.")
    signing_algorithm = models.CharField(
        max_length=5,
        choices=Algorithm,
        default=Algorithm.ES256,
        help_text="Takes effect with the next rotation of the signing key.",
    )
    issuer = models.CharField(max_length=200, default="ags", help_text="The iss claim of the tokens.")
    audience = models.CharField(
        max_length=200, blank=True, help_text="The aud claim of access tokens. Empty: the tenant ID."
    )
    allowed_origins = models.JSONField(
        default=list,
        blank=True,
        validators=[check_origins],
        help_text="Web origins that may call the API from a browser (CORS).",
    )
    max_failures_per_address = models.PositiveIntegerField(
        default=DEFAULT_MAX_FAILURES,
        db_default=DEFAULT_MAX_FAILURES,  # for processes of the release before this one
        validators=[MaxValueValidator(1_000_000)],
        help_text="Refused requests (401 and 403) of one client address in 10 seconds. "
        "Any more get a 429 until the 10 seconds are over. 0: no limit.",
    )
    max_sign_ons_per_account = models.PositiveIntegerField(
        default=120,
        db_default=120,
        validators=[MaxValueValidator(1_000_000)],
        help_text="Session tokens and sign-ons of one account in 60 seconds. "
        "Any more get a 429 until the 60 seconds are over. 0: no limit.",
    )
    exempt_networks = models.JSONField(
        default=list,
        db_default=models.Value([], models.JSONField()),
        blank=True,
        validators=[check_networks],
        help_text="Networks whose addresses are never limited.",
    )
    event_retention = models.PositiveIntegerField(
        "event retention (days)",
        default=30,
        db_default=1,  # for tenants of the release before this one, and for its processes
        validators=[MinValueValidator(1), MaxValueValidator(3650)],
        help_text="Days for which the events of the audit trail are kept. 1 to 3,650.",
    )
    unused_retention = models.PositiveIntegerField(
        "unused retention (days)",
        default=0,
        db_default=0,  # for processes of the release before this one
        validators=[MaxValueValidator(3650)],
        help_text="Days for which an enabled device is kept after the end of its sign-on, and its account "
        "with the last device. 0 to 3,650. 0: no limit.",
    )
    revoked_before = models.DateTimeField(
        null=True, editable=False, help_text="Everything issued up to this time is revoked."
    )
    # Incremented with every change of the tenant or its configuration. What a request reads at one version is
    # granted only at that version.
    version = models.PositiveBigIntegerField(default=1, editable=False)

    history = HistoricalRecords(excluded_fields=["version"])

    class Meta:
        permissions = [("all_tenants", "Can work with every tenant, assigned or not")]

    def __str__(self) -> str:
        return self.id

    @transaction.atomic
    def save(self, *args: Any, signing_secret: bytes | None = None, **kwargs: Any) -> None:
        """Validate and save. A new tenant gets its first signing key, and each its standby key.

        The first key is active immediately: no verifier has cached an earlier JWKS.
        `signing_secret`: that of the first key of a tenant with HS256; without it, one is generated.
        """
        from tenants.models.signing_key import SigningKey

        adding = self._state.adding
        super().save(*args, **kwargs)
        if adding:
            SigningKey.generate(self, state="active", secret=signing_secret).save()
        SigningKey.publish_standby(self)

    def needs_standby(self) -> bool:
        """Return whether a signing key is always published besides the active one."""
        return self.enabled and self.signing_algorithm == Algorithm.ES256

    @transaction.atomic
    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete the tenant, and add its version to that of another: the sum of all versions never falls."""
        version = self._tenant_queryset().select_for_update().values_list("version", flat=True).first() or 0
        deleted = super().delete(*args, **kwargs)
        heir = Tenant.objects.order_by("pk").values("pk")[:1]
        Tenant.objects.filter(pk__in=heir).update(version=models.F("version") + version + 1)
        return deleted

    def _tenant_queryset(self) -> models.QuerySet[Tenant]:
        return Tenant.objects.filter(pk=self.pk)


def read_configuration_version() -> int:
    """Return the version of the whole configuration: the sum of the versions of all tenants.

    Each change raises the version of a tenant, so the sum rises with each commit, in any order.
    """
    total: int | None = Tenant.objects.aggregate(total=models.Sum("version"))["total"]
    return int(total or 0)


class Assignment(TenantScoped):
    """Allows a staff user to work with a tenant. The admin shows only data of assigned tenants."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="assignments")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="assignments")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "user"], name="one_assignment_of_a_user")]

    def __str__(self) -> str:
        return f"{self.user} for {self.tenant_id}"


def tenants_for_user(user: Any) -> models.QuerySet[Tenant]:
    if user.has_perm("tenants.all_tenants"):
        return Tenant.objects.all()
    return Tenant.objects.filter(assignments__user=user)
