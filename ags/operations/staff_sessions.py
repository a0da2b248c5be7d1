"""The sessions of staff: each ends at a fixed time after the log-in, whatever is done in it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends import db
from django.dispatch import receiver


class SessionStore(db.SessionStore):
    """Django's, but a session with a fixed end does not outlive the browser either."""

    def get_expire_at_browser_close(self) -> bool:
        """Return what the settings say, also where `set_expiry()` was called."""
        return settings.SESSION_EXPIRE_AT_BROWSER_CLOSE


@receiver(user_logged_in)
def fix_end(request: Any, **kwargs: Any) -> None:
    """Set the end of the session. Otherwise, each change of it, such as a look-up, would move the end."""
    request.session.set_expiry(timedelta(seconds=settings.SESSION_COOKIE_AGE))
