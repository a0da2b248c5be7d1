"""What an address of the admin may ask for, and what it may hold."""

from typing import Any

import pytest
from django.test import Client

from tests.support.clients import HeadEnd


@pytest.mark.parametrize(
    ("page", "query"),
    [
        ("tenants/key", {"sealed_secret__gt": "x"}),
        ("tenants/key", {"sealed_secret__isnull": "0"}),
        ("tenants/service", {"settings__session_token_ttl": "300"}),
        ("tenants/tenant", {"services__name": "x"}),
        ("tenants/signingkey", {"sealed_secret__gt": "x"}),
        ("tenants/resourceserver", {"secret_hash__gt": "x"}),
        ("auth/user", {"password__startswith": "pbkdf2"}),
    ],
)
def test_the_query_string_is_no_way_to_ask_for_what_is_not_shown(
    admin_client: Client, nagra: HeadEnd, page: str, query: dict[str, str]
) -> None:
    assert admin_client.get(f"/admin/{page}/", query).status_code == 400


def test_no_list_filters_by_a_table(db: None) -> None:
    from django.contrib import admin
    from django.db.models import ForeignKey

    for model, page in admin.site._registry.items():
        for name in page.list_filter:
            field: Any = model._meta.get_field(str(name))
            assert not isinstance(field, ForeignKey), (model, name)


@pytest.mark.parametrize(
    "address",
    [
        "tenants/tenant/a%00b/change/",
        "tenants/tenant/a%00b/history/",
        "tenants/tenant/a%00b/disable/",
        "tenants/tenant/?q=a%00b",
        "tenants/tenant/?enabled__exact=a%00b",
        "tenants/key/?tenant__id__exact=a%00b",
        "tenants/key/?state__exact=a%00b",
        "tenants/key/add/?tenant=a%00b",
        "tenants/key/99999999999999999999/change/",
        "tenants/key/x/revoke/",
        "tenants/service/add/?tenant=a%00b&strategy=operator_token",
        "tenants/service/add/?tenant=a%00b",
        "ags_sessions/sessiontoken/a%00b/change/",
        "ags_sessions/securityevent/?tenant=a%00b",
        "ags_sessions/event/?account=a%00b",
        "ags_sessions/event/?device=99999999999999999999",
        "ags_sessions/event/a%00b/change/",
        "ags_sessions/device/x/end/",
        "ags_sessions/account/99999999999999999999/suspend/",
        "tenants/signingkey/x/rotate/",
        "autocomplete/?term=a%00b&app_label=tenants&model_name=key&field_name=tenant",
    ],
)
def test_what_no_column_can_hold_is_no_crash(admin_client: Client, nagra: HeadEnd, address: str) -> None:
    assert admin_client.get(f"/admin/{address}", follow=True).status_code in {200, 400, 404}


@pytest.mark.parametrize(("words", "found"), [(42, True), (43, False)])
def test_a_search_for_a_text_of_more_than_255_characters_finds_nothing(
    admin_client: Client, nagra: HeadEnd, words: int, found: bool
) -> None:
    page = admin_client.get("/admin/tenants/tenant/", {"q": " ".join(["nagra"] * words)})
    assert page.status_code == 200
    assert (page.context["cl"].result_count == 1) is found
