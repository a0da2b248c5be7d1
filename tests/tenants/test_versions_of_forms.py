"""A change form is saved only if nobody has changed the row since the form was opened."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from tenants.models import Key, ResourceServer, Service, Tenant
from tenants.revocation import revoke_issued
from tests.conftest import HeadEnd, person
from tests.tenants.change_form import form_version

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

    def submit(self, **changes: Any) -> Any:
        return self.client.post(self.address, {**self.fields, **self.changes, **changes})

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
    assert re.search(r"Changed by \w[\w ]* at [0-9-]{10} [0-9:]{8} UTC: reload the page", text)
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
    page = form.submit(**{name: value})
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
    assert "reload the page" in page.content.decode()
    assert not form.is_saved()
