"""Settings with which a server purges often, or pauses after each batch until it stops.

`AGS_TEST_PURGE_PAUSE`: seconds of each pause, which is otherwise short. `AGS_TEST_LEASE`: seconds after which
the lease of a killed server expires.
"""

import os
from datetime import timedelta

from django.apps import AppConfig

from ags.settings import *  # noqa: F403
from ags.settings import INSTALLED_APPS
from tests.support.waiting import PATIENCE

PAUSE = float(os.environ.get("AGS_TEST_PURGE_PAUSE", "0"))


class PurgeOften(AppConfig):
    name = "tests.live"
    label = "purge_often"

    def ready(self) -> None:
        from ags.database import background
        from ags.operations import automatic_purge, lease, purge, purge_counts

        automatic_purge.POLL_INTERVAL = automatic_purge.TURN_GAP = 0.05
        automatic_purge.INTERVAL = timedelta(0)  # type: ignore[attr-defined]
        automatic_purge.PATIENCE = 0.1
        purge_counts.MIN_DEAD = 1
        background.LOCK_TIMEOUT = f"{PATIENCE:.0f}s"
        if PAUSE:
            purge.PAUSE_FACTOR, purge.MAX_PAUSE = 1e9, PAUSE
            automatic_purge.TURN = 1e9
        lease.LIFETIME = timedelta(seconds=float(os.environ.get("AGS_TEST_LEASE", PATIENCE)))
        lease.RENEWAL_INTERVAL = lease.LIFETIME / 4


INSTALLED_APPS = [*INSTALLED_APPS, "tests.live.purge_settings.PurgeOften"]
