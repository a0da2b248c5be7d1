"""`make demo` and `make run`: set up AGS under var/, start it, and act as its head-end and client app."""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import client_app
import headend
import journey
import jwt
from headend import HeadEnd

ROOT = Path(__file__).resolve().parent.parent
STAFF = "staff"
TENANT = "nagra"  # the tenant and the key of demo.yaml
KID = "70646948-d6fb-4ce8-a433-52a14ee2fa0a"
START_LIMIT = 60  # seconds


class Demo:
    """A folder with a database and its secrets, created on the first run and kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.umask(0o077)  # for the server and the commands of manage.py as well
        folder.mkdir(parents=True, exist_ok=True)
        self._restrict_permissions()
        self.secrets = self._load_secrets()
        # Settings of the shell, such as its DATABASE_URL, have no effect.
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AGS_") and name.removesuffix("_FILE") not in self.secrets
        }
        self.environment = {
            **inherited,
            **self.secrets,
            "DATABASE_URL": f"sqlite:///{folder / 'demo.sqlite3'}",
            "DJANGO_SETTINGS_MODULE": "ags.settings",
            "DEBUG": "on",
            "AGS_WORKERS": "2",
            "AGS_DRAIN_SECONDS": "0",
        }
        self.environment.pop("DATABASE_URL_FILE", None)

    def _restrict_permissions(self) -> None:
        """Restrict files that an earlier run created under another umask."""
        if (self.folder / "demo.env").exists():
            self.folder.chmod(0o700)
        for path in (*self.folder.glob("demo.*"), *self.folder.glob("staff")):
            path.chmod(0o600)

    def _load_secrets(self) -> dict[str, str]:
        path = self.folder / "demo.env"
        if not path.exists():
            values = {
                "SECRET_KEY": secrets.token_urlsafe(48),
                "AGS_ENCRYPTION_KEYS": base64.b64encode(secrets.token_bytes(32)).decode(),
                "NAGRA_SECRET": secrets.token_urlsafe(32),
                "DJANGO_SUPERUSER_PASSWORD": secrets.token_urlsafe(12),
            }
            # Renamed, so that the file is complete or does not exist.
            draft = path.with_suffix(".new")
            draft.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
            draft.rename(path)
        lines = path.read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def prepare(self) -> None:
        """Migrate, apply the example, and create the user of staff."""
        self._manage("migrate", "--verbosity=0")
        self._manage("apply", str(ROOT / "examples" / "demo.yaml"))
        if not (self.folder / "staff").exists():
            self._manage("createsuperuser", "--noinput", f"--username={STAFF}", "--email=")
            (self.folder / "staff").touch()

    def _manage(self, *arguments: str) -> None:
        command = [sys.executable, str(ROOT / "manage.py"), *arguments]
        done = subprocess.run(
            command, env=self.environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if done.returncode:
            sys.exit(f"{done.stdout.decode()}demo: manage.py {arguments[0]} failed")

    @contextmanager
    def server(self, port: int, *, quiet: bool) -> Iterator[str]:
        """Run the server, and yield its URL once it is ready."""
        url = f"http://127.0.0.1:{port}"
        environment = {**self.environment, "AGS_BIND": f"127.0.0.1:{port}"}
        with (self.folder / "demo.log").open("ab") as log:
            # In a session of its own: an interrupt at the terminal reaches only this process, which stops it.
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "serve"],
                env=environment,
                stderr=log if quiet else None,
                start_new_session=True,
            )
        try:
            self._await_ready(process, url)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=25)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _await_ready(self, process: subprocess.Popen[bytes], url: str) -> None:
        end = time.monotonic() + START_LIMIT
        while process.poll() is None and time.monotonic() < end:
            try:
                with urlopen(f"{url}/readyz", timeout=2):
                    return
            except (URLError, OSError):
                time.sleep(0.05)
        sys.exit(f"demo: the server did not start; see {self.folder / 'demo.log'}")

    def show_journey(self, url: str) -> None:
        """Act as the head-end, the client app and a resource server."""
        head_end = HeadEnd(url, TENANT, KID, self.secrets["NAGRA_SECRET"].encode())
        try:
            journey.show_journey(head_end)
        except (headend.RequestRejected, client_app.RequestRejected, jwt.PyJWTError) as error:
            sys.exit(f"demo: {error}")


def free_port(preferred: int = 0) -> int:
    """Return the preferred port if it is free, otherwise any free port."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    sys.exit("demo: there is no free port")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Set up AGS under var/, start it, and act as its head-end and client app."
    )
    parser.add_argument("--keep-serving", action="store_true", help="serve until interrupted")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "var", help="the folder of the database and the secrets"
    )
    parser.add_argument(
        "--port", type=int, help="the port, if it is free (default with --keep-serving: 8000)"
    )
    arguments = parser.parse_args()
    # A shell ignores interrupts for background processes. Both signals stop the server, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    preferred = arguments.port
    if preferred is None:
        preferred = 8000 if arguments.keep_serving else 0
    demo = Demo(arguments.folder.resolve())
    demo.prepare()
    port = free_port(preferred)
    try:
        with demo.server(port, quiet=not arguments.keep_serving) as url:
            demo.show_journey(url)
            if arguments.keep_serving:
                print(f"Admin      {url}/admin/")
                print(f"           user {STAFF}, password {demo.secrets['DJANGO_SUPERUSER_PASSWORD']}")
                print(f"Reference  {url}/docs/")
                print("\nServing until interrupted (Ctrl-C).\n", flush=True)
                signal.pause()
        print("The server is stopped. `make run` keeps one running, for the commands above and the admin.")
    except KeyboardInterrupt:
        print("\nStopped.")


if __name__ == "__main__":
    main()
