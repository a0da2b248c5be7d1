"""The use of a key on its page, and the second confirmation of what refuses tokens of a key in use."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from ags.database.clock import get_database_time
from tenants.models import Key, KeyState, KeyUse, Service
from tenants.times import format_utc
from tests.support.change_form import submit_change
from tests.support.clients import HeadEnd
from tests.support.key_use import add_key_use
from tests.support.operators import add_key
from tests.support.staff import person

NEW = HeadEnd("nagra", "new-key", bytes(range(101, 133)))


def page_of(kid: str, name: str = "change") -> str:
    return f"/admin/tenants/key/{Key.objects.for_tenant('nagra').get(kid=kid).pk}/{name}/"


def read_text(client: Client, address: str) -> str:
    page = re.sub("(?s)<script.*?</script>|<style.*?</style>", "", client.get(address).content.decode())
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", page)).split())


def state_of(kid: str) -> str:
    return Key.objects.for_tenant("nagra").get(kid=kid).state


# The page


def test_the_page_shows_last_use_share_and_ages(admin_client: Client, nagra: HeadEnd) -> None:
    add_key(NEW)
    used_at = get_database_time() - timedelta(minutes=7, seconds=30)
    add_key_use(nagra.kid, minutes=8, accepted=1204, accepted_at=used_at, min_age=-2.4, max_age=14.6)
    add_key_use(nagra.kid, minutes=40, refused=3, min_age=0.0, max_age=3.0)
    add_key_use(nagra.kid, minutes=300, accepted=96)
    add_key_use(NEW.kid, minutes=40, accepted=2000)
    add_key_use(NEW.kid, minutes=25 * 60, accepted=1_000_000)
    text = read_text(admin_client, page_of(nagra.kid))
    assert re.search(f"Last accepted token {format_utc(used_at)}, \\d+ minutes ago", text)
    assert re.search(r"Last refused token 20\d\d-[-: \d]+ UTC, 4\d minutes ago", text)
    assert "1,204 tokens accepted, 38 % of those of nagra; 3 refused" in text
    assert "1,300 tokens accepted, 39 % of those of nagra; 3 refused" in text
    assert "-2 seconds to 15 seconds" in text
    assert "clock of the operator" not in text


def test_a_key_that_was_never_used(admin_client: Client, nagra: HeadEnd) -> None:
    add_key(NEW, state=KeyState.STAGED)
    text = read_text(admin_client, page_of(nagra.kid))
    assert (
        "Last accepted token Never Last refused token Never Last hour Not used Last 24 hours Not used" in text
    )
    assert "No token with iat in the last hour" in text
    assert "Never. Let the operator sign a token with it" in read_text(admin_client, page_of(NEW.kid))
    add_key_use(NEW.kid, minutes=1, refused=1)
    text = read_text(admin_client, page_of(NEW.kid))
    assert "Let the operator" not in text
    assert "Last accepted token Not in the last two days" in text
    assert "0 tokens accepted; 1 refused" in text


@pytest.mark.parametrize(
    ("accepted", "share"), [(1, "less than 1 %"), (11, "1 %"), (999, "50 %"), (998_000, "more than 99 %")]
)
def test_a_small_share_is_not_shown_as_zero_and_a_large_one_not_as_all(
    admin_client: Client, nagra: HeadEnd, accepted: int, share: str
) -> None:
    add_key(NEW)
    add_key_use(nagra.kid, accepted=999, refused=10_000)
    add_key_use(NEW.kid, accepted=accepted)
    assert f"accepted, {share} of those of nagra" in read_text(admin_client, page_of(NEW.kid))


def test_an_hour_is_not_cut_short(admin_client: Client, nagra: HeadEnd) -> None:
    """A period that began before the hour may have uses within it."""
    add_key_use(nagra.kid, minutes=69, accepted=1)
    add_key_use(nagra.kid, minutes=71, accepted=10)
    assert "Last hour 1 token accepted, 100 % of those of nagra" in read_text(
        admin_client, page_of(nagra.kid)
    )


def test_the_use_of_other_tenants_does_not_count(
    admin_client: Client, nagra: HeadEnd, sunrise: HeadEnd
) -> None:
    namesake = HeadEnd("sunrise", nagra.kid, bytes(range(1, 33)))
    add_key(namesake)
    add_key(NEW)
    add_key_use(nagra.kid, accepted=1)
    add_key_use(namesake.kid, tenant_id="sunrise", accepted=99)
    assert "1 token accepted, 100 % of those of nagra" in read_text(admin_client, page_of(nagra.kid))
    KeyUse.objects.for_tenant("nagra").delete()
    assert f"{nagra.kid} (never used)" in read_text(admin_client, page_of(NEW.kid, "revoke"))


@pytest.mark.parametrize(
    ("skew", "min_age", "warning"),
    [
        (30, -15.0, None),
        (
            30,
            -16.0,
            "16 seconds ahead of AGS, and 30 seconds are allowed. Set clock_skew of the service to 40",
        ),
        (
            30,
            -90.0,
            "90 seconds ahead of AGS, and 30 seconds are allowed. Set clock_skew of the service to 180",
        ),
        (30, -151.0, "30 seconds are allowed. Ask the operator to synchronize it."),
        (
            30,
            -1.8e12,
            "An iat was more than a day in the future. It must be in seconds,",
        ),
        (300, -140.0, None),
        (0, -0.9, None),
        (0, -2.0, "2 seconds ahead of AGS, and 0 seconds are allowed. Set clock_skew of the service to 10,"),
        (30, 30.0, None),
        (30, 31.0, "No token was younger: the clock of the operator is behind AGS by up to 31 seconds, or"),
    ],
)
def test_the_ages_of_tokens_reveal_the_clock_of_the_operator(
    admin_client: Client, nagra: HeadEnd, skew: int, min_age: float, warning: str | None
) -> None:
    service = Service.objects.for_tenant("nagra").get()
    service.settings["clock_skew"] = skew
    service.save()
    Service.unscoped.bulk_create(
        [
            Service(tenant_id="nagra", strategy=slug, name=slug, settings={"clock_skew": 1}, enabled=False)
            for slug in ("operator_token", "not_installed")
        ]
    )
    add_key_use(nagra.kid, accepted=1, min_age=min_age, max_age=100.0)
    text = read_text(admin_client, page_of(nagra.kid))
    assert (f"{round(min_age)} seconds to 100 seconds Save" in text) == (warning is None)
    assert (warning or "") in text


# Revocation


def revoke(client: Client, kid: str, **form: str) -> Any:
    return client.post(page_of(kid, "revoke"), form)


def test_revoking_a_key_in_use_names_the_traffic_and_needs_a_second_confirmation(
    admin_client: Client, nagra: HeadEnd
) -> None:
    used_at = get_database_time()
    add_key_use(nagra.kid, accepted=12, refused=3, accepted_at=used_at)
    question = read_text(admin_client, page_of(nagra.kid, "revoke"))
    traffic = f"AGS accepted 12 tokens that it signed, 100 % of all, the last one at {format_utc(used_at)}"
    assert traffic in question
    refused = revoke(admin_client, nagra.kid)
    assert refused.status_code == 200
    assert "Not done. Confirm it with the checkbox." in refused.content.decode()
    assert traffic in refused.content.decode()
    assert state_of(nagra.kid) == "active"
    assert nagra.present(nagra.token()).status_code == 200
    assert revoke(admin_client, nagra.kid, confirm="on").status_code == 302
    assert state_of(nagra.kid) == "revoked"
    assert nagra.present(nagra.token()).status_code == 401


@pytest.mark.parametrize("columns", [{"refused": 3}, {"accepted": 1, "minutes": 71}], ids=["refused", "old"])
def test_a_key_that_is_not_in_use_is_revoked_with_one_confirmation(
    admin_client: Client, nagra: HeadEnd, columns: dict[str, Any]
) -> None:
    add_key_use(nagra.kid, **columns)
    assert 'name="confirm"' not in admin_client.get(page_of(nagra.kid, "revoke")).content.decode()
    revoke(admin_client, nagra.kid)
    assert state_of(nagra.kid) == "revoked"


def test_the_question_names_other_keys_that_were_never_used(admin_client: Client, nagra: HeadEnd) -> None:
    add_key(NEW)
    used = HeadEnd("nagra", "used-key", bytes(range(1, 33)))
    add_key(used)
    add_key_use(used.kid, accepted=1)
    question = read_text(admin_client, page_of(nagra.kid, "revoke"))
    assert "Other shared secrets of nagra in force: new-key (never used), used-key." in question


# The form

FORM = {"state": "active", "not_before_0": "", "not_before_1": "", "not_after_0": "", "not_after_1": ""}
RESTRICTIONS = {
    "retiring": {"state": "retiring"},
    "not after": {"not_after_0": "2099-01-01", "not_after_1": "00:00:00"},
    "not before": {"not_before_0": "2020-01-01", "not_before_1": "00:00:00"},
}


@pytest.mark.parametrize("changes", RESTRICTIONS.values(), ids=RESTRICTIONS)
def test_retiring_or_limiting_a_key_in_use_needs_a_second_confirmation(
    admin_client: Client, nagra: HeadEnd, changes: dict[str, str]
) -> None:
    add_key_use(nagra.kid, accepted=12)
    page = page_of(nagra.kid)
    assert "AGS accepted 12 tokens that it signed, 100 % of all" in read_text(admin_client, page)
    before = Key.unscoped.values().get()
    refused = submit_change(admin_client, page, FORM | changes)
    assert "The key is in use. Confirm that its requests may be refused." in refused.content.decode()
    assert Key.unscoped.values().get() == before
    assert submit_change(admin_client, page, FORM | changes | {"confirm": "on"}).status_code == 302
    assert Key.unscoped.values().get() != before


def test_a_change_that_refuses_nothing_needs_no_second_confirmation(
    admin_client: Client, nagra: HeadEnd
) -> None:
    Key.unscoped.update(state="retiring")
    add_key_use(nagra.kid, accepted=12)
    assert submit_change(admin_client, page_of(nagra.kid), FORM).status_code == 302
    assert state_of(nagra.kid) == "active"


def test_a_key_that_is_not_in_use_is_retired_without_a_second_confirmation(
    admin_client: Client, nagra: HeadEnd
) -> None:
    page = page_of(nagra.kid)
    assert 'name="confirm"' not in admin_client.get(page).content.decode()
    assert submit_change(admin_client, page, FORM | {"state": "retiring"}).status_code == 302
    assert state_of(nagra.kid) == "retiring"


def test_staff_who_may_not_change_a_key_in_use_have_nothing_to_confirm(nagra: HeadEnd) -> None:
    add_key_use(nagra.kid, accepted=12)
    page = person("auditor", "nagra").get(page_of(nagra.kid))
    assert page.status_code == 200
    assert 'name="confirm"' not in page.content.decode()


def test_a_revoked_key_has_nothing_to_confirm(admin_client: Client, nagra: HeadEnd) -> None:
    Key.unscoped.update(state="revoked")
    add_key_use(nagra.kid, accepted=12)
    assert 'name="confirm"' not in admin_client.get(page_of(nagra.kid, "revoke")).content.decode()
