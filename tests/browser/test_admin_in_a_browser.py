"""What staff do most, done with a mouse; and the reference of the API, which must not need the internet."""

import base64
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Error, Page, expect

from ags.sessions.models import Event, SessionToken
from tenants.models import Key, KeyState, ResourceServer, Service, Tenant
from tenants.models.signing_key import PUBLICATION_LEAD_TIME
from tests.support.browser import find_chromium, visit
from tests.support.clients import ClientApp, HeadEnd
from tests.support.sign_ons import shift_signing_keys

pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]


def log_in(page: Page) -> None:
    page.goto("/admin/")
    page.get_by_label("Username").fill("staff")
    page.get_by_label("Password").fill("a long staff password")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_text("Site administration")).to_be_visible()


def choose_tenant(page: Page, name: str) -> None:
    """Type into the search, and take what it finds."""
    page.locator(".select2-selection").click()
    page.locator(".select2-search__field").fill(name)
    page.get_by_role("option", name=name, exact=True).click()


def test_a_service_is_added_in_two_steps(live_server: Any, nagra: HeadEnd, staff: User) -> None:
    def script(page: Page) -> None:
        log_in(page)
        page.goto("/admin/tenants/service/add/")
        choose_tenant(page, "nagra")
        page.get_by_text("Operator token (JWT with a shared secret)").click()
        page.get_by_role("button", name="Continue").click()
        page.locator("[name=name]").fill("Box sign-on")
        page.locator("[name=display_name]").fill("Sign on a box")
        page.locator("[name=settings-session_token_ttl]").fill("99999")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_text("Ensure this value is less than or equal to 3600.")).to_be_visible()
        page.locator("[name=settings-session_token_ttl]").fill("120")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_text("was added successfully")).to_be_visible()
        page.get_by_role("link", name="Box sign-on", exact=True).first.click()
        page.get_by_role("link", name="Enable").click()
        page.get_by_role("button", name="Enable").click()
        expect(page.get_by_text("Service Box sign-on of nagra is enabled.")).to_be_visible()

    seen = visit(live_server.url, script)
    assert (seen.complaints, seen.strangers) == ([], [])
    service = Service.unscoped.get(name="Box sign-on")
    assert (service.tenant_id, service.enabled, service.settings["session_token_ttl"]) == ("nagra", True, 120)


