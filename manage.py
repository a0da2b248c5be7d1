#!/usr/bin/env python
"""Django's command line, with a one-line answer to a mistake in the environment."""

import os
import sys

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db.utils import OperationalError, ProgrammingError


def main() -> None:
    """Run the command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ags.settings")
    try:
        # Read before anything else, so that a mistake shows here and not half-way through a command.
        settings.DEBUG  # noqa: B018
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"AGS cannot start: {error}")
    except (OperationalError, ProgrammingError) as error:
        # Away, full, or not migrated. Whoever needs more asks for --traceback.
        if "--traceback" in sys.argv:
            raise
        first, *_ = str(error).strip().splitlines() or [type(error).__name__]
        sys.exit(f"The database says: {first}")


if __name__ == "__main__":
    main()
