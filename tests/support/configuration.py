"""The configuration of a deployment: environment variables, encryption keys, and files for `apply`."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from django.core.management import call_command

from tests.settings import ENVIRONMENT
from tests.support.paths import ROOT

EXAMPLE = (ROOT / ".env.example").read_text()


def run_manage_with(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run manage.py with only these environment variables."""
    return subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), *words],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )


def variables_in_the_example() -> set[str]:
    return set(re.findall(r"^([A-Z_]+)=", EXAMPLE, re.MULTILINE))


def example_variables(**values: str) -> dict[str, str]:
    defaults = dict(line.split("=", 1) for line in EXAMPLE.splitlines() if re.match(r"[A-Z_]+=", line))
    return defaults | values


REQUIRED_VARIABLES = {
    "SECRET_KEY": ENVIRONMENT["SECRET_KEY"],
    "AGS_ENCRYPTION_KEYS": ENVIRONMENT["AGS_ENCRYPTION_KEYS"],
    "DATABASE_URL": "postgres://ags:pa55word@127.0.0.1:1/ags",
}

ENCRYPTION_KEY = base64.b64decode(ENVIRONMENT["AGS_ENCRYPTION_KEYS"])
NEW_ENCRYPTION_KEY = bytes(range(100, 132))


def apply_tenant(folder: Path, **members: Any) -> str:
    """Apply a file with these members of the tenant nagra; return the output."""
    file, out = folder / "tenants.yaml", io.StringIO()
    file.write_text(yaml.safe_dump({"tenants": [{"id": "nagra", **members}]}))
    call_command("apply", str(file), stdout=out)
    return out.getvalue()
