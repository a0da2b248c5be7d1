"""Compare the time to reject an unknown user and a wrong password: `python -m bench.wrong_password`.

The providers that receive passwords send them to real servers on this machine, in turn for a known and for an
unknown user, each with a wrong password. Prints the medians and their ratio, and as a measure of noise the
ratio of two halves of the calls for the known user.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from tenants.services.settings import clean_settings

CALLS = 400
"""Calls of each kind."""


def main() -> int:
    """Measure and print."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    with ExitStack() as servers:
        for slug, settings in _asked(servers):
            _measure(slug, _login(slug, settings))
    return 0


def _asked(servers: ExitStack) -> list[tuple[str, dict[str, Any]]]:
    from tests.support.upstream.authority import authority
    from tests.support.upstream.freeradius import freeradius
    from tests.support.upstream.https import HTTPSServer, as_json
    from tests.support.upstream.slapd import person, slapd

    directory = servers.enter_context(slapd(person("anna", employeeNumber="A-1")))
    radius = servers.enter_context(freeradius('anna Cleartext-Password := "right"\n'))
    login = servers.enter_context(HTTPSServer())
    login.replies["/login"] = as_json({"reason": "invalid_credentials"}, 401)
    at_login = {
        "address": f"{login.url}/login",
        "authentication": "none",
        "ca_certificates": authority().certificate,
    }
    return [("operator_login", at_login), ("ldap", directory.settings()), ("radius", radius.settings())]


def _login(slug: str, settings: dict[str, Any]) -> Callable[[str], float]:
    from providers.contract import FailureReason, KeyRing, VerificationFailed
    from providers.registry import strategies

    strategy = strategies()[slug]
    _, cleaned = clean_settings(strategy, settings)

    def login(username: str) -> float:
        """Return the time until the rejection in milliseconds."""
        began = time.perf_counter()
        try:
            strategy.verify({"Username": username, "Password": "wrong"}, cleaned, KeyRing("bench", {}))
        except VerificationFailed as refused:
            if refused.reason is FailureReason.CREDENTIAL_UNKNOWN:
                return (time.perf_counter() - began) * 1000
        raise AssertionError("a wrong password was not rejected as one")

    return login


def _measure(slug: str, login: Callable[[str], float]) -> None:
    for _ in range(20):
        login("anna")
    known, unknown = [], []
    for _ in range(CALLS):
        known.append(login("anna"))
        unknown.append(login("nina"))
    noise = statistics.median(known[::2]) / statistics.median(known[1::2])
    ratio = statistics.median(unknown) / statistics.median(known)
    print(
        f"{slug:15} wrong password {statistics.median(known):6.2f} ms, "
        f"unknown user {statistics.median(unknown):6.2f} ms: {ratio:.3f} (noise {noise:.3f})",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
