"""The server of `manage.py serve`: processes, connections, and the log."""
