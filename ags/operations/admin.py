"""The pages of staff accounts, their groups, and the tenants that they are assigned to."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, Permission, User
from django.db.models import ManyToManyField
from django.http import HttpRequest
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from ags.operations.groups import CHECKED_PERMISSIONS
from tenants.admin.base import BoundedAdmin
from tenants.models import Assignment

admin.site.unregister(User)
admin.site.unregister(Group)


class AccountAdmin(BoundedAdmin):
    """Base of all three. For superusers only: whoever sets the rights of others can take all of them."""

    of_tenants = None

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Whether the pages are listed."""
        return bool(request.user.is_active and request.user.is_superuser)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether they can be looked at."""
        return self.has_module_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Whether an account or group can be made."""
        return self.has_module_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether one can be changed."""
        return self.has_module_permission(request)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, AccountAdmin):  # type: ignore[type-arg] # not generic at run time
    """A person of the staff. Accounts are deactivated and not deleted: the history names them."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    search_fields = ("username__istartswith", "email__istartswith", "last_name__istartswith")
    search_help_text = "The start of a user name, an e-mail address or a last name."
    list_filter = ("is_active", "is_staff", "is_superuser")
    allowed_lookups = ("is_active__exact", "is_staff__exact", "is_superuser__exact")
    filter_horizontal = ()
    # What somebody may do follows from the groups: a permission of a single person is soon forgotten.
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        ("Rights", {"fields": ("is_active", "is_staff", "is_superuser", "groups")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    readonly_fields = ("last_login", "date_joined")


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, AccountAdmin):
    """What some of the staff may do."""

    filter_horizontal = ()

    def formfield_for_manytomany(
        self, db_field: ManyToManyField[Any, Any], request: HttpRequest | None = None, **kwargs: Any
    ) -> Any:
        """Offer what the pages heed, and nothing else."""
        kwargs["queryset"] = checked_permissions()
        kwargs["widget"] = UnfoldAdminCheckboxSelectMultipleWidget()
        field: Any = super().formfield_for_manytomany(db_field, request, **kwargs)
        field.label_from_instance = lambda permission: permission.name
        field.help_text = (
            "Changing a session token is revoking it; changing a signing key, rotating or revoking it; "
            "changing an account or a device, suspending or disabling it, or ending its sign-ons. Deleting "
            "an account is cancelling it; deleting a device makes its app sign on afresh. No row is removed."
        )
        return field


@admin.register(Assignment)
class AssignmentAdmin(AccountAdmin):
    """Which tenants somebody may work with."""

    list_display = ("user", "tenant")
    search_fields = ("tenant__id__exact", "user__username__istartswith")
    search_help_text = "A tenant ID, or the start of a user name."
    ordering = ("tenant_id", "user_id")
    list_select_related = ("user", "tenant")
    autocomplete_fields = ("tenant", "user")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """It is there or it is not."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether one can be taken back: it is a right, and nothing that was granted hangs on it."""
        return self.has_module_permission(request)


def checked_permissions() -> Any:
    """Return the permissions that a page asks for."""
    ours = Permission.objects.filter(content_type__app_label__in=("tenants", "ags_sessions"))
    return ours.filter(codename__in=CHECKED_PERMISSIONS)
