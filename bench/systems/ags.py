"""AGS in production, as `make serve` runs it, with the default log level."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from bench.systems import ROOT, WORKERS, Running, System, asking, conversation_factory, free_port, process
from bench.systems.asking import KID, RESOURCE_SECRET, RESOURCE_SERVER, SECRET, SERVICE, TENANT

MAKE_RESOURCE_SERVER = f"""
import hashlib, os
from tenants.models.resource_server import ResourceServer
ResourceServer(
    tenant_id="{TENANT}", client_id="{RESOURCE_SERVER}", name="Platform",
    secret_hash=hashlib.sha256(os.environ["BENCH_RESOURCE_SECRET"].encode()).digest(),
).save()
"""
"""Creates a resource server, for which there is no command: staff use the admin.

It also runs with the code of a release, so it uses no name that has changed.
"""


def configuration(**more: Any) -> dict[str, Any]:
    """Return the configuration of the operator for `manage.py apply`."""
    secret = {"env": "BENCH_SECRET", "encoding": "base64"}
    service = {"name": SERVICE, "strategy": "operator_token", "enabled": True, "display_name": "Operator"}
    key = {"kid": KID, "algorithm": "HS256", "state": "active", "secret": secret}
    # A device refreshes again as soon as it has a response. With a grace period, that is soon rejected.
    rules = {"refresh_grace": 0}
    return {
        "tenants": [{"id": TENANT, "name": "Bench", **rules, "services": [service], "keys": [key], **more}]
    }


def environment(database: str, port: int, **more: str) -> dict[str, str]:
    """Return the environment of a deployment."""
    return {
        "DATABASE_URL": database,
        "SECRET_KEY": secrets.token_urlsafe(48),
        "AGS_ENCRYPTION_KEYS": base64.b64encode(secrets.token_bytes(32)).decode(),
        "AGS_ALLOWED_HOSTS": "127.0.0.1",
        "AGS_TRUSTED_PROXIES": "0",
        "AGS_BIND": f"127.0.0.1:{port}",
        "AGS_WORKERS": str(WORKERS),
        "AGS_DRAIN_SECONDS": "0",
        "AGS_PURGE": "off",  # `bench.growth` measures it; an earlier release only warns of the variable
        "BENCH_SECRET": base64.b64encode(SECRET).decode(),
        "BENCH_RESOURCE_SECRET": RESOURCE_SECRET,
        **more,
    }


def manage(settings: Mapping[str, str], *words: str, folder: Path = ROOT) -> str:
    """Run a command of `manage.py` in a checkout, and return its output."""
    done = subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **settings},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def apply(settings: Mapping[str, str], wanted: dict[str, Any], folder: Path = ROOT) -> None:
    """Migrate the database, and apply a configuration."""
    manage(settings, "migrate", "--verbosity=0", folder=folder)
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "bench.yaml"
        file.write_text(yaml.safe_dump(wanted))
        manage(settings, "apply", str(file), folder=folder)


def prepare(settings: Mapping[str, str], folder: Path = ROOT, wanted: dict[str, Any] | None = None) -> None:
    """Create the operator and a resource server."""
    apply(settings, wanted or configuration(), folder)
    manage(settings, "shell", "--no-imports", "--command", MAKE_RESOURCE_SERVER, folder=folder)


@contextmanager
def start(
    database: str, folder: Path = ROOT, wanted: dict[str, Any] | None = None, **more: str
) -> Iterator[Running]:
    """Start the checkout in a folder, with further environment variables."""
    port = free_port()
    settings = environment(database, port, **more)
    prepare(settings, folder, wanted)
    with process([sys.executable, "manage.py", "serve"], settings, port, folder) as running:
        yield running


WORK = {
    "getSessionToken": conversation_factory(asking.head_ends, asking.head_end),
    "signOnWithSessionToken": asking.signing_on,
    "refresh": asking.staying_signed_on,
    "introspection": conversation_factory(asking.resource_servers, asking.resource_server),
    "discovery": conversation_factory(asking.discoveries, asking.discovery),
}

AGS = System(
    name="AGS",
    version=lambda: f"this checkout; Django {version('django')}, gunicorn {version('gunicorn')}",
    start=start,
    work=WORK,
    rows=(
        "SELECT (SELECT count(*) FROM ags_sessions_sessiontoken)"
        " + (SELECT count(*) + coalesce(sum(generation), 0) FROM ags_sessions_device)"
    ),
)
