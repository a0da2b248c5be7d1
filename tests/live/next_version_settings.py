"""Settings with the migrations of a fictitious next version."""

from ags.settings import *  # noqa: F403

MIGRATION_MODULES = {"ags_sessions": "tests.live.next_version"}
