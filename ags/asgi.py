"""The ASGI application that the production server runs."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ags.settings")
django.setup(set_prefix=False)

from ags.api.application import Application  # noqa: E402 - needs django.setup()

application = Application()
