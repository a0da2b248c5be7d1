"""Groups and users of staff in the files of `apply` and `export`."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.contrib.auth.models import Group, Permission, User
from django.core.management import CommandError, call_command
from django.test import Client

from ags.operations.groups import GROUPS, READ
from tenants.models import Assignment
from tests.support.clients import HeadEnd
from tests.support.events import capture_events, check_command, values_of

pytestmark = pytest.mark.django_db

Apply = Callable[..., list[str]]
DESK = {"name": "desk", "permissions": ["view_tenant", "view_key"]}


@pytest.fixture
def apply(tmp_path: Path) -> Apply:
    def run(document: Any, *options: str) -> list[str]:
        file, out = tmp_path / "staff.yaml", io.StringIO()
        file.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
        call_command("apply", str(file), *options, stdout=out)
        return out.getvalue().splitlines()

    return run


@pytest.fixture
def anna(nagra: HeadEnd, sunrise: HeadEnd) -> User:
    return User.objects.create_user("anna", is_staff=True)


def staff(*, groups: Any = (), users: Any = ()) -> dict[str, Any]:
    return {"tenants": [], "staff": {"groups": list(groups), "users": list(users)}}


def user(**members: Any) -> dict[str, Any]:
    return staff(users=[{"username": "anna", **members}])


def stored() -> list[Any]:
    return [
        [(group.name, sorted(group.permissions.values_list("codename"))) for group in Group.objects.all()],
        list(User.objects.order_by("pk").values()),
        sorted(User.groups.through.objects.values_list("user__username", "group__name")),
        sorted(Assignment.unscoped.values_list("user__username", "tenant_id")),
    ]


def export() -> str:
    out = io.StringIO()
    call_command("export", "--staff", stdout=out)
    return out.getvalue()


def test_a_user_may_do_what_the_file_says(apply: Apply, anna: User) -> None:
    browser = Client()
    browser.force_login(anna)
    page = "/admin/tenants/tenant/{}/change/"
    assert browser.get(page.format("nagra")).status_code == 404
    document = staff(groups=[DESK], users=[{"username": "anna", "groups": ["desk"], "tenants": ["nagra"]}])
    assert apply(document) == ["+ group desk", "~ user anna: groups +desk, tenants +nagra"]
    assert browser.get(page.format("nagra")).status_code == 200
    assert browser.get(page.format("sunrise")).status_code == 404, "not assigned"
    assert apply(document) == ["nothing to do"]
    all_tenants = {"name": "desk", "permissions": ["view_tenant", "all_tenants"]}
    assert apply(staff(groups=[all_tenants])) == ["~ group desk: permissions +all_tenants -view_key"]
    assert browser.get(page.format("sunrise")).status_code == 200


def test_a_list_in_the_file_is_complete_and_one_that_is_omitted_is_kept(apply: Apply, anna: User) -> None:
    apply(user(groups=["support", "auditor"], tenants=["nagra", "sunrise"]))
    before = stored()
    unchanged: list[dict[str, Any]] = [{"tenants": []}, staff(), user(), user(groups=["auditor", "support"])]
    for document in unchanged:
        assert apply(document) == ["nothing to do"]
    assert stored() == before
    changed = user(groups=["auditor"], tenants=["sunrise"])
    assert apply(changed, "--dry-run") == [
        "~ user anna: groups -support, tenants -nagra",
        "dry run: nothing was saved",
    ]
    assert stored() == before
    apply(changed)
    assert list(anna.groups.values_list("name", flat=True)) == ["auditor"]
    assert list(anna.assignments.values_list("tenant_id", flat=True)) == ["sunrise"]
    assert apply(user(groups=[], tenants=[])) == ["~ user anna: groups -auditor, tenants -sunrise"]


def test_a_tenant_of_the_same_file_can_be_assigned(apply: Apply, anna: User) -> None:
    document = {**user(tenants=["nova"]), "tenants": [{"id": "nova", "name": "Nova"}]}
    assert apply(document) == ["+ tenant nova", "~ user anna: tenants +nova"]


def test_each_change_is_an_event_of_a_command(apply: Apply, anna: User) -> None:
    apply(user(tenants=["sunrise"]))
    document = staff(groups=[DESK], users=[{"username": "anna", "groups": ["desk"], "tenants": ["nagra"]}])
    events = capture_events(lambda: apply(document))
    assert [(event.kind, event.reason, event.tenant_id, *values_of(event)) for event in events] == [
        ("staff_action", "add", None, None, {"name": "desk", "permissions": ["view_key", "view_tenant"]}),
        ("staff_action", "change_groups", None, {"groups": []}, {"groups": ["desk"]}),
        ("staff_action", "delete", "sunrise", {"tenant": "sunrise", "user": "anna"}, None),
        ("staff_action", "add", "nagra", None, {"tenant": "nagra", "user": "anna"}),
    ]
    for event in events:
        check_command(event)
    assert capture_events(lambda: apply(document)) == []
    (event,) = capture_events(lambda: apply(staff(groups=[{"name": "desk", "permissions": []}])))
    assert values_of(event) == ({"permissions": ["view_key", "view_tenant"]}, {"permissions": []})


def test_an_export_recreates_groups_and_assignments(apply: Apply, anna: User) -> None:
    User.objects.create_superuser("root")
    User.objects.create_user("off", is_active=False)
    document = staff(
        groups=[DESK, {"name": "no"}],
        users=[{"username": "anna", "groups": ["desk", "support"], "tenants": ["sunrise", "nagra"]}],
    )
    apply(document)
    text = export()
    assert yaml.safe_load(text)["staff"] == {
        "groups": [
            {"name": "desk", "permissions": ["view_key", "view_tenant"]},
            {"name": "no", "permissions": []},
        ],
        "users": [
            {"username": "anna", "groups": ["desk", "support"], "tenants": ["nagra", "sunrise"]},
            {"username": "off", "groups": [], "tenants": []},
        ],
    }
    assert apply(text) == ["nothing to do"]
    before = stored()
    Group.objects.exclude(name__in=GROUPS).delete()
    Assignment.unscoped.all().delete()
    anna.groups.clear()
    assert len(apply(text)) == 3
    assert export() == text
    assert stored() == before


def test_permissions_of_django_stay_and_are_in_no_file(apply: Apply) -> None:
    apply(staff(groups=[DESK]))
    group = Group.objects.get(name="desk")
    group.permissions.add(Permission.objects.get(codename="delete_logentry"))
    exported = io.StringIO()
    call_command("export", "--staff", stdout=exported)
    assert "delete_logentry" not in exported.getvalue()
    assert apply(exported.getvalue()) == ["nothing to do"]
    apply(staff(groups=[{"name": "desk", "permissions": ["view_service"]}]))
    assert sorted(group.permissions.values_list("codename", flat=True)) == ["delete_logentry", "view_service"]


def test_an_export_has_no_user_names_unless_they_are_requested(anna: User) -> None:
    out = io.StringIO()
    call_command("export", stdout=out)
    assert "anna" not in out.getvalue()
    with pytest.raises(CommandError, match="give no tenant ID with it"):
        call_command("export", "nagra", "--staff", stdout=out)


U = "staff.users[0]"
G = "staff.groups[0]"
ERRORS: dict[str, tuple[Any, str]] = {
    "null": ({"tenants": [], "staff": None}, "staff: must be a mapping"),
    "a list": ({"tenants": [], "staff": []}, "staff: must be a mapping"),
    "an unknown section": (
        {"tenants": [], "staff": {"accounts": []}},
        "staff.accounts: unknown member; must be one of groups, users",
    ),
    "users that are a mapping": ({"tenants": [], "staff": {"users": {}}}, "staff.users: must be a list"),
    "no user name": (staff(users=[{}]), f"{U}.username: missing"),
    "a password": (
        user(password="marker-8271"),
        f"{U}.password: unknown member; must be one of groups, tenants, username",
    ),
    "a superuser flag": (user(is_superuser=True), f"{U}.is_superuser: unknown member"),
    "an unknown user": (staff(users=[{"username": "marker-8271"}]), f"{U}.username: does not exist"),
    "a superuser": (staff(users=[{"username": "root"}]), f"{U}.username: is a superuser"),
    "a duplicate user": (
        staff(users=[{"username": "anna"}, {"username": "anna"}]),
        f"staff.users[1].username: duplicate of {U}.username",
    ),
    "an unknown group": (user(groups=["support", "x"]), f"{U}.groups[1]: does not exist"),
    "a duplicate group": (user(groups=["support", "support"]), f"{U}.groups[1]: duplicate"),
    "a group that is a number": (user(groups=[1]), f"{U}.groups[0]: must be a string"),
    "groups that are a string": (user(groups="support"), f"{U}.groups: must be a list"),
    "an unknown tenant": (user(tenants=["nagra", "x"]), f"{U}.tenants[1]: does not exist"),
    "a duplicate tenant": (user(tenants=["nagra", "nagra"]), f"{U}.tenants[1]: duplicate"),
    "a default group": (
        staff(groups=[{"name": "support", "permissions": []}]),
        f"{G}.name: a default group, which each migrate resets",
    ),
    "an empty name": (staff(groups=[{"name": ""}]), f"{G}.name: This field cannot be blank"),
    "a long name": (staff(groups=[{"name": "x" * 151}]), f"{G}.name: Ensure this value has at most 150"),
    "a duplicate name": (
        staff(groups=[DESK, {**DESK, "permissions": []}]),
        f"staff.groups[1].name: duplicate of {G}.name",
    ),
    "a permission of Django": (
        staff(groups=[{"name": "x", "permissions": ["view_key", "add_user"]}]),
        f"{G}.permissions[1]: must be one of add_account, ",
    ),
    "a permission that is null": (
        staff(groups=[{"name": "x", "permissions": [None]}]),
        f"{G}.permissions[0]: must be a string",
    ),
}


@pytest.mark.parametrize(("document", "expected"), ERRORS.values(), ids=ERRORS)
def test_an_error_has_its_location_and_changes_nothing(
    apply: Apply, anna: User, document: Any, expected: str
) -> None:
    User.objects.create_superuser("root")
    before = stored()
    document = {**document, "tenants": [{"id": "nova", "name": "Nova"}]}
    with pytest.raises(CommandError) as raised:
        apply(document)
    message = str(raised.value)
    assert message.startswith(expected), message
    assert "\n" not in message
    assert "marker-8271" not in message
    assert stored() == before
    assert not Assignment.unscoped.filter(tenant_id="nova").exists()


def test_every_permission_of_a_default_group_can_be_given(apply: Apply) -> None:
    apply(staff(groups=[{"name": "readers", "permissions": list(READ)}]))
    assert Permission.objects.filter(group__name="readers").count() == len(READ)
