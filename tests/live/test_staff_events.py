"""Events of staff on a real server, which handles pages in several threads."""

from concurrent.futures import ThreadPoolExecutor

from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User

from ags.sessions.models import Event
from tenants.models import Service
from tests.support.clients import HeadEnd
from tests.support.operators import create_operator
from tests.support.server import ServerProcess
from tests.upgrade.staff_client import StaffClient

PASSWORD = "a long staff password"
CHANGES = 6


def change_service(server: ServerProcess, username: str, service_id: int) -> None:
    """Log in, disable and enable the service, and log out."""
    client = StaffClient(server.url)
    client._opener.addheaders = [("x-correlation-id", f"of-{username}")]
    assert client.log_in(username, PASSWORD)[0] == 200
    for number in range(CHANGES):
        act = ("disable", "enable")[number % 2]
        assert client.post(f"/admin/tenants/service/{service_id}/{act}/")[0] == 200
    client.post("/admin/logout/")


def test_events_of_concurrent_requests_have_their_own_actor(
    two_with_dummy: tuple[ServerProcess, ServerProcess], nagra: HeadEnd
) -> None:
    server, _ = two_with_dummy
    other = create_operator(f"{nagra.tenant_id}-other", bytes(range(1, 33)))
    tenants = {"staff-1": nagra.tenant_id, "staff-2": other.tenant_id}
    password = PBKDF2PasswordHasher().encode(PASSWORD, "a-salt-of-22-characters")
    for username in tenants:
        User.objects.create(username=username, password=password, is_staff=True, is_superuser=True)
    services = [Service.objects.for_tenant(tenant_id).get().pk for tenant_id in tenants.values()]
    with ThreadPoolExecutor() as executor:
        list(executor.map(change_service, [server] * 2, tenants, services))
    for username, tenant_id in tenants.items():
        events = Event.unscoped.filter(correlation_id=f"of-{username}").order_by("pk")
        login, *changes, logout = events
        assert (login.reason, logout.reason) == ("login", "logout")
        assert [event.tenant_id for event in changes] == [tenant_id] * CHANGES
        assert [event.details["after"] for event in changes] == [{"enabled": False}, {"enabled": True}] * (
            CHANGES // 2
        )
        assert {event.actor for event in events} == {username}
        assert {event.client_address for event in events} == {"127.0.0.1"}
