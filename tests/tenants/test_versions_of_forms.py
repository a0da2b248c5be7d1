"""A change form is saved only if nobody has changed the row since the form was opened."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client

from tenants.models import Key, ResourceServer, Service, Tenant
from tenants.revocation import revoke_issued
from tests.support.change_form import form_version
from tests.support.clients import HeadEnd
from tests.support.staff import person
from tests.support.waiting import wait_until

CHANGES: dict[str, tuple[Any, dict[str, str]]] = {
    "tenant": (Tenant.objects, {"name": "From the form"}),
    "service": (Service.unscoped, {"display_name": "From the form"}),
    "key": (Key.unscoped, {"state": "retiring"}),
    "resourceserver": (ResourceServer.unscoped, {"name": "From the form"}),
}
FORMS = pytest.mark.parametrize("model", CHANGES)


@pytest.fixture(autouse=True)
def rows(nagra: HeadEnd) -> None:
    server = ResourceServer(tenant_id="nagra", name="Recorder")
    server.set_credentials()
    server.save()


class Form:
    """The change form of the only row of a model, as a browser shows and submits it."""

    def __init__(self, client: Client, model: str) -> None:
        self.rows, self.changes = CHANGES[model]
        self.client = client
        self.address = f"/admin/tenants/{model}/{self.row.pk}/change/"
        page = client.get(self.address)
        self.fields = {
            bound.html_name: bound.value() if bound.value() is not None else ""
            for bound in page.context["adminform"].form
            if not isinstance(bound.value(), bool | list) and not hasattr(bound.field.widget, "widgets")
        }

    @property
    def row(self) -> Any:
        return self.rows.get()

    def submit(self, *, follow: bool = False, **changes: Any) -> Any:
        return self.client.post(self.address, {**self.fields, **self.changes, **changes}, follow=follow)

    def is_saved(self) -> bool:
        return all(getattr(self.row, name) == value for name, value in self.changes.items())


@FORMS
def test_a_form_is_saved_if_nothing_has_changed(admin_client: Client, model: str) -> None:
    form = Form(admin_client, model)
    assert form.submit().status_code == 302
    assert form.is_saved()


@FORMS
def test_a_change_of_another_row_does_not_refuse_a_form(admin_client: Client, model: str) -> None:
    form = Form(admin_client, model)
    for other in CHANGES.keys() - {model}:
        assert Form(admin_client, other).submit().status_code == 302
    assert form.submit().status_code == 302
    assert form.is_saved()


@FORMS
def test_a_second_form_is_refused_and_says_who_saved_the_first(admin_client: Client, model: str) -> None:
    first, second = Form(person("operator staff", "nagra"), model), Form(admin_client, model)
    assert first.submit().status_code == 302
    version = form_version(admin_client, second.address)
    page = second.submit(name="From the second form")
    assert page.status_code == 200
    text = page.content.decode()
    assert re.search(r"Changed by \w[\w ]* at [0-9-]{10} [0-9:]{8} UTC\.", text)
    assert first.is_saved()
    again = second.submit(version=page.context["adminform"].form["version"].value())
    assert again.status_code == 200, "the form that is shown again keeps the version that it was opened at"
    assert second.submit(version=version).status_code == 302, "after a reload it is saved"


@FORMS
def test_a_refused_form_keeps_what_was_entered(admin_client: Client, model: str) -> None:
    form = Form(admin_client, model)
    Form(admin_client, model).submit()
    (name,) = form.changes
    value = "active" if model == "key" else "Entered before the page was refused"
    page = form.submit(**{name: value})  # type: ignore[arg-type]
    assert page.status_code == 200
    assert page.context["adminform"].form[name].value() == value


@pytest.mark.parametrize("model", CHANGES.keys() - {"resourceserver"})
def test_a_form_that_was_opened_before_a_revocation_does_not_undo_it(
    admin_client: Client, model: str
) -> None:
    form = Form(admin_client, model)
    revoke_issued(form.row)
    revoked_before = form.row.revoked_before
    page = form.submit()
    assert "Changed by a command at " in page.content.decode()
    assert form.row.revoked_before == revoked_before
    assert not form.is_saved()


@pytest.mark.parametrize("version", ["", "0", "x", "9" * 5000, "\uff11"])
@FORMS
def test_a_form_without_the_version_of_the_row_is_refused(
    admin_client: Client, model: str, version: str
) -> None:
    form = Form(admin_client, model)
    page = form.submit(version=version)
    assert page.status_code == 200
    assert "Reload the form" in page.content.decode()
    assert not form.is_saved()


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_of_two_forms_that_are_saved_at_the_same_time_one_is_refused(admin_client: Client) -> None:
    """Both have been validated, and wait for the lock of the tenant, before either is saved."""
    forms = [Form(admin_client, "tenant") for _ in range(2)]

    def save(number: int) -> Any:
        try:
            return forms[number].submit(name=f"From form {number}", follow=True)
        finally:
            connection.close()

    def both_wait() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            return bool(cursor.fetchone()[0] == len(forms))

    with ThreadPoolExecutor() as pool:
        with transaction.atomic():
            Tenant.objects.select_for_update().get()
            pages = [pool.submit(save, number) for number in range(2)]
            wait_until(both_wait, "the forms do not wait for the tenant")
        texts = [page.result().content.decode() for page in pages]
    refused = ["Not saved. Changed by admin at " in text for text in texts]
    assert sorted(refused) == [False, True]
    assert forms[0].row.name == f"From form {refused.index(False)}"
    assert [row.name for row in forms[0].row.history.all()] == [forms[0].row.name, "Nagra"]
