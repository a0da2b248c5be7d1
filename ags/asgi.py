"""The ASGI application that the production server runs."""

import os

import django
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ags.settings")
django.setup(set_prefix=False)

from ags.api.application import Application  # noqa: E402 - needs django.setup()

application: Application
if settings.AGS_TRACES:
    # Its library is optional.
    from ags.api.traced_application import TracedApplication

    application = TracedApplication()
else:
    application = Application()
