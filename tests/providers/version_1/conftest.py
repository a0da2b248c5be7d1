"""Without these providers, which bring the old names, nothing here can be imported."""

from django.conf import settings

collect_ignore_glob = [] if "voucher" in settings.AGS_PROVIDERS else ["test_*.py"]
