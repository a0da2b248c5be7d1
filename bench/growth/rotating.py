"""Rotates a key of the tenant again and again, as automation does: `python -m bench.growth.rotating`.

Each step is one configuration file, applied by what `manage.py apply` calls: the next key is staged, the one
that was staged becomes active, the one that was active retires, and the one that was retiring is revoked.
It says which key the head-end signs with from then on: the active one, once every process knows that.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import django
import yaml

from bench.growth.filled import key
from bench.systems.ags import TENANT

KNOWN_AFTER = 1.1
"""Seconds after which the snapshot of every process has seen that a key is active."""

ANSWERED_AFTER = 0.5
"""Seconds after which what was signed with the key before has been answered, so that that one can go."""


def kid(number: int) -> str:
    """Return what a key of that number is called."""
    return f"rotating-{number}"


def main() -> None:
    """Rotate until somebody ends it."""
    os.nice(19)  # automation has a machine of its own
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ags.settings")
    django.setup()
    from tenants.config_file.apply import apply
    from tenants.config_file.schema import parse_tenants

    for active in itertools.count():
        states = {active + 1: "staged", active: "active", active - 1: "retiring", active - 2: "revoked"}
        keys = [key(kid(number), state=state) for number, state in states.items() if number >= 0]
        apply(parse_tenants(yaml.safe_dump({"tenants": [{"id": TENANT, "keys": keys}]}).encode()), Path())
        time.sleep(KNOWN_AFTER)
        print(active, flush=True)
        time.sleep(ANSWERED_AFTER)


if __name__ == "__main__":
    main()
