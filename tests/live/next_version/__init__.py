"""The migrations of `ags_sessions` as the next version might have them: those of this one, and two more."""

from ags.sessions import migrations

__path__ = [*__path__, *migrations.__path__]
