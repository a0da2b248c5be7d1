"""`apply` and other editors at the same time: none overwrites what it has not seen, and each says who won."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models.signals import post_save
from django.test import Client

from tenants.models import Assignment, Key, ResourceServer, Service, Tenant
from tests.support.change_form import form_version
from tests.support.clients import SERVICE, HeadEnd
from tests.support.waiting import PATIENCE, wait_until

postgresql = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]
BY_APPLY = r"Changed by manage.py apply at "

CHANGES: dict[str, tuple[Any, dict[str, str], dict[str, Any]]] = {
    "tenant": (Tenant.objects, {"name": "From the form"}, {"name": "From the file"}),
    "service": (
        Service.unscoped,
        {"display_name": "From the form"},
        {"services": [{"name": SERVICE, "display_name": "From the file"}]},
    ),
    "key": (Key.unscoped, {"state": "retiring"}, {"keys": [{"kid": "nagra-key-1", "state": "staged"}]}),
    "resourceserver": (
        ResourceServer.unscoped,
        {"name": "From the form"},
        {"resource_servers": [{"client_id": "nagra~recorder", "name": "From the file"}]},
    ),
}
"""The row, what a form changes, and what a file changes."""


@pytest.fixture(autouse=True)
def anna(nagra: HeadEnd) -> User:
    server = ResourceServer(tenant_id="nagra", name="Recorder")
    server.import_credentials("nagra~recorder", "0123456789" * 5)
    server.save()
    return User.objects.create_user("anna", is_staff=True)


@pytest.fixture
def apply(tmp_path: Path) -> Callable[..., list[str]]:
    def run(document: Any) -> list[str]:
        file, out = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml", io.StringIO()
        file.write_text(yaml.safe_dump(document))
        call_command("apply", str(file), stdout=out)
        return out.getvalue().splitlines()

    return run


def file_with(**members: Any) -> dict[str, Any]:
    return {"tenants": [{"id": "nagra", **members}]}


def staff_file(**members: Any) -> dict[str, Any]:
    return {"tenants": [], "staff": {"users": [{"username": "anna", **members}]}}


def open_form(client: Client, address: str) -> dict[str, Any]:
    """Return what a browser submits if nothing is changed."""
    data: dict[str, Any] = {}
    for bound in client.get(address).context["adminform"].form:
        value = bound.value()
        if bound.html_name in {"groups", "permissions"}:
            data[bound.html_name] = [getattr(row, "pk", row) for row in value or ()]
        elif value is True:
            data[bound.html_name] = "on"
        elif not isinstance(value, bool | list) and not hasattr(bound.field.widget, "widgets"):
            data[bound.html_name] = "" if value is None else value
    return data


def in_another_session(during: Callable[[], Any], act: Callable[[], Any]) -> Any:
    """Run `act` in another session while `during` is done but not committed; return what it returns."""

    def run() -> Any:
        try:
            return act()
        finally:
            connection.close()

    def waits() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            return bool(cursor.fetchone()[0])

    with ThreadPoolExecutor() as pool:
        with transaction.atomic():
            during()
            result = pool.submit(run)
            wait_until(lambda: waits() or result.done(), "nothing waits")
            assert not result.done(), "it must wait for the transaction"
        return result.result()


@pytest.mark.django_db
@pytest.mark.parametrize("model", CHANGES)
def test_a_form_that_was_opened_before_apply_is_refused(
    apply: Callable[..., list[str]], admin_client: Client, model: str
) -> None:
    rows, in_form, in_file = CHANGES[model]
    address = f"/admin/tenants/{model}/{rows.get().pk}/change/"
    opened = open_form(admin_client, address)
    assert len(apply(file_with(**in_file))) == 1
    page = admin_client.post(address, opened | in_form)
    assert BY_APPLY in page.content.decode()
    for name, value in in_form.items():
        assert getattr(rows.get(), name) != value
    assert admin_client.post(address, open_form(admin_client, address) | in_form).status_code == 302


@pytest.mark.django_db
def test_apply_without_changes_refuses_no_form(apply: Callable[..., list[str]], admin_client: Client) -> None:
    address = "/admin/tenants/tenant/nagra/change/"
    opened = open_form(admin_client, address)
    assert apply(file_with(name="Nagra")) == ["nothing to do"]
    assert admin_client.post(address, opened | {"name": "From the form"}).status_code == 302


class TestStaff:
    pytestmark = pytest.mark.django_db

    def test_a_form_of_a_user_that_was_opened_before_apply_is_refused(
        self, apply: Callable[..., list[str]], admin_client: Client, anna: User
    ) -> None:
        address = f"/admin/auth/user/{anna.pk}/change/"
        opened = open_form(admin_client, address)
        apply(staff_file(groups=["auditor"]))
        page = admin_client.post(address, opened | {"email": "anna@nagra.example"})
        assert "Changed by a command at " in page.content.decode()
        assert list(anna.groups.values_list("name", flat=True)) == ["auditor"]
        assert User.objects.get(pk=anna.pk).email == ""
        reloaded = open_form(admin_client, address) | {"email": "anna@nagra.example"}
        assert admin_client.post(address, reloaded).status_code == 302
        assert list(anna.groups.values_list("name", flat=True)) == ["auditor"]

    def test_of_two_forms_of_a_group_the_second_is_refused_and_says_who_saved_the_first(
        self, admin_client: Client
    ) -> None:
        group = Group.objects.create(name="desk")
        address = f"/admin/auth/group/{group.pk}/change/"
        opened = open_form(admin_client, address)
        assert admin_client.post(address, opened | {"name": "night desk"}).status_code == 302
        page = admin_client.post(address, opened | {"name": "day desk"})
        assert "Changed by admin at " in page.content.decode()
        assert Group.objects.get(pk=group.pk).name == "night desk"

    def test_a_login_refuses_no_form_of_the_user(self, admin_client: Client, anna: User) -> None:
        address = f"/admin/auth/user/{anna.pk}/change/"
        opened = open_form(admin_client, address)
        Client().force_login(anna)
        assert admin_client.post(address, opened | {"email": "a@nagra.example"}).status_code == 302

    def test_the_form_has_the_version(self, admin_client: Client, anna: User) -> None:
        assert form_version(admin_client, f"/admin/auth/user/{anna.pk}/change/")


class TestAtTheSameTime:
    pytestmark = postgresql

    def test_of_two_files_the_second_names_what_the_first_has_stored(
        self, apply: Callable[..., list[str]]
    ) -> None:
        second = in_another_session(
            lambda: apply(file_with(name="First")), lambda: apply(file_with(name="Second"))
        )
        assert second == ["~ tenant nagra: name First -> Second"]
        assert Tenant.objects.get().name == "Second"
        assert [row.name for row in Tenant.objects.get().history.all()] == ["Second", "First", "Nagra"]

    def test_a_form_that_was_validated_before_apply_has_committed_is_refused(
        self, apply: Callable[..., list[str]], admin_client: Client
    ) -> None:
        address = "/admin/tenants/tenant/nagra/change/"
        form = open_form(admin_client, address) | {"name": "From the form"}
        page = in_another_session(
            lambda: apply(file_with(name="From the file")),
            lambda: admin_client.post(address, form, follow=True),
        )
        assert f"Not saved. {BY_APPLY}" in page.content.decode()
        assert Tenant.objects.get().name == "From the file"

    def test_apply_waits_for_a_form_and_names_what_it_has_stored(
        self, apply: Callable[..., list[str]], admin_client: Client
    ) -> None:
        address = "/admin/tenants/tenant/nagra/change/"
        form = open_form(admin_client, address) | {"name": "From the form"}
        lines = in_another_session(
            lambda: admin_client.post(address, form), lambda: apply(file_with(name="From the file"))
        )
        assert lines == ["~ tenant nagra: name From the form -> From the file"]

    def test_of_two_files_that_create_a_tenant_the_second_changes_it(
        self, apply: Callable[..., list[str]]
    ) -> None:
        def file(name: str) -> dict[str, Any]:
            return {"tenants": [{"id": "nova", "name": name}]}

        second = in_another_session(lambda: apply(file("First")), lambda: apply(file("Second")))
        assert second == ["~ tenant nova: name First -> Second"]
        assert Tenant.objects.get(pk="nova").signing_keys.filter(state="active").count() == 1

    def test_two_files_that_create_tenants_in_different_orders_are_both_applied(self, tmp_path: Path) -> None:
        """Each waits for the other, so PostgreSQL ends one, which is applied again."""
        between, first_saves = threading.Barrier(2, timeout=PATIENCE), set[int]()

        def meet(created: bool, **_: Any) -> None:
            if created and threading.get_ident() not in first_saves:
                first_saves.add(threading.get_ident())
                between.wait()

        def run(name: str, ids: list[str]) -> str:
            file, out = tmp_path / f"{name}.yaml", io.StringIO()
            file.write_text(yaml.safe_dump({"tenants": [{"id": each, "name": name} for each in ids]}))
            try:
                call_command("apply", str(file), stdout=out)
            finally:
                connection.close()
            return out.getvalue()

        post_save.connect(meet, sender=Tenant)
        try:
            with ThreadPoolExecutor(2) as pool:
                one = pool.submit(run, "One", ["nova", "orbit"])
                other = pool.submit(run, "Other", ["orbit", "nova"])
                printed = sorted([one.result(PATIENCE), other.result(PATIENCE)])
        finally:
            post_save.disconnect(meet, sender=Tenant)
        assert [lines.count("+ tenant") for lines in printed] == [2, 0]
        assert [lines.count("~ tenant") for lines in printed] == [0, 2]

    def test_of_two_files_with_a_user_both_know_the_stored_lists(
        self, apply: Callable[..., list[str]], anna: User
    ) -> None:
        second = in_another_session(
            lambda: apply(staff_file(groups=["support"], tenants=["nagra"])),
            lambda: apply(staff_file(groups=["auditor"], tenants=["nagra"])),
        )
        assert second == ["~ user anna: groups +auditor -support"]
        assert Assignment.unscoped.filter(user=anna).count() == 1

    def test_a_form_of_a_user_waits_for_apply_and_is_refused(
        self, apply: Callable[..., list[str]], admin_client: Client, anna: User
    ) -> None:
        address = f"/admin/auth/user/{anna.pk}/change/"
        form = open_form(admin_client, address) | {"first_name": "Anna"}
        page = in_another_session(
            lambda: apply(staff_file(groups=["auditor"])), lambda: admin_client.post(address, form)
        )
        assert "Changed by a command at " in page.content.decode()
        assert list(anna.groups.values_list("name", flat=True)) == ["auditor"]