def copy_secret(page: Page, secret: str) -> None:
    """Copy it on a narrow screen by its button, and where the browser has no clipboard."""
    wide = page.viewport_size
    assert wide is not None
    page.set_viewport_size({"width": 390, "height": 850})
    assert page.evaluate("document.documentElement.scrollWidth") == 390, "it wraps"
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy the secret").click()
    expect(page.get_by_role("status")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == secret
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.get_by_role("button", name="Copy the secret").click()
    expect(page.get_by_role("status")).to_have_text("Selected: copy it with the keyboard")
    assert page.evaluate("getSelection().toString()") == secret
    page.set_viewport_size(wide)


def test_a_key_is_generated_seen_once_and_revoked(live_server: Any, nagra: HeadEnd, staff: User) -> None:
    shown: dict[str, str] = {}

    def script(page: Page) -> None:
        log_in(page)
        page.goto("/admin/tenants/key/add/?tenant=nagra")
        page.locator("[name=state]").select_option("active")
        page.locator("[name=algorithm]").select_option("HS512")
        page.get_by_text("Generate it;").click()
        page.get_by_role("button", name="Save", exact=True).click()
        shown["kid"] = page.locator("#kid").inner_text()
        shown["secret"] = page.locator("#secret").inner_text()
        copy_secret(page, shown["secret"])
        page.get_by_role("link", name="I have copied it").click()
        assert shown["secret"] not in page.content()
        page.goto("/admin/tenants/key/?tenant__id__exact=nagra")
        page.get_by_role("link", name=shown["kid"]).click()
        page.get_by_role("link", name="Revoke", exact=True).click()
        expect(
            page.get_by_text("Other shared secrets of nagra in force: nagra-key-1 (never used).")
        ).to_be_visible()
        page.get_by_role("button", name="Revoke").click()
        expect(page.get_by_text(f"Key {shown['kid']} of nagra is revoked.")).to_be_visible()
        page.get_by_role("link", name="History").click()
        expect(page.get_by_text("by staff").first).to_be_visible()

    def back(page: Page) -> None:
        log_in(page)
        page.goto("/admin/tenants/key/add/?tenant=nagra")
        page.get_by_text("Generate it;").click()
        page.get_by_role("button", name="Save", exact=True).click()
        page.get_by_role("link", name="I have copied it").click()
        with pytest.raises(Error, match="ERR_CACHE_MISS"):
            page.go_back()  # the browser has not kept the page

    seen = visit(live_server.url, script)
    assert (seen.complaints, seen.strangers) == ([], [])
    key = Key.unscoped.get(kid=shown["kid"])
    assert key.secret() == base64.b64decode(shown["secret"])
    assert key.state == KeyState.REVOKED
    visit(live_server.url, back)


def test_a_session_token_is_looked_up_and_revoked(live_server: Any, nagra: HeadEnd, staff: User) -> None:
    token = nagra.present(nagra.token()).json()["sessionToken"]
    addresses: list[str] = []

    def script(page: Page) -> None:
        page.on("request", lambda request: addresses.append(request.url))
        log_in(page)
        page.get_by_role("link", name="Session tokens").first.click()
        choose_tenant(page, "nagra")
        page.get_by_label("Session token").fill(token)
        page.get_by_role("button", name="Look up").click()
        expect(page.get_by_text("live", exact=True)).to_be_visible()
        assert token not in page.content()
        page.get_by_role("link", name="account-1").click()
        expect(page.get_by_role("link", name="Revoke", exact=True)).to_be_visible()
        page.go_back()
        page.get_by_role("link", name="account-1").click()
        page.get_by_role("link", name="Revoke", exact=True).click()
        page.get_by_role("button", name="Revoke").click()
        expect(page.get_by_text("The session token is revoked.")).to_be_visible()

    seen = visit(live_server.url, script)
    assert (seen.complaints, seen.strangers) == ([], [])
    assert SessionToken.unscoped.get().revoked_at is not None
    assert not [address for address in addresses if token in address]


def test_a_device_is_found_through_its_account_and_disabled(
    live_server: Any, app: ClientApp, staff: User
) -> None:
    app.sign_on(deviceInformation={"deviceType": "<script>document.title='run'</script>"})

    def script(page: Page) -> None:
        log_in(page)
        page.get_by_role("link", name="Accounts").first.click()
        choose_tenant(page, "nagra")
        page.get_by_label("Account ID").fill("account-1")
        page.get_by_role("button", name="Look up").click()
        page.get_by_role("link", name="account-1").click()
        page.get_by_role("link", name=app.tokens["client_id"]).click()
        expect(page.get_by_text("document.title='run'")).to_be_visible()
        expect(page).not_to_have_title("run")
        page.get_by_role("link", name="Disable").click()
        page.get_by_role("button", name="Disable").click()
        expect(page.get_by_text("is disabled.")).to_be_visible()
        expect(page.get_by_text("device disabled")).to_be_visible()
        page.get_by_role("link", name="History").click()
        expect(page.get_by_text("staff").first).to_be_visible()
        page.go_back()
        page.get_by_role("link", name="Enable").click()
        page.get_by_role("button", name="Enable").click()
        expect(page.get_by_text("is enabled.")).to_be_visible()

    seen = visit(live_server.url, script)
    assert (seen.complaints, seen.strangers) == ([], [])
    assert app.refresh().status_code == 200


def test_a_tenants_rules_its_signing_key_and_what_it_issued(
    live_server: Any, app: ClientApp, staff: User
) -> None:
    app.sign_on()
    shift_signing_keys(PUBLICATION_LEAD_TIME)

    def script(page: Page) -> None:
        log_in(page)
        page.goto("/admin/tenants/tenant/nagra/change/")
        page.locator("[name=allowed_origins]").fill("https://tv.example\nno origin")
        page.get_by_role("button", name="Save and continue editing").click()
        expect(page.get_by_text("'no origin' is not an origin")).to_be_visible()
        page.locator("[name=allowed_origins]").fill("https://tv.example")
        page.get_by_role("button", name="Save and continue editing").click()
        expect(page.get_by_text("was changed successfully")).to_be_visible()
        for told in ("signs from now on", "Too early"):
            page.get_by_role("link", name="Rotate signing key").click()
            page.get_by_role("button", name="Rotate signing key").click()
            expect(page.get_by_text(told)).to_be_visible()
        page.get_by_role("link", name="Revoke everything issued").click()
        expect(page.get_by_text("Live sign-ons: 1.")).to_be_visible()
        page.get_by_role("button", name="Revoke everything issued").click()
        expect(page.get_by_text("issued is revoked.")).to_be_visible()

    seen = visit(live_server.url, script)
    assert (seen.complaints, seen.strangers) == ([], [])
    assert Tenant.objects.get().allowed_origins == ["https://tv.example"]
    assert app.refresh().status_code == 401


def test_the_secret_of_a_resource_server_is_seen_once(live_server: Any, nagra: HeadEnd, staff: User) -> None:
    def script(page: Page) -> None:
        log_in(page)
        page.goto("/admin/tenants/resourceserver/?tenant__id__exact=nagra")
        page.get_by_role("link", name="Add one").click()
        page.locator("[name=name]").fill("Entitlements")
        page.get_by_role("button", name="Save", exact=True).click()
        secret = page.locator("#secret").inner_text()
        assert len(secret) == 43
        page.get_by_role("link", name="I have copied it").click()
        assert secret not in page.content()
        with pytest.raises(Error, match="ERR_CACHE_MISS"):
            page.go_back()  # the browser has not kept the page

    visit(live_server.url, script)
    assert ResourceServer.unscoped.get().name == "Entitlements"


def test_the_reference_of_the_api_needs_no_other_site(live_server: Any, db: None) -> None:
    def script(page: Page) -> None:
        page.goto("/docs/")
        operation = page.get_by_text("/ags/getSessionToken")
        expect(operation).to_be_visible()
        operation.click()
        expect(page.get_by_text("nv-tenant-id").first).to_be_visible()

    seen = visit(live_server.url, script)
    assert (seen.complaints, seen.strangers) == ([], [])


def test_without_a_browser_these_tests_fail_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("AGS_TEST_CHROMIUM", raising=False)
    with pytest.raises(pytest.fail.Exception, match="No browser: install chromium"):
        find_chromium()


def test_the_audit_trail_fits_a_narrow_screen(live_server: Any, nagra: HeadEnd, staff: User) -> None:
    long = {"account_id": "A" * 255, "correlation_id": "c" * 128, "kid": "k" * 128, "reason": "r" * 64}
    details = {"before": {"name": "b" * 400}, "after": {"name": "a" * 400}}
    Event.unscoped.create(tenant_id="nagra", kind="staff_action", actor="x" * 255, details=details, **long)
    widths: list[int] = []

    def script(page: Page) -> None:
        log_in(page)
        page.get_by_role("link", name="Audit trail").first.click()
        choose_tenant(page, "nagra")
        page.get_by_role("button", name="Look up").click()
        expect(page.get_by_role("cell", name="Action of staff")).to_be_visible()
        page.set_viewport_size({"width": 390, "height": 850})
        widths.append(page.evaluate("document.documentElement.scrollWidth"))
        page.get_by_role("row", name="Action of staff").get_by_role("link").first.click()
        expect(page.get_by_role("cell", name="a" * 400)).to_be_visible()
        widths.append(page.evaluate("document.documentElement.scrollWidth"))

    seen = visit(live_server.url, script)
    assert (seen.complaints, seen.strangers) == ([], [])
    assert widths == [390, 390], "tables scroll, and long values wrap"


def test_an_explanation_fits_a_narrow_screen(live_server: Any, nagra: HeadEnd, staff: User) -> None:
    facts = {"name": "exp", "exp": -312, "skew": 30, "audience": ["a" * 64] * 8, "problem": "p" * 200}
    details = {"method": "POST", "route": "/ags/getSessionToken", "status": 401, "facts": facts}
    long = {"correlation_id": "c" * 128, "kid": "k" * 128, "service": "s" * 128, "reason": "token_expired"}
    Event.unscoped.create(tenant_id="nagra", kind="refused", details=details, **long)
    widths: list[int] = []

    def script(page: Page) -> None:
        log_in(page)
        page.get_by_role("link", name="Explain a request").first.click()
        page.set_viewport_size({"width": 390, "height": 850})
        page.get_by_label("Correlation ID").fill(long["correlation_id"])
        page.get_by_role("button", name="Look up").click()
        expect(page.get_by_text("The token expired 312 seconds before the clock of AGS")).to_be_visible()
        expect(page.get_by_role("listitem").filter(has_text="FAILED")).to_have_text(
            "FAILED times of the token"
        )
        widths.append(page.evaluate("document.documentElement.scrollWidth"))

    seen = visit(live_server.url, script)
    assert (seen.complaints, seen.strangers) == ([], [])
    assert widths == [390], "long values wrap"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_link_is_created_revoked_and_read_on_a_narrow_screen(
    live_server: Any, nagra: HeadEnd, staff: User, scheme: Any
) -> None:
    facts = {"name": "exp", "exp": -312, "skew": 30, "audience": ["a" * 64] * 8}
    details = {"method": "POST", "route": "/ags/getSessionToken", "status": 401, "facts": facts}
    names = {"correlation_id": "c" * 128, "kid": "k" * 128, "reason": "token_expired"}
    Event.unscoped.create(tenant_id="nagra", kind="refused", details=details, **names)

    def script(page: Page) -> None:
        log_in(page)
        page.get_by_role("link", name="Explain a request").first.click()
        page.get_by_label("Correlation ID").fill(names["correlation_id"])
        page.get_by_role("button", name="Look up").click()
        page.get_by_role("button", name="Create a link for the other company").click()
        url = page.locator("#link").inner_text()
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Copy the link").click()
        expect(page.get_by_role("status")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == url
        page.get_by_role("link", name="I have copied it").click()
        assert url not in page.content()
        staff_page = page.url
        page.set_viewport_size({"width": 390, "height": 850})
        page.emulate_media(color_scheme=scheme)
        page.goto(url)
        expect(page.get_by_text("The token expired 312 seconds before the clock of AGS")).to_be_visible()
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert color == {"light": "rgb(255, 255, 255)", "dark": "rgb(24, 24, 27)"}[scheme], "it is styled"
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.set_viewport_size({"width": 1300, "height": 850})
        page.goto(staff_page)
        page.get_by_role("link", name="Revoke", exact=True).click()
        page.get_by_role("button", name="Revoke").click()
        expect(page.get_by_text("The link is revoked.")).to_be_visible()

    seen = visit(live_server.url, script)
    assert (seen.complaints, seen.strangers) == ([], [])
    assert Event.unscoped.filter(kind="explanation_opened").count() == 1
