"""Admin pages of staff users, their groups, and the tenants assigned to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, Permission, User
from django.db.models import ManyToManyField, Model
from django.http import HttpRequest
from unfold.forms import AdminPasswordChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from ags.operations import process_admin  # noqa: F401 - registers its page
from ags.operations.groups import APPS, CHECKED_PERMISSIONS
from ags.operations.staff_forms import VersionedStaffForm, VersionedUserForm
from ags.sessions.services.staff_events import record_staff_action
from tenants.admin.base import BoundedAdmin
from tenants.models import Assignment

admin.site.unregister(User)
admin.site.unregister(Group)


class SuperuserOnlyAdmin(BoundedAdmin):
    """A user who can edit permissions could grant themselves any of them."""

    tenant_lookup = None
    recorded_fields: ClassVar[tuple[str, ...]] = ()
    """The fields of the form whose changes are an event."""
    recorded_change = "change"
    """The reason code of that event."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)

    has_add_permission = has_module_permission

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_module_permission(request)

    has_change_permission = has_view_permission

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Save the rest of the form, and an event in the same transaction."""
        super().save_related(request, form, formsets, change)
        names = [name for name in form.changed_data if name in self.recorded_fields]
        if names:
            before = {name: _to_json(form.initial.get(name)) for name in names} if change else None
            after = {name: _to_json(form.cleaned_data[name]) for name in names}
            record_staff_action(form.instance, self.recorded_change if change else "add", before, after)


def _to_json(value: Any) -> Any:
    if isinstance(value, Model):
        return value.codename if isinstance(value, Permission) else str(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return sorted(map(_to_json, value))
    return value


@admin.register(User)
class UserAdmin(DjangoUserAdmin, SuperuserOnlyAdmin):  # type: ignore[type-arg] # not generic at run time
    """Users are deactivated and not deleted, because the history refers to them.

    `event_receivers` records changes of their other fields, because commands change them, too.
    """

    recorded_fields = ("groups",)
    recorded_change = "change_groups"

    form = VersionedUserForm
    change_form_before_template = "tenants/admin/form_version.html"
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    search_fields = ("username__istartswith", "email__istartswith", "last_name__istartswith")
    search_help_text = "The start of a user name, an e-mail address or a last name."
    list_filter = ("is_active", "is_staff", "is_superuser")
    allowed_lookups = ("is_active__exact", "is_staff__exact", "is_superuser__exact")
    filter_horizontal = ()
    # Without user permissions: groups are easier to review.
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Personal info", {"fields": ("first_name", "last_name", "email")}),
        ("Permissions", {"fields": ("is_active", "is_staff", "is_superuser", "groups")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    readonly_fields = ("last_login", "date_joined")


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, SuperuserOnlyAdmin):
    form = VersionedStaffForm
    change_form_before_template = "tenants/admin/form_version.html"
    filter_horizontal = ()
    recorded_fields = ("name", "permissions")

    def formfield_for_manytomany(
        self, db_field: ManyToManyField[Any, Any], request: HttpRequest | None = None, **kwargs: Any
    ) -> Any:
        kwargs["queryset"] = Permission.objects.filter(
            content_type__app_label__in=APPS, codename__in=CHECKED_PERMISSIONS
        )
        kwargs["widget"] = UnfoldAdminCheckboxSelectMultipleWidget()
        field: Any = super().formfield_for_manytomany(db_field, request, **kwargs)
        field.label_from_instance = lambda permission: permission.name
        field.help_text = (
            "“Change” includes revoking session tokens and explanation links, rotating and revoking signing "
            "keys, suspending accounts, disabling devices and ending sign-ons. “Delete” includes cancelling "
            "accounts and deleting devices, whose apps must then sign on as new devices. No row is removed."
        )
        return field


@admin.register(Assignment)
class AssignmentAdmin(SuperuserOnlyAdmin):
    list_display = ("user", "tenant")
    search_fields = ("tenant__id__exact", "user__username__istartswith")
    search_help_text = "A tenant ID, or the start of a user name."
    ordering = ("tenant_id", "user_id")
    list_select_related = ("user", "tenant")
    autocomplete_fields = ("tenant", "user")
    recorded_fields = ("tenant", "user")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    # An assignment can be deleted, because no other row depends on it.
    has_delete_permission = SuperuserOnlyAdmin.has_view_permission

    def delete_model(self, request: HttpRequest, obj: Assignment) -> None:
        """Delete the assignment, and store its event in the same transaction."""
        record_staff_action(obj, "delete", {"tenant": obj.tenant_id, "user": str(obj.user)}, None)
        super().delete_model(request, obj)
