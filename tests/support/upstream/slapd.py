"""The directory of an operator: the server of OpenLDAP, with a few subscribers."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.markers import find_program
from tests.support.upstream.authority import Authority, authority
from tests.support.upstream.deadlines import LONGEST
from tests.support.upstream.process import accepts_connections, free_port, run_process
from tests.support.waiting import PATIENCE

BASE = "ou=people,dc=operator,dc=example"
SERVICE = "cn=ags,dc=operator,dc=example"
SERVICE_PASSWORD = "password of the service account"
PASSWORD = "right, and with ünïcode"


class Slapd:
    """A running server. `log` contains the requests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clear = self.tls = 0
        self.log_file = folder / "log"

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the settings of a service that uses this server, by default over LDAPS."""
        port = self.clear if changes.get("transport") == "starttls" else self.tls
        return settings_at(port, **changes)


def settings_at(port: int, /, **changes: Any) -> dict[str, Any]:
    """Return the settings of a service that uses a directory on this port."""
    return {
        "host": "127.0.0.1",
        "port": port,
        "ca_certificates": authority().certificate,
        "bind_dn": SERVICE,
        "bind_password": SERVICE_PASSWORD,
        "search_base": BASE,
        "account_attribute": "employeeNumber",
        "deadline": LONGEST,
        **changes,
    }


def entry(dn: str, *classes: str, **attributes: str | bytes | list[str | bytes]) -> str:
    """Return an entry in LDIF."""
    import base64

    lines = [f"dn: {dn}", *(f"objectClass: {name}" for name in classes)]
    for name, given in attributes.items():
        for value in given if isinstance(given, list) else [given]:
            raw = value if isinstance(value, bytes) else value.encode()
            lines.append(f"{name}:: {base64.b64encode(raw).decode()}")
    return "\n".join(lines) + "\n\n"


def person(name: str, kind: str = "inetOrgPerson", **attributes: Any) -> str:
    """Return a subscriber in LDIF. The default password is `PASSWORD`."""
    given = {"uid": name, "cn": name, "sn": name, "userPassword": PASSWORD, **attributes}
    left = {name: value for name, value in given.items() if value is not None}
    escaped = name.replace("\\", r"\\")
    return entry(f"cn={escaped},{BASE}", kind, **left)


@contextmanager
def slapd(entries: str, *, issuer: Authority | None = None, tls: bool = True) -> Iterator[Slapd]:
    """Run a server with these entries. Without `tls`, it refuses StartTLS."""
    signer = issuer or authority()
    with tempfile.TemporaryDirectory(prefix="ags-slapd-") as name:
        server = Slapd(Path(name))
        data = server.folder / "data"
        data.mkdir()
        secured = (
            f"TLSCertificateFile {signer.server_certificate}\nTLSCertificateKeyFile {signer.server_key}\n"
        )
        configuration = server.folder / "slapd.conf"
        configuration.write_text(_CONFIGURATION.format(data=data, secured=secured if tls else ""))
        base = entry("dc=operator,dc=example", "dcObject", "organization", dc="operator", o="Operator")
        base += entry(BASE, "organizationalUnit", ou="people")
        base += entry(
            SERVICE, "organizationalRole", "simpleSecurityObject", cn="ags", userPassword=SERVICE_PASSWORD
        )
        path = find_program("slapd")
        assert path is not None
        subprocess.run(
            [path, "-T", "add", "-f", str(configuration)],
            input=(base + entries).encode(),
            check=True,
            capture_output=True,
            timeout=PATIENCE,
        )

        def prepare() -> list[str]:
            server.clear, server.tls = free_port(), free_port()
            addresses = f"ldap://127.0.0.1:{server.clear}/"
            if tls:
                addresses += f" ldaps://127.0.0.1:{server.tls}/"
            return [path, "-f", str(configuration), "-h", addresses, "-d", "stats"]

        def is_ready() -> bool:
            # Before it has bound its ports, another process may answer there.
            return "slapd starting" in server.log and accepts_connections(server.clear)

        with run_process(prepare, server.log_file, is_ready):
            yield server


_CONFIGURATION = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
attributetype ( 1.2.840.113556.1.4.221 NAME 'sAMAccountName' SUP name SINGLE-VALUE )
attributetype ( 1.2.840.113556.1.4.656 NAME 'userPrincipalName' SUP name SINGLE-VALUE )
objectclass ( 1.2.840.113556.1.5.9 NAME 'user' SUP inetOrgPerson STRUCTURAL
  MAY ( sAMAccountName $ userPrincipalName ) )
modulepath /usr/lib/ldap
moduleload back_mdb
{secured}
security simple_bind=128
sizelimit 100
database mdb
suffix dc=operator,dc=example
directory {data}
access to attrs=userPassword by anonymous auth by * none
access to dn.subtree="ou=open,dc=operator,dc=example" by * read
access to * by dn.exact="cn=ags,dc=operator,dc=example" read by * none
"""
