"""The hashes of staff passwords, of which a process computes one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from django.contrib.auth import hashers
from django.contrib.auth.hashers import PBKDF2PasswordHasher, check_password, make_password
from django.utils import crypto

from ags.limits import password_hasher
from ags.limits.password_hasher import QueuedPasswordHasher, TooManyPasswords
from ags.settings import PASSWORD_HASHERS
from tests.support.waiting import PATIENCE, wait_until

SALT = "0123456789012345678901"


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.PASSWORD_HASHERS = PASSWORD_HASHERS
    monkeypatch.setattr(PBKDF2PasswordHasher, "iterations", 2)


@pytest.fixture
def both_places_taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """One password is being hashed until the event is set, and one waits."""
    may_finish = Event()

    def pbkdf2(*args: Any, **options: Any) -> bytes:
        assert may_finish.wait(PATIENCE)
        return crypto.pbkdf2(*args, **options)

    monkeypatch.setattr(hashers, "pbkdf2", pbkdf2)
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(make_password, "password") for _ in range(2)]
        wait_until(lambda: password_hasher._places._value == 0, "the places are not taken")
        try:
            yield may_finish
        finally:
            may_finish.set()
        assert all(check_password("password", each.result()) for each in running)


def test_hashes_are_those_of_django() -> None:
    stored = PBKDF2PasswordHasher().encode("password", SALT)
    assert make_password("password", SALT) == stored
    assert check_password("password", stored)
    assert not check_password("wrong", stored)


def test_a_third_password_is_refused_at_once(both_places_taken: Event) -> None:
    for _ in range(3):
        with pytest.raises(TooManyPasswords):
            make_password("password")
    with pytest.raises(TooManyPasswords):
        check_password("password", f"pbkdf2_sha256$2${SALT}$x")
    both_places_taken.set()
    wait_until(lambda: password_hasher._places._value == 2, "the places are not free again")
    assert make_password("password").startswith("pbkdf2_sha256$2$")


def test_a_wrong_password_of_an_old_hash_is_never_refused_after_it_was_verified(
    both_places_taken: Event,
) -> None:
    """Django then hashes once more, so that it takes as long as for a new hash."""
    started = Event()

    def harden() -> None:
        started.set()
        QueuedPasswordHasher().harden_runtime("wrong", f"pbkdf2_sha256$1${SALT}$x")

    with ThreadPoolExecutor(1) as pool:
        hardening = pool.submit(harden)
        assert started.wait(PATIENCE)
        both_places_taken.set()
        hardening.result(PATIENCE)
