"""Rotate the key of the tenant continuously, as automation does: `python -m bench.growth.rotate_key`.

Each step applies a configuration file: the next key is staged, the staged key becomes active, the active key
retires, and the retiring key is revoked. Prints the number of the active key once every process has loaded
it, so that the head-end can sign with it.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import django
import yaml

from bench.growth.populate import key
from bench.systems.ags import TENANT

KNOWN_AFTER = 1.1
"""Seconds until the snapshot of every process has the active key."""

ANSWERED_AFTER = 0.5
"""Seconds until each request that is signed with the key before has a response."""


def kid(number: int) -> str:
    """Return the `kid` of a key."""
    return f"rotating-{number}"


def main() -> None:
    """Rotate until the process is terminated."""
    os.nice(19)  # automation runs on another machine
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ags.settings")
    django.setup()
    from tenants.config_file.apply import apply
    from tenants.config_file.schema import parse_file

    for active in itertools.count():
        states = {active + 1: "staged", active: "active", active - 1: "retiring", active - 2: "revoked"}
        keys = [key(kid(number), state=state) for number, state in states.items() if number >= 0]
        file = parse_file(yaml.safe_dump({"tenants": [{"id": TENANT, "keys": keys}]}).encode())
        apply(file.tenants, Path())
        time.sleep(KNOWN_AFTER)
        print(active, flush=True)
        time.sleep(ANSWERED_AFTER)


if __name__ == "__main__":
    main()
