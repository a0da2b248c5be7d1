"""Counters that the processes of a server share."""

import mmap

SLOTS = 1024

current_slot = 0
"""The slot of this process. No other process of the server has it at the same time."""


class SharedCounter:
    """A number that only rises, in shared memory that is mapped before the workers are forked.

    Each process changes only its own slot. A process that replaces another continues its number.
    """

    def __init__(self) -> None:
        self._slots = memoryview(mmap.mmap(-1, 8 * SLOTS)).cast("Q")

    def increment(self) -> None:
        self._slots[current_slot] += 1

    def total(self) -> int:
        """Return the sum of all processes, including those that have ended."""
        return sum(self._slots)
