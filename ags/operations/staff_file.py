"""Staff in configuration files: groups, and the groups and tenants of users.

A file contains no account and no password. The default groups are not in a file: each `migrate` resets them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from django.contrib.auth.models import Group, Permission, User
from django.db import transaction
from django.db.models import Q

from ags.operations.groups import APPS, CHECKED_PERMISSIONS, GROUPS
from ags.sessions.services.staff_events import record_staff_action
from tenants.config_file.schema import Entry
from tenants.config_file.secret_refs import error_location
from tenants.config_file.yaml_loader import ConfigurationError
from tenants.models import Assignment, Tenant

_IN_FILE = Q(content_type__app_label__in=APPS, codename__in=CHECKED_PERMISSIONS)
"""The condition of the permissions that a file contains: those that the pages of AGS check."""

Row = TypeVar("Row", Permission, Group, Tenant)


@transaction.atomic
def apply_staff(groups: Sequence[Entry], users: Sequence[Entry]) -> list[str]:
    """Apply the entries of a file, and return a line for each change.

    Groups, users and lists that are not in the file are not changed. A list in the file replaces the stored
    one. Raises ConfigurationError.
    """
    changes: list[str] = []
    if groups:
        _apply_groups(groups, changes)
    if users:
        _apply_users(users, changes)
    return changes


def dump_staff() -> dict[str, Any]:
    """Return the groups and users as they are written to a file. Superusers are left out."""
    tenants = _tenants_by_user(Assignment.unscoped.filter(user__is_superuser=False))
    groups = Group.objects.exclude(name__in=GROUPS)
    users = User.objects.filter(is_superuser=False).prefetch_related("groups")
    return {
        "groups": [
            {"name": group.name, "permissions": sorted(_codenames(group))}
            for group in sorted(groups, key=lambda group: group.name)
        ],
        "users": [
            {
                "username": user.username,
                "groups": sorted(group.name for group in user.groups.all()),
                "tenants": sorted(tenants.get(user.pk, {})),
            }
            for user in sorted(users, key=lambda user: user.username)
        ],
    }


def _apply_groups(entries: Sequence[Entry], changes: list[str]) -> None:
    permissions = {row.codename: row for row in Permission.objects.filter(_IN_FILE)}
    names = [entry.name for entry in entries]
    # Locked, so that what is compared does not change. Sorted, to avoid deadlocks.
    locked = Group.objects.filter(name__in=names).order_by("pk").select_for_update(no_key=True)
    existing = {group.name: group for group in locked}
    for entry in entries:
        if entry.name in GROUPS:
            raise ConfigurationError(
                f"{entry.path}.name", "a default group, which each migrate resets: create one of your own"
            )
        new = _pick(entry, "permissions", permissions, "must be one of " + ", ".join(sorted(permissions)))
        group = existing.get(entry.name)
        is_new = group is None
        if group is None:
            group = Group(name=entry.name)
            with error_location(entry.path):
                group.full_clean()
            group.save()
        before = _codenames(group)
        after = before if new is None else {row.codename for row in new}
        if not is_new and before == after:
            continue
        if new is not None:  # those of Django, which only the shell grants, stay
            group.permissions.remove(*(permissions[codename] for codename in before - after))
            group.permissions.add(*(permissions[codename] for codename in after - before))
        if is_new:
            record_staff_action(group, "add", None, {"name": group.name, "permissions": sorted(after)})
            changes.append(f"+ group {group.name}")
        else:
            record_staff_action(
                group, "change", {"permissions": sorted(before)}, {"permissions": sorted(after)}
            )
            changes.append(f"~ group {group.name}: {_describe('permissions', before, after)}")


def _codenames(group: Group) -> set[str]:
    """Return the permissions of the group that a file contains."""
    return set(group.permissions.filter(_IN_FILE).values_list("codename", flat=True))


def _apply_users(entries: Sequence[Entry], changes: list[str]) -> None:
    names = [entry.name for entry in entries]
    locked = User.objects.filter(username__in=names).order_by("pk").select_for_update(no_key=True)
    users = {user.username: user for user in locked}
    assignments = _tenants_by_user(Assignment.unscoped.filter(user__in=users.values()))
    groups = {group.name: group for group in Group.objects.all()}
    tenant_ids = {name for entry in entries for name in entry.fields.get("tenants", ())}
    tenants = {tenant.pk: tenant for tenant in Tenant.objects.filter(pk__in=tenant_ids)}
    for entry in entries:
        user = users.get(entry.name)
        if user is None:
            raise ConfigurationError(
                f"{entry.path}.username", "does not exist: a superuser adds the user in the admin"
            )
        if user.is_superuser:
            raise ConfigurationError(
                f"{entry.path}.username", "is a superuser, who has every permission without groups or tenants"
            )
        new_groups = _pick(entry, "groups", groups, "does not exist")
        new_tenants = _pick(entry, "tenants", tenants, "does not exist")
        differences = []
        if new_groups is not None and (difference := _change_groups(user, new_groups)):
            differences.append(difference)
        if new_tenants is not None:
            stored = assignments.get(user.pk, {})
            if difference := _change_tenants(user, stored, new_tenants):
                differences.append(difference)
        if differences:
            changes.append(f"~ user {user.username}: {', '.join(differences)}")


def _change_groups(user: User, groups: Sequence[Group]) -> str:
    before = {group.name for group in user.groups.all()}
    after = {group.name for group in groups}
    if before == after:
        return ""
    user.groups.set(groups)
    record_staff_action(user, "change_groups", {"groups": sorted(before)}, {"groups": sorted(after)})
    return _describe("groups", before, after)


def _change_tenants(user: User, stored: Mapping[str, Assignment], tenants: Sequence[Tenant]) -> str:
    after = {tenant.pk for tenant in tenants}
    for name in sorted(stored.keys() - after):
        record_staff_action(stored[name], "delete", {"tenant": name, "user": str(user)}, None)
        stored[name].delete()
    for name in sorted(after - stored.keys()):
        assignment = Assignment(tenant_id=name, user=user)
        assignment.save()
        record_staff_action(assignment, "add", None, {"tenant": name, "user": str(user)})
    return _describe("tenants", stored.keys(), after)


def _tenants_by_user(assignments: Iterable[Assignment]) -> dict[int, dict[str, Assignment]]:
    by_user: dict[int, dict[str, Assignment]] = {}
    for row in assignments:
        by_user.setdefault(row.user_id, {})[row.tenant_id] = row
    return by_user


def _pick(entry: Entry, member: str, rows: Mapping[str, Row], problem: str) -> list[Row] | None:
    """Return the rows that the list of the entry names, or None if the file does not have the list."""
    if member not in entry.fields:
        return None
    picked: dict[str, Row] = {}
    for index, name in enumerate(entry.fields[member]):
        path = f"{entry.path}.{member}[{index}]"
        if name in picked:
            raise ConfigurationError(path, "duplicate")
        if name not in rows:
            raise ConfigurationError(path, problem)
        picked[name] = rows[name]
    return list(picked.values())


def _describe(member: str, before: Iterable[str], after: Iterable[str]) -> str:
    """Return the names that were added and removed, or an empty text."""
    old, new = set(before), set(after)
    names = [f"+{name}" for name in sorted(new - old)] + [f"-{name}" for name in sorted(old - new)]
    return f"{member} {' '.join(names)}" if names else ""
