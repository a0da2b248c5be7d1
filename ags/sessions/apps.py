"""The sessions app."""

from django.apps import AppConfig


class SessionsConfig(AppConfig):
    """What the gate has issued."""

    name = "ags.sessions"
    # "sessions" is taken by Django's own.
    label = "ags_sessions"
    verbose_name = "Sessions"
    default_auto_field = "django.db.models.BigAutoField"
