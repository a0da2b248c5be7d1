"""Explanations of requests for staff: what was checked, what was refused, and what to do about it."""
