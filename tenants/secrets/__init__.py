"""Encryption at rest, validation of key material, and secret settings of services."""
