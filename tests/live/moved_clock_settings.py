"""Settings of a server whose clock differs by MOVED_CLOCK seconds. Elapsed time is not affected."""

import os
from datetime import UTC, datetime, timedelta

import time_machine

from tests.live.key_use_settings import *  # noqa: F403

_MOVED = timedelta(seconds=float(os.environ["MOVED_CLOCK"]))
time_machine.travel(datetime.now(UTC) + _MOVED, tick=True).start()
