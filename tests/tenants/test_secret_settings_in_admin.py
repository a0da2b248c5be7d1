"""Secret settings on the pages of staff: never shown, kept unless they are replaced or removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.test import Client

from tests.support.change_form import submit_change
from tests.support.clients import HeadEnd
from tests.support.secret_settings import (
    LIST,
    MARKER,
    OTHER,
    STEP_TWO,
    change,
    create_service,
    dump_database,
    errors,
    fields,
    set_passphrase,
    stored,
    text_of,
)
from tests.support.staff import person


def test_no_page_shows_a_secret(nagra: HeadEnd, admin_client: Client, logged: Callable[[], str]) -> None:
    pages = [
        admin_client.get(STEP_TWO),
        admin_client.post(STEP_TWO, fields(passphrase=MARKER, session_token_ttl="x")),
        admin_client.post(STEP_TWO, fields(passphrase=MARKER) | {"name": ""}),
        admin_client.post(STEP_TWO, fields(passphrase=MARKER, enabled="on"), follow=True),
    ]
    service = stored()
    address = change(service)
    pages += [
        submit_change(admin_client, address, fields(passphrase=OTHER, session_token_ttl="x")),
        submit_change(admin_client, address, fields(passphrase=OTHER, remove="on")),
        submit_change(admin_client, address, fields(passphrase=OTHER * 100)),
        submit_change(admin_client, address, fields(passphrase=OTHER), follow=True),
        admin_client.get(address),
        person("auditor", "nagra").get(address),
        *(
            admin_client.get(f"{LIST}{service.pk}/{name}/")
            for name in ("history", "disable", "revoke-issued")
        ),
        admin_client.get(LIST),
        admin_client.get("/admin/"),
    ]
    output = "".join(text_of(page) + str(page.headers) for page in pages) + logged() + dump_database()
    for secret in (MARKER, OTHER):
        assert secret not in output
    assert stored().secrets() == {"passphrase": OTHER}
    assert stored().settings["passphrase"] not in "".join(text_of(page) for page in pages)
    assert [page.status_code for page in pages] == [200] * len(pages)


def test_an_empty_field_keeps_the_secret(nagra: HeadEnd, admin_client: Client) -> None:
    service = create_service()
    page = admin_client.get(change(service))
    assert "It is set. Leave this empty to keep it." in text_of(page)
    assert 'type="password" name="settings-passphrase"' in text_of(page)
    assert (
        submit_change(admin_client, change(service), fields(session_token_ttl="77", enabled="on")).status_code
        == 302
    )
    assert (stored().settings["session_token_ttl"], stored().secrets()) == (77, {"passphrase": MARKER})
    assert stored().settings["passphrase"] == service.settings["passphrase"]


def test_the_secret_can_be_changed_and_removed(nagra: HeadEnd, admin_client: Client) -> None:
    service = create_service()
    assert submit_change(admin_client, change(service), fields(passphrase=OTHER)).status_code == 302
    assert stored().secrets() == {"passphrase": OTHER}
    assert list(errors(submit_change(admin_client, change(service), fields(passphrase=OTHER, remove="on"))))
    assert submit_change(admin_client, change(service), fields(remove="on")).status_code == 302
    assert (stored().settings["passphrase"], stored().sealed_secrets) == ("", None)
    assert "settings-passphrase-remove" not in text_of(admin_client.get(change(service)))


def test_a_secret_in_an_invalid_form_must_be_entered_again(nagra: HeadEnd, admin_client: Client) -> None:
    service = create_service()
    page = submit_change(admin_client, change(service), fields(passphrase=OTHER, session_token_ttl="x"))
    assert sorted(errors(page)) == ["settings-passphrase", "settings-session_token_ttl"]
    assert "Enter it again: it was not saved, because of the other errors." in text_of(page)
    page = submit_change(admin_client, change(service), fields(session_token_ttl="x"))
    assert list(errors(page)) == ["settings-session_token_ttl"]
    assert stored().secrets() == {"passphrase": MARKER}


def test_a_required_secret_is_required_only_once(
    nagra: HeadEnd, admin_client: Client, two_secrets: None
) -> None:
    page = admin_client.post(STEP_TWO, fields())
    assert list(errors(page)) == ["settings-required_secret"]
    assert admin_client.post(STEP_TWO, fields(required_secret=MARKER)).status_code == 302
    assert submit_change(admin_client, change(stored()), fields()).status_code == 302
    assert stored().secrets() == {"required_secret": MARKER}
    page = admin_client.get(change(stored()))
    assert "settings-required_secret-remove" not in text_of(page)


def test_a_secret_that_looks_like_a_placeholder_is_rejected(nagra: HeadEnd, admin_client: Client) -> None:
    page = admin_client.post(STEP_TWO, fields(passphrase="sealed:0123abcd"))
    assert list(errors(page)) == ["settings-passphrase"]
    assert "sealed:0123abcd" not in text_of(page)


def test_view_permission_shows_whether_the_secret_is_set(nagra: HeadEnd) -> None:
    service = create_service()
    auditor = person("auditor", "nagra")
    contents = [line.contents() for line in rows_of(auditor.get(change(service)))]
    assert "Set" in contents
    set_passphrase("")
    contents = [line.contents() for line in rows_of(auditor.get(change(service)))]
    assert "Not set" in contents


def rows_of(page: Any) -> list[Any]:
    return [field for fieldset in page.context["adminform"] for line in fieldset for field in line]


def test_the_history_shows_that_the_secret_has_changed(nagra: HeadEnd, admin_client: Client) -> None:
    service = create_service()
    for passphrase in (OTHER, ""):
        set_passphrase(passphrase)
    page = admin_client.get(f"{LIST}{service.pk}/history/")
    differences = [(one.before, one.after) for item in page.context["changes"] for one in item.differences]
    assert [one for one in differences if "set" in one or "set to another" in one] == [
        ("set", "—"),
        ("set", "set to another"),
        ("—", "set"),
    ]
    assert "sealed:" not in text_of(page)
