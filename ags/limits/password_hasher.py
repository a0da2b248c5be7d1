"""The limit on passwords that are hashed at the same time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.auth.hashers import PBKDF2PasswordHasher

from ags.limits.limiter import Limit

PLACES = 2
"""One password is hashed in a process, and one waits. So one thread of STAFF_THREADS is always free."""

RETRY_AFTER = 2
"""Seconds. The two that are before a password have ended by then."""

PASSWORDS_AT_ONCE = Limit("staff_passwords")
"""Passwords of staff that are hashed at the same time."""


class TooManyPasswords(Exception):
    """As many passwords as there are places are being hashed or wait."""


class QueuedPasswordHasher(PBKDF2PasswordHasher):
    """Hashes one password at a time, because that takes most of a CPU. Its hashes are those of Django.

    All passwords of staff pass through it: at the login, even those of unknown users, and in the forms that
    set or change one.
    """

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        """Raises TooManyPasswords, at once."""
        with _turn():
            return super().encode(password, salt, iterations)

    def harden_runtime(self, password: str, encoded: str) -> None:
        """Wait without a place: the password is wrong, and a TooManyPasswords would hide that."""
        with _hashing:
            PBKDF2PasswordHasher().harden_runtime(password, encoded)


_places = threading.Semaphore(PLACES)
_hashing = threading.Lock()


@contextmanager
def _turn() -> Iterator[None]:
    if not _places.acquire(blocking=False):
        PASSWORDS_AT_ONCE.refusals.increment()
        raise TooManyPasswords
    try:
        with _hashing:
            yield
    finally:
        _places.release()
