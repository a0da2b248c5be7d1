"""Data of each process that every process of a server can read, also after the process has ended."""

import os
import struct
import tempfile
import zlib
from collections.abc import Iterator

from ags.server.shared_counter import SLOTS

MAX_BYTES = 4 * 1024 * 1024
"""Of the data of one slot."""

_HEADER = struct.Struct("<QII")
"""The number of the write, the length of the data and their CRC-32."""

_HALF = _HEADER.size + MAX_BYTES


class SharedData:
    """A file in memory, without a name, opened before the workers are forked, with the data of each slot.

    A slot has two halves, and a write replaces the older one: so a process that is killed while it writes
    leaves the previous data. The file has holes, so it takes only the space that was written.
    """

    def __init__(self) -> None:
        self._fd = _create_file()

    def close(self) -> None:
        os.close(self._fd)

    def write(self, slot: int, data: bytes) -> None:
        """Replace the data of the slot of this process. Raises ValueError if they are too long; OSError."""
        if len(data) > MAX_BYTES:
            raise ValueError("too much data for a slot")
        latest = max((number for number, _ in self._read_halves(slot)), default=0)
        number = latest + 1
        header = _HEADER.pack(number, len(data), zlib.crc32(data))
        os.pwrite(self._fd, header + data, _offset(slot, number % 2))

    def read(self, slot: int) -> bytes | None:
        """Return the data that were written last; None if there are none."""
        return max(self._read_halves(slot), default=(0, None))[1]

    def read_all(self) -> Iterator[tuple[int, bytes]]:
        end = os.fstat(self._fd).st_size
        for slot in range(min(SLOTS, -(-end // (2 * _HALF)))):
            data = self.read(slot)
            if data is not None:
                yield slot, data

    def _read_halves(self, slot: int) -> Iterator[tuple[int, bytes]]:
        for half in (0, 1):
            raw = os.pread(self._fd, _HEADER.size, _offset(slot, half))
            if len(raw) < _HEADER.size:
                continue
            number, length, checksum = _HEADER.unpack(raw)
            if not number or length > MAX_BYTES:
                continue
            data = os.pread(self._fd, length, _offset(slot, half) + _HEADER.size)
            if zlib.crc32(data) == checksum:
                yield number, data


shared_data: SharedData | None = None
"""That of this server. None: this process does not belong to `manage.py serve`."""


def open_shared_data() -> None:
    """Call this in the parent process, before it forks."""
    global shared_data  # noqa: PLW0603 - once for each server
    shared_data = SharedData()


def _create_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ags")
    with tempfile.TemporaryFile() as file:  # not Linux
        return os.dup(file.fileno())


def _offset(slot: int, half: int) -> int:
    return (2 * slot + half) * _HALF
