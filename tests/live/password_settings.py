"""Settings with fast hashes of passwords, which wait while the file `HELD_PASSWORDS` exists."""

import os
import time
from pathlib import Path
from typing import Any

from django.contrib.auth import hashers
from django.utils import crypto

from ags.settings import *  # noqa: F403


def pbkdf2(*args: Any, **options: Any) -> bytes:
    """Replaces the function of Django."""
    while Path(os.environ["HELD_PASSWORDS"]).exists():
        time.sleep(0.01)
    return crypto.pbkdf2(*args, **options)


hashers.pbkdf2 = pbkdf2  # type: ignore[attr-defined] # the stubs do not contain it
hashers.PBKDF2PasswordHasher.iterations = 1
