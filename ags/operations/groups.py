"""The groups of staff that every installation has, and what each may do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import Group, Permission

READ = (
    "view_tenant",
    "view_service",
    "view_key",
    "view_signingkey",
    "view_resourceserver",
    "view_sessiontoken",
    "view_account",
    "view_device",
    "view_securityevent",
)

REVOKE = ("change_sessiontoken", "change_account", "change_device")
"""What can be undone, or costs a subscriber no more than signing on again."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "operator staff": (
        *READ,
        "change_tenant",
        "add_service",
        "change_service",
        "add_key",
        "change_key",
        "change_signingkey",
        "add_resourceserver",
        "change_resourceserver",
        *REVOKE,
        "add_account",
        # Cancelling an account, and marking a device as deleted: no row is removed.
        "delete_account",
        "delete_device",
    ),
    "support": (*READ, *REVOKE),
    "auditor": READ,
}
"""Permissions by group; each holds for the tenants that a person is assigned to."""

CHECKED_PERMISSIONS = {"add_tenant", "all_tenants"}.union(*GROUPS.values())
"""Every permission that a page asks for."""


def set_up_groups(using: str, **kwargs: Any) -> None:
    """Make the groups, and let each do what is declared here (after every `migrate`)."""
    for name, codenames in GROUPS.items():
        group, _ = Group.objects.using(using).get_or_create(name=name)
        permissions = Permission.objects.using(using).filter(
            content_type__app_label__in=("tenants", "ags_sessions"), codename__in=codenames
        )
        group.permissions.set(permissions)
