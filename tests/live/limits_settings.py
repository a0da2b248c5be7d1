"""Settings with limits whose windows no test outlives. REDIS_TIMEOUT: seconds to wait for Redis."""

import os

from ags.limits import LIMITERS, redis
from ags.settings import *  # noqa: F403

for _limiter in LIMITERS:
    _limiter.seconds = _limiter.local.seconds = 3600

if "REDIS_TIMEOUT" in os.environ:
    redis.TIMEOUT = redis.PROBE_TIMEOUT = float(os.environ["REDIS_TIMEOUT"])
