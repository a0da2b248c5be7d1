#!/usr/bin/env python
"""Django's command line; prints one line for configuration and database errors."""

import os
import sys

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db.utils import OperationalError, ProgrammingError


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ags.settings")
    try:
        # Load the settings first, so that invalid settings fail here and not during a command.
        settings.DEBUG  # noqa: B018
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"AGS cannot start: {error}")
    except (OperationalError, ProgrammingError) as error:
        # Unavailable, full or not migrated.
        if "--traceback" in sys.argv:
            raise
        first, *_ = str(error).strip().splitlines() or [type(error).__name__]
        sys.exit(f"Database error: {first}")


if __name__ == "__main__":
    main()
