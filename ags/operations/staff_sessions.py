"""Staff sessions that end at a fixed time after the login."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends import db
from django.dispatch import receiver


class SessionStore(db.SessionStore):
    def get_expire_at_browser_close(self) -> bool:
        """Return the setting. Django returns False after `set_expiry()` with a time."""
        return settings.SESSION_EXPIRE_AT_BROWSER_CLOSE


@receiver(user_logged_in)
def set_fixed_expiry(request: Any, **kwargs: Any) -> None:
    """Set the expiry of the session. Otherwise each change of it, such as a search, would extend it."""
    request.session.set_expiry(timedelta(seconds=settings.SESSION_COOKIE_AGE))
