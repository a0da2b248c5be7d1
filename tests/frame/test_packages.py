"""tests/packages.sh installs packages, and leaves the machine as it was where it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "packages.sh"
REFUSED = "101"
OWN_POLICY = "#!/bin/sh\nexit 104\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="not on this machine: root")


class Machine:
    """A machine on which no package is installed, as far as the script can see."""

    def __init__(self, folder: Path) -> None:
        self.policy, self.seen, self._programs = folder / "policy-rc.d", folder / "seen", folder / "bin"
        self._programs.mkdir()
        self.has("dpkg-query", "exit 1")
        self.has("dpkg", "true")
        # What dpkg would be told: whether a server may start.
        self.has("apt-get", f'case "$1" in install) sh {self.policy}; echo $? "$@" >{self.seen};; esac')

    def has(self, program: str, script: str) -> None:
        path = self._programs / program
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def install(self, *packages: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(SCRIPT), *packages],
            env={"PATH": f"{self._programs}:{os.environ['PATH']}", "AGS_TEST_POLICY": str(self.policy)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def files(self) -> set[str]:
        return {path.name for path in self.policy.parent.glob("policy*")}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@needs_root
def test_no_server_may_start_while_it_installs_and_no_policy_stays(machine: Machine) -> None:
    assert machine.install("slapd", "gcc").returncode == 0
    status, *words = machine.seen.read_text().split()
    assert (status, words[-2:]) == (REFUSED, ["slapd", "gcc"])
    assert machine.files() == set()


@needs_root
@pytest.mark.parametrize(
    ("program", "script"),
    [("apt-get", "exit 100"), ("dpkg", "echo freeradius"), ("apt-get", "kill -TERM $PPID")],
    ids=["apt-get fails", "a package is half-configured", "a signal ends it"],
)
def test_the_machine_keeps_its_own_policy_where_something_fails(
    machine: Machine, program: str, script: str
) -> None:
    machine.policy.write_text(OWN_POLICY)
    machine.has(program, script)
    assert machine.install("slapd").returncode not in {0, -signal.SIGTERM}
    assert (machine.policy.read_text(), machine.files()) == (OWN_POLICY, {"policy-rc.d"})


@needs_root
def test_what_a_killed_run_left_is_put_right_by_the_next(machine: Machine) -> None:
    machine.policy.write_text(OWN_POLICY)
    machine.has("apt-get", "kill -KILL $PPID")
    assert machine.install("slapd").returncode == -signal.SIGKILL
    assert machine.policy.read_text() != OWN_POLICY
    machine.has("apt-get", "true")
    assert machine.install("slapd").returncode == 0
    assert (machine.policy.read_text(), machine.files()) == (OWN_POLICY, {"policy-rc.d"})


def test_what_is_installed_is_left_alone(machine: Machine) -> None:
    machine.has("dpkg-query", "printf 'install ok installed'")
    machine.has("apt-get", "exit 100")
    assert machine.install("slapd").returncode == 0
