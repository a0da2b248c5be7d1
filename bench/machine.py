"""What processes take of the machine, as /proc tells it."""

from __future__ import annotations

import os
import platform
import sysconfig
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

CPUS = os.cpu_count() or 1
"""Of the whole machine."""

MEMORY = os.sysconf("SC_PHYS_PAGES") * _PAGE
"""Bytes, of the whole machine."""


BUILD_OPTIONS = ("enable-optimizations", "with-lto")
"""Of Python's `configure`, the options that make it faster."""


def interpreter() -> dict[str, Any]:
    """Return the version of this Python, and what is known of its build.

    Options are None where `config_args` is not of this executable. Debian's has that of its shared library,
    which it does not load.
    """
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    is_shared = "libpython" in Path("/proc/self/maps").read_text()
    is_own = is_shared == ("--enable-shared" in arguments)
    return {
        "version": platform.python_version(),
        "config_args": arguments,
        **{option: f"--{option}" in arguments if is_own else None for option in BUILD_OPTIONS},
    }


def tree(root: int) -> list[int]:
    """Return a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            stat = _stat(int(entry.name))
            if stat:
                children.setdefault(int(stat[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def cpu(root: int) -> dict[int, float]:
    """Return the seconds of CPU that each process of the tree has had, user and system.

    What a child had that has ended is its parent's: else a sum would fall with each connection that closes.
    """
    return {pid: _seconds(stat) for pid in tree(root) if (stat := _stat(pid))}


def memory(pid: int) -> dict[str, int]:
    """Return the bytes that a process holds: `resident`, and `own`, which it shares with no other."""
    kinds = {"Rss": "resident", "Private_Clean": "own", "Private_Dirty": "own"}
    held = {"resident": 0, "own": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        if name in kinds:
            held[kinds[name]] += int(value.split()[0]) * 1024
    return held


def idle() -> float:
    """Return the seconds that all CPUs together have had nothing to do."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(words[4]) / _TICKS


def waiting_for_disk() -> float:
    """Return the seconds that all CPUs together have had nothing to do but wait for a disk."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(words[5]) / _TICKS


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on (proc(5)); none where the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _seconds(stat: list[str]) -> float:
    return sum(map(int, stat[11:15])) / _TICKS
