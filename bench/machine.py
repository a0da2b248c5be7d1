"""CPU and memory of processes and of the machine, from /proc."""

from __future__ import annotations

import os
import platform
import sysconfig
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

CPUS = os.cpu_count() or 1
"""CPUs of the machine."""

MEMORY = os.sysconf("SC_PHYS_PAGES") * _PAGE
"""Bytes of memory of the machine."""


BUILD_OPTIONS = ("enable-optimizations", "with-lto")
"""Options of Python's `configure` that make it faster."""


def interpreter() -> dict[str, Any]:
    """Return the version of this Python, and its build options.

    An option is None if `config_args` is not that of this executable. Debian's Python has that of its shared
    library, which it does not load.
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
    """Return a process and all its descendants."""
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
    """Return the CPU time of each process of the tree in seconds, user and system.

    The time of a child that has exited counts for its parent. Otherwise, the sum would fall with each
    connection that PostgreSQL closes.
    """
    return {pid: _seconds(stat) for pid in tree(root) if (stat := _stat(pid))}


def memory(pid: int) -> dict[str, int]:
    """Return the memory of a process in bytes: `resident`, and `own`, which is not shared."""
    kinds = {"Rss": "resident", "Private_Clean": "own", "Private_Dirty": "own"}
    held = {"resident": 0, "own": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        if name in kinds:
            held[kinds[name]] += int(value.split()[0]) * 1024
    return held


def idle() -> float:
    """Return the idle time of all CPUs in seconds."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(words[4]) / _TICKS


def waiting_for_disk() -> float:
    """Return the time that all CPUs have waited for a disk in seconds."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(words[5]) / _TICKS


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on (proc(5)); none if the process has exited."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _seconds(stat: list[str]) -> float:
    return sum(map(int, stat[11:15])) / _TICKS
