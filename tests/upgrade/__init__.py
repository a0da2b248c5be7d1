"""Installations that other commits made, on which this commit starts."""
