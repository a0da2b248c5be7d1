"""App configuration of `ags.sessions`."""

from django.apps import AppConfig


class SessionsConfig(AppConfig):
    name = "ags.sessions"
    # "sessions" is the label of django.contrib.sessions.
    label = "ags_sessions"
    verbose_name = "Sessions"
