"""`make audit`: look up the locked packages in the advisories of OSV, with pip-audit.

This needs the service of OSV; `--reachable` only checks that there is a connection. The repository has no
list of advisories, because such a list is out of date the day after its commit, and an audit that passes on
an old list misleads.

Exit statuses: 0 without advisories, 1 if pip-audit found one or failed, 2 if the service cannot be reached.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

SERVICE = "https://api.osv.dev/v1/query"
TIMEOUT = 15.0
"""Seconds to wait for the service."""

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements"


def why_unreachable(service: str) -> str:
    """Return why there is no connection to the service, or an empty string if there is one."""
    try:
        urllib.request.urlopen(service, timeout=TIMEOUT).close()
    except urllib.error.HTTPError:  # it answers
        return ""
    except urllib.error.URLError as error:
        return str(error.reason)
    except OSError as error:
        return str(error)
    return ""


def audit(service: str) -> int:
    """Run pip-audit on each file of locked requirements; return its exit status."""
    files = [f"--requirement={file}" for file in sorted(REQUIREMENTS.glob("*.txt"))]
    options = ["--disable-pip", "--progress-spinner=off", "--vulnerability-service=osv"]
    command = [sys.executable, "-m", "pip_audit", *options, f"--osv-url={service}", *files]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    """Check that the service can be reached, and unless only that is wanted, audit."""
    parser = argparse.ArgumentParser(description="Look up the locked packages in the advisories of OSV.")
    parser.add_argument("--reachable", action="store_true", help="only check that the service can be reached")
    parser.add_argument("--service", default=SERVICE, help="URL of the OSV API (%(default)s)")
    options = parser.parse_args()
    if reason := why_unreachable(options.service):
        print(f"Not audited: {options.service} cannot be reached ({reason}).", file=sys.stderr)
        print("Advisories change daily, so none are kept here: the audit needs the network.", file=sys.stderr)
        return 2
    return 0 if options.reachable else audit(options.service)


if __name__ == "__main__":
    sys.exit(main())
