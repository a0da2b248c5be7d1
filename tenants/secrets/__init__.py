"""Secrets at rest: encryption, the material of keys, and secret settings of services."""
