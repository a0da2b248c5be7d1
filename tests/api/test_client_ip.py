"""The address of the client in X-Forwarded-For."""

from __future__ import annotations

from typing import Any

import pytest

from ags.api.client_ip import get_client_address

PEER = "192.0.2.9"

LONGEST = "[0000:0000:0000:0000:0000:ffff:255.255.255.255%eth0123456789ab]:65535"


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("203.0.113.1", "203.0.113.1"),
        (f"198.51.100.1, {LONGEST}", "::ffff:255.255.255.255"),
        (f"[fe80::1%{'z' * 8000}]", PEER),
        ("1" * 8000, PEER),
    ],
)
def test_only_a_text_as_long_as_an_address_is_read(settings: Any, forwarded: str, address: str) -> None:
    settings.AGS_TRUSTED_PROXIES = 1
    found = get_client_address({"HTTP_X_FORWARDED_FOR": forwarded, "REMOTE_ADDR": PEER})
    assert found == get_client_address({"REMOTE_ADDR": address})
