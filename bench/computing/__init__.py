"""A provider that computes for the time in a parameter."""
