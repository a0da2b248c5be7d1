"""Limit a group of processes to a share of a CPU, with control groups of version 1 or 2."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench import machine

_ROOT = Path("/sys/fs/cgroup")
PERIOD = 20_000
"""Microseconds. Short, so that a throttled process waits for a few milliseconds only."""


class Unavailable(Exception):
    """Control groups of the CPU cannot be created on this machine."""


@dataclass(frozen=True, slots=True)
class Group:
    """Processes that share a limit."""

    folder: Path

    def limit(self, share: float | None) -> None:
        """Set the share of a CPU, such as 0.25; None removes the limit."""
        quota = None if share is None else max(int(PERIOD * share), 1000)
        if (self.folder / "cpu.max").exists():
            (self.folder / "cpu.max").write_text(f"{'max' if quota is None else quota} {PERIOD}")
        else:
            (self.folder / "cpu.cfs_period_us").write_text(str(PERIOD))
            (self.folder / "cpu.cfs_quota_us").write_text("-1" if quota is None else str(quota))

    def add(self, root: int) -> None:
        """Add a process and its descendants, including later ones."""
        _move(machine.tree(root), self.folder)

    def throttled(self) -> float:
        """Return the seconds for which the group was throttled, summed over the CPUs."""
        for line in (self.folder / "cpu.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in ("throttled_time", "throttled_usec"):
                return int(value) / (1e9 if name == "throttled_time" else 1e6)
        return 0.0


@contextmanager
def group(name: str) -> Iterator[Group]:
    """Create a group; remove it at the end. Raises `Unavailable`."""
    first = _ROOT / "cpu"
    parent = first if first.is_dir() else _ROOT
    folder = parent / f"ags-bench-{os.getpid()}-{name}"
    try:
        folder.mkdir()
        made = Group(folder)
        made.limit(None)
    except OSError as error:
        if folder.is_dir():
            folder.rmdir()
        raise Unavailable(f"{parent}: {error.strerror}") from None
    try:
        yield made
    finally:
        _move(map(int, (folder / "cgroup.procs").read_text().split()), parent)
        folder.rmdir()


def _move(pids: Iterable[int], folder: Path) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # it has exited meanwhile
            (folder / "cgroup.procs").write_text(str(pid))
