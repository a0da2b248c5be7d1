"""The RADIUS server of an operator: FreeRADIUS, with a few subscribers and a line."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.markers import find_program
from tests.support.upstream.deadlines import LONGEST
from tests.support.upstream.process import free_port, run_process

SECRET = "a secret that the two share"
PASSWORD = "right, and with ünïcode"


class FreeRADIUS:
    """A running server. `log` contains the requests."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, 0
        self.log_file = folder / "log"

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the settings of a service that uses this server."""
        return settings_at(self.port, **{"deadline": LONGEST, **changes})


def settings_at(port: int, /, **changes: Any) -> dict[str, Any]:
    """Return the settings of a service that uses a server on this port."""
    return {"host": "127.0.0.1", "port": port, "shared_secret": SECRET, "attempts": 1, **changes}


@contextmanager
def freeradius(users: str) -> Iterator[FreeRADIUS]:
    """Run a server with these users, in the format of the module `files`."""
    with tempfile.TemporaryDirectory(prefix="ags-freeradius-") as name:
        server = FreeRADIUS(Path(name))
        (server.folder / "users").write_text(users)
        path = find_program("freeradius") or find_program("radiusd")
        assert path is not None

        def prepare() -> list[str]:
            server.port = free_port(socket.SOCK_DGRAM)
            words = {"folder": name, "port": server.port, "secret": SECRET}
            (server.folder / "radiusd.conf").write_text(_CONFIGURATION % words)
            return [path, "-f", "-X", "-d", name]

        with run_process(prepare, server.log_file, lambda: "Ready to process requests" in server.log):
            yield server


_CONFIGURATION = """
prefix = /usr
logdir = %(folder)s
run_dir = %(folder)s
libdir = /usr/lib/freeradius
pidfile = %(folder)s/pid
max_request_time = 5
cleanup_delay = 0
max_requests = 256
log {
  destination = stdout
}
security {
  reject_delay = 0
  status_server = yes
}
thread pool {
  start_servers = 1
  max_servers = 2
  min_spare_servers = 1
  max_spare_servers = 2
}
client tests {
  ipaddr = 127.0.0.1
  secret = "%(secret)s"
  require_message_authenticator = yes
}
modules {
  files {
    filename = %(folder)s/users
  }
  pap {
  }
}
server default {
  listen {
    type = auth
    ipaddr = 127.0.0.1
    port = %(port)s
  }
  authorize {
    files
    pap
  }
  authenticate {
    Auth-Type PAP {
      pap
    }
  }
  post-auth {
    update reply {
      Message-Authenticator := 0x00
    }
    Post-Auth-Type REJECT {
      update reply {
        Message-Authenticator := 0x00
      }
    }
  }
}
"""
