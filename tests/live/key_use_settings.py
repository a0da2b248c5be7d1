"""Settings with which a server stores the use of keys often, and waits for it when it stops."""

from ags.operations import key_use
from ags.settings import *  # noqa: F403
from tests.support.waiting import PATIENCE

key_use.STORE_INTERVAL = 0.1
key_use.CLOSE_TIMEOUT = PATIENCE
