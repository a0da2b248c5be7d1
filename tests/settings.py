"""The settings of the tests: those of the project, in an environment of their own."""

import base64
import os
import tempfile
from pathlib import Path

# Every provider is held to the contract: each folder of them, and what AGS_PROVIDERS names from elsewhere.
FOLDERS = sorted(Path(__file__).resolve().parent.parent.glob("providers/*/apps.py"))
SHIPPED = [f"providers.{app.parent.name}" for app in FOLDERS]
NAMED = [word.strip() for word in os.environ.get("AGS_PROVIDERS", "").split(",")]
PROVIDERS = [*SHIPPED, *(word for word in NAMED if word and not word.startswith("providers."))]

ENVIRONMENT = {
    "SECRET_KEY": "only-for-the-tests-" + "0123456789" * 4,
    "AGS_ENCRYPTION_KEYS": base64.b64encode(bytes(range(32))).decode(),
    "AGS_PROVIDERS": ",".join(PROVIDERS),
    "AGS_ALLOWED_HOSTS": "testserver,localhost,127.0.0.1",
    "AGS_TRUSTED_PROXIES": "0",
    "AGS_DRAIN_SECONDS": "0",
    "AGS_PURGE": "off",  # tests count rows and statements; those of the purge turn it on
    "AGS_PRIVATE_UPSTREAMS": "127.0.0.0/8,::1/128",
    "DEBUG": "on",  # the dummy provider demands it
}
os.environ.update(ENVIRONMENT)
os.environ.setdefault("DATABASE_URL", f"sqlite:///{tempfile.gettempdir()}/ags-tests-unused.sqlite3")

from ags.settings import *  # noqa: E402, F403
from ags.settings import DATABASES, INSTALLED_APPS  # noqa: E402

# `make lint` runs its command, lintmigrations, under these settings.
INSTALLED_APPS = [*INSTALLED_APPS, "django_migration_linter"]

if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # A file, not memory: the server processes of the tests open it too.
    DATABASES["default"]["TEST"] = {"NAME": f"{tempfile.gettempdir()}/ags-tests-{os.getpid()}.sqlite3"}

# Hashing staff passwords slowly is not what is tested.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# Each client of the tests would list all static files before its first request: 0.1 s. So they are found when
# they are asked for. Servers that tests start run as settings.py says.
WHITENOISE_AUTOREFRESH = True
