"""Migrations of a fictitious next version: the current ones of `ags_sessions`, and two more."""

from ags.sessions import migrations

__path__ = [*__path__, *migrations.__path__]
