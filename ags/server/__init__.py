"""The HTTP server of `manage.py serve`."""
