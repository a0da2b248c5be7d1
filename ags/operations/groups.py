"""The default groups of staff and their permissions."""

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
    "view_event",
    "view_explanationlink",
)

LINK = ("add_explanationlink", "change_explanationlink")

REVOKE = ("change_sessiontoken", "change_account", "change_device")
"""Actions that can be undone, or after which the subscriber only has to sign on again."""

APPS = ("tenants", "ags_sessions", "ags_explanations")
"""The labels of the apps with permissions of AGS."""

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
        *LINK,
        "add_account",
        # To cancel accounts and set devices to deleted; no row is removed.
        "delete_account",
        "delete_device",
    ),
    "support": (*READ, *REVOKE, *LINK),
    "auditor": READ,
}
"""Permissions by group. They apply to the tenants that a user is assigned to."""

CHECKED_PERMISSIONS = {"add_tenant", "all_tenants"}.union(*GROUPS.values())
"""Every permission that a page checks."""


def set_up_groups(using: str, **kwargs: Any) -> None:
    for name, codenames in GROUPS.items():
        group, _ = Group.objects.using(using).get_or_create(name=name)
        permissions = Permission.objects.using(using).filter(
            content_type__app_label__in=APPS, codename__in=codenames
        )
        group.permissions.set(permissions)
