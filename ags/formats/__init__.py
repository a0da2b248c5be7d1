"""Formats of dates and times on the pages of staff."""
